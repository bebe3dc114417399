"""The caller's terminal, lent to a shell in an environment and given back as it was.

What runs inside gets a pseudo-terminal of its own, never the caller's: it can neither type into it
(TIOCSTI) nor change its modes.
A guard, a process of its own, gives the terminal back should this process be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

CHUNK_BYTES = 64 * 1024
# What a program may have left of itself in a terminal: an alternate screen, colours, a hidden
# cursor, another character set, reports of the mouse, of the focus and of what is pasted, keys of
# its own, inserting, reversed colours, updates that are held back.
# First of all a sequence that it began and did not end: in a string (DCS) the rest would be lost.
# The scrolling region moves the cursor, which is put back.
RESET = (
    b"\x18\x1b\\"
    b"\x1b7\x1b[r\x1b8\x1b[?1047l\x1b[0m\x1b[?25h\x1b(B\x0f"
    b"\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l"
    b"\x1b[?1004l\x1b[?2004l\x1b[?1l\x1b>\x1b[>4m\x1b[=0u\x1b[?7h"
    b"\x1b[4l\x1b[20l\x1b[?5l\x1b[?2026l"
)


class CallerTerminal:
    """The terminal of this process, at its standard input and output."""

    def __init__(self) -> None:
        # whether a shell had it
        self.was_lent = False
        self._free: asyncio.Event | None = None

    @property
    def is_lent(self) -> bool:
        """Whether a shell has it."""
        return self._free is not None and not self._free.is_set()

    async def wait_free(self) -> None:
        """Wait until no shell has it."""
        if self._free is not None:
            await self._free.wait()

    @asynccontextmanager
    async def lend(self, title: str) -> AsyncIterator[int]:
        """Lend it: the descriptor of a pseudo-terminal for what runs inside."""
        self.was_lent, self._free = True, asyncio.Event()
        ours, theirs = os.openpty()
        try:
            _copy_size(sys.stdout.fileno(), ours)
            _write_all(sys.stderr.fileno(), f"{title}\n".encode(errors="replace"))
            with raw_mode(sys.stdin.fileno()), _following_size(ours), bridged(ours):
                yield theirs
        finally:
            os.close(theirs)
            os.close(ours)
            self._free.set()


def is_terminal() -> bool:
    """Whether a person can type into a shell here and see it."""
    return all(
        stream is not None and not stream.closed and stream.isatty()
        for stream in (sys.stdin, sys.stdout, sys.stderr)
    )


# --- its size


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        # The kernel sends SIGWINCH to the foreground of the other end (ioctl_tty(2)).
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


@contextmanager
def _following_size(ours: int) -> Iterator[None]:
    """Give the pseudo-terminal each new size of the terminal."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, _copy_size, sys.stdout.fileno(), ours)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


# --- its modes


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key goes to what runs inside; afterwards the modes are as they were."""
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        _restore(descriptor, before)


def _restore(descriptor: int, modes: list[Any]) -> None:
    with contextlib.suppress(OSError, termios.error):
        os.write(descriptor, RESET)
    with contextlib.suppress(OSError, termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)


@contextmanager
def guarded() -> Iterator[None]:
    """A process that gives the terminal its modes back if this one is killed.

    Enter it before there are threads and further processes.
    """
    modes = termios.tcgetattr(sys.stdin.fileno())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _stand_guard(reading, writing, modes)
    os.close(reading)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.write(writing, b".")
        os.close(writing)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _stand_guard(reading: int, writing: int, modes: list[Any]) -> None:
    """Wait until the other process says that it ended well, or is gone. Never returns."""
    status = 1
    try:
        os.close(writing)
        # Of another session: neither the terminal's signals nor its job control concern it.
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        if not os.read(reading, 1):
            _restore(sys.stdin.fileno(), modes)
        status = 0
    finally:
        os._exit(status)


# --- what is typed and shown


@contextmanager
def bridged(ours: int) -> Iterator[None]:
    """Copy what is typed to the pseudo-terminal, and what it shows to the terminal.

    In a thread: a terminal that takes nothing any more must not hold the engine up.
    """
    os.set_blocking(ours, False)
    waking, wake = os.pipe()
    streams = (sys.stdin.fileno(), sys.stdout.fileno())
    copier = threading.Thread(target=_copy, args=(*streams, ours, waking), daemon=True)
    copier.start()
    try:
        yield
    finally:
        os.close(wake)
        # What was shown last; a terminal that takes nothing is left behind.
        copier.join(1.0)
        if not copier.is_alive():
            os.close(waking)


def _copy(typed: int, shown: int, ours: int, waking: int) -> None:
    """Copy until `waking` ends, then what is there still; or until the terminal is gone."""
    pending = b""
    sources = [typed, ours, waking]
    while True:
        waiting = [source for source in sources if source != typed or not pending]
        readable, writable, _ = select.select(waiting, [ours] if pending else [], [])
        if typed in readable and not (pending := _read(typed)):
            _hang_up(ours)  # raw modes know no other end: nobody types and looks any more
            return
        if ours in writable:
            pending = pending[_write(ours, pending) :]
        if ours in readable:
            chunk = _read(ours)
            if not chunk or not _write_all(shown, chunk):
                return
        elif waking in readable:
            return


def _hang_up(ours: int) -> None:
    """End the pseudo-terminal, so that what runs on it gets SIGHUP; the number stays taken."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, ours, inheritable=False)
    os.close(null)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError:
        return b""


def _write(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)


def _write_all(descriptor: int, data: bytes) -> bool:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except OSError:
            return False
    return True
