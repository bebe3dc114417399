"""Who a paused run is shown to: a person at its terminal, or nobody until somebody asks.

Without a terminal the run is a process of its own from its start: the command waits for its end,
or leaves it behind when it is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio

from cleanroom.cli.terminal import CallerTerminal, guarded, is_terminal

if TYPE_CHECKING:
    from cleanroom.cli.options import RunOptions
    from cleanroom.engine import PausedPhase

PAUSED = 77
_PAUSED_BYTE = b"p"
Choose = Callable[[Literal["retry", "end"]], None]


class Detached(NamedTuple):
    """Which of the two processes this is."""

    # of the run: the end of a socket whose other end the command waits at
    command: socket.socket | None = None
    # of the command: the exit status
    status: int = 0


class Pausing(NamedTuple):
    """How a run is paused where a phase fails."""

    front: DetachedFront | TerminalFront
    limit_seconds: float
    # the one at which its shells run, and which they have alone meanwhile
    terminal: CallerTerminal | None = None


def begin(options: RunOptions, stack: ExitStack) -> Pausing | int:
    """At a terminal, guard it; else let the run be a process of its own.

    In the process that waits for that: its exit status.
    """
    limit, root = options["pause_for"], options["root"]
    if is_terminal():
        stack.enter_context(guarded())
        terminal = CallerTerminal()
        return Pausing(TerminalFront(terminal, root), limit, terminal)
    detached = detach()
    if detached.command is None:
        return detached.status
    return Pausing(DetachedFront(detached.command, root), limit)


def detach() -> Detached:
    """Go on in a process of its own; returns in both. Before there are threads."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.setsid()
        return Detached(command=theirs)
    theirs.close()
    return Detached(status=_wait(ours, pid))


def _wait(run: socket.socket, pid: int) -> int:
    """Wait for the end of the run or for its pause; signals are the run's."""

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    if run.recv(1) == _PAUSED_BYTE:
        return PAUSED
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def paused_lines(paused: PausedPhase, limit_seconds: float, root: str) -> str:
    """How a paused run goes on, for people."""
    at = f" --root {shlex.quote(root)}" if root != "." else ""
    return (
        f"paused: phase {paused.phase!r} failed ({paused.reason}); its environment, services and "
        f"data stay for {limit_seconds / 60:g} min\n"
        f"  cleanroom-engine shell{at}         look around in it\n"
        f"  cleanroom-engine retry{at}         after a fix: run it again, and what follows it\n"
        f"  cleanroom-engine retry --end{at}   end the run\n"
    )


class DetachedFront:
    """Nobody, once the run is paused, until somebody connects."""

    outlives = True

    def __init__(self, command: socket.socket, root: str) -> None:
        self._command: socket.socket | None = command
        self._root = root
        # for a decision
        self.waits = False
        # is told the exit status, last of all
        self.on_end: Callable[[int], None] = lambda status: None

    @contextmanager
    def hidden_streams(self) -> Iterator[None]:
        """What is started meanwhile keeps none of the streams open that a pause lets go of."""
        kept = [os.dup(number) for number in (1, 2)]
        try:
            _null_streams()
            yield
        finally:
            _use(0, *kept)
            for descriptor in kept:
                os.close(descriptor)

    def watch(self, interrupt: Callable[[], None]) -> None:
        """End the run if the command that waits for it is killed."""
        assert self._command is not None
        asyncio.get_running_loop().add_reader(self._command, interrupt)

    def paused(self, paused: PausedPhase, limit_seconds: float) -> None:
        """Tell it, and let go of the streams: whoever reads them waits for their end."""
        _show(paused_lines(paused, limit_seconds, self._root))
        _null_streams()
        if self._command is not None:
            asyncio.get_running_loop().remove_reader(self._command)
            with contextlib.suppress(OSError):
                self._command.send(_PAUSED_BYTE)
            self._command.close()
            self._command = None

    def resumed(self, streams: Sequence[int]) -> None:
        """Go on with the streams of who decided."""
        _use(0, *streams)

    async def prompt(self, paused: PausedPhase, choose: Choose) -> None:
        """Nobody is there."""
        self.waits = True
        try:
            await anyio.sleep_forever()
        finally:
            self.waits = False


class TerminalFront:
    """A person at the terminal of the run."""

    outlives = False

    def __init__(self, terminal: CallerTerminal, root: str) -> None:
        self._terminal = terminal
        self._root = root
        # for a decision
        self.waits = False
        # is told the exit status, last of all
        self.on_end: Callable[[int], None] = lambda status: None

    @contextmanager
    def hidden_streams(self) -> Iterator[None]:
        """They are the terminal's, whatever is started."""
        yield

    def paused(self, paused: PausedPhase, limit_seconds: float) -> None:
        """Tell it."""
        _show(paused_lines(paused, limit_seconds, self._root))

    def resumed(self, streams: Sequence[int]) -> None:
        """It is shown here still."""
        _show("decided in another terminal\n")

    async def prompt(self, paused: PausedPhase, choose: Choose) -> None:
        """Ask until there is a decision."""
        self.waits = True
        try:
            while (choice := await self._choice(paused)) is None:
                pass
            choose(choice)
        finally:
            self.waits = False

    async def _choice(self, paused: PausedPhase) -> Literal["retry", "end"] | None:
        _show("[s]hell, [r]etry or [e]nd? ")
        match (await _line()).strip().lower():
            case "s" | "shell":
                async with self._terminal.lend(paused.title) as end:
                    status = await paused.shell(end, os.environ)
                _show(f"shell ended with exit status {status}\n")
            case "r" | "retry":
                return "retry"
            case "e" | "end" | "\x04":
                return "end"
        return None


async def _line() -> str:
    """A line that was typed; the sign of the end of input where there is none any more."""
    await anyio.wait_readable(sys.stdin.fileno())
    return os.read(sys.stdin.fileno(), 4096).decode(errors="replace") or "\x04"


def _show(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()


def _use(source: int, output: int, error: int) -> None:
    """Make these the three streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for target, descriptor in enumerate((source, output, error)):
        if target != descriptor:
            os.dup2(descriptor, target)


def _null_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    _use(null, null, null)
    os.close(null)
