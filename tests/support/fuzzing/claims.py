"""Calls a command in this process and holds it to what no input may break.

The claims: it ends in time and with an exit status that it may have;
an error is one of ours, in the form of all errors, and says where;
nothing raw reaches the streams; no file is touched but those that the command may write.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom.cli.app import execute

# of processor time for one input; the usual one takes milliseconds, the largest file a second
SECONDS_MAX = 15.0
# of any time: who waits for nothing at all is found too, however busy the machine is
WAIT_SECONDS_MAX = 100.0

# Everything that moves a cursor, breaks a line, reorders or hides text.
RAW = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
HEAD = re.compile(r"error\[CR-[A-Z]+-\d{3}\]: .")
LOCATED = re.compile(r"error\[CR-[A-Z]+-\d{3}\]: \S[^\n]*?:\d+(:\d+)?: ")
OF_ENGINE = re.compile(r"CR-ENGINE-000|CR-CLI-003|Traceback \(most recent")


class Broken(AssertionError):
    """A claim does not hold."""


class Hangs(BaseException):
    """Raised by the timer; no handler of the product may keep it."""


class CommandResult(NamedTuple):
    status: int
    out: str
    err: str


def call(
    arguments: Sequence[str], *, statuses: Sequence[int], writes: Sequence[Path] = ()
) -> CommandResult:
    """Run the command line and check it.

    Raises:
        Broken: it did what no command may do.
    """
    streams = io.BytesIO(), io.BytesIO()
    with bounded(), watched(writes) as touched, redirected(*streams):
        status = execute(arguments)
    out, err = (stream.getvalue().decode("utf-8", "strict") for stream in streams)
    said = CommandResult(status, out, err)
    check(touched == [], f"{arguments[0]} touched {touched[:3]}", said)
    check(
        not OF_ENGINE.search(err),
        f"{arguments[0]} ended in an error that is not of the input",
        said,
    )
    check(status in statuses, f"{arguments[0]} ended with {status}", said)
    for text in (out, err):
        found = RAW.search(text)
        check(
            found is None,
            f"{arguments[0]} showed what is not plain: {found and found.group()!r}",
            said,
        )
    if status == 2:
        check(
            bool(HEAD.match(err)) and "\nexplain: cleanroom-engine explain CR-" in err,
            f"{arguments[0]}'s error has another form",
            said,
        )
    return said


def check(holds: bool, claim: str, said: CommandResult = CommandResult(0, "", "")) -> None:  # noqa: B008 (a value)
    if not holds:
        raise Broken(f"{claim}\nexit {said.status}\n{said.err[:600]}\n{said.out[-300:]}")


@contextmanager
def bounded(seconds: float = SECONDS_MAX, wait_seconds: float = WAIT_SECONDS_MAX) -> Iterator[None]:
    """At most so long, at work and altogether. What was timed before goes on afterwards."""

    def end(number: int, frame: Any) -> None:
        nonlocal late
        late = True
        raise Hangs

    late = False
    known, (left, _) = (
        signal.signal(signal.SIGALRM, end),
        signal.setitimer(signal.ITIMER_REAL, wait_seconds),
    )
    working = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    except Hangs:
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, working)
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, known)
    check(not late, f"still not done after {seconds:g} s of work, or {wait_seconds:g} s altogether")


@contextmanager
def redirected(out: io.BytesIO, err: io.BytesIO) -> Iterator[None]:
    known = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace")
        for stream in (out, err)
    )
    try:
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        replaced, (sys.stdout, sys.stderr) = (sys.stdout, sys.stderr), known
        for stream in replaced:
            stream.detach()


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> which of its arguments are paths, each with the argument that is the folder it starts
# from (-1: there is none).
_CHANGING: dict[str, tuple[tuple[int, int], ...]] = {
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.truncate": ((0, -1),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, -1),),
}
_watching: list[tuple[tuple[str, ...], list[str]]] = []
_hooked = False


@contextmanager
def watched(allowed: Sequence[Path]) -> Iterator[list[str]]:
    """What this process changes outside of `allowed`, by the interpreter's own audit hooks (which
    cannot be taken off: one serves all).
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    touched: list[str] = []
    _watching.append((tuple(os.path.realpath(path) for path in allowed), touched))
    os.open = _opened_from
    try:
        yield touched
    finally:
        _watching.pop()
        if not _watching:
            os.open = _open


_open = os.open
_opening = threading.local()


def _opened_from(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """What is told of an opened file does not say from which folder its path starts."""
    _opening.folder = dir_fd
    try:
        return _open(path, flags, mode, dir_fd=dir_fd)
    finally:
        _opening.folder = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        writing = isinstance(arguments[2], int) and arguments[2] & _WRITING
        changed: tuple[tuple[int, int], ...] = ((0, -1),) if writing else ()
    else:
        changed = _CHANGING.get(event, ())
    allowed, touched = _watching[-1]
    for path, start in changed:
        given = arguments[start] if start >= 0 else getattr(_opening, "folder", None)
        place = _place(arguments[path], -1 if given is None else given)
        if (
            place
            and not place.startswith(("/dev/null", "/proc/"))
            # the interpreter keeps what it compiled there, whoever runs in it
            and "/__pycache__" not in place
            and not any(place == one or place.startswith(one + "/") for one in allowed)
        ):
            touched.append(f"{event} {place}")


def _place(path: Any, start: int) -> str:
    """Where it really is.

    A link in the place of the file itself is not followed: it is what is made, replaced or removed.
    """
    if not isinstance(path, (str, bytes)):
        return ""  # a descriptor: its opening was seen
    folder, name = os.path.split(os.fsdecode(path))
    if start >= 0 and not folder.startswith("/"):
        folder = os.path.join(os.readlink(f"/proc/self/fd/{start}"), folder)
    return os.path.join(os.path.realpath(folder), name)
