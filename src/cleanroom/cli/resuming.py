"""Paused runs from another terminal: find one, open a shell in it, decide how it goes on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import anyio
import anyio.to_thread

from cleanroom import engine
from cleanroom.cli.terminal import CallerTerminal
from cleanroom.engine import PausedRun
from cleanroom.model.errors import EnvironmentFailed, UsageError


def paused_run(root: str, run_id: str | None) -> PausedRun:
    """The run of this name, or the only one that is paused in the project.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = engine.paused_runs(os.environ, root)
    chosen = [run for run in found if run_id in (None, run.run_id)]
    for run in found:
        if len(chosen) != 1 or run is not chosen[0]:
            run.close()
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        names = ", ".join(run.run_id for run in chosen)
        raise UsageError(
            "CR-PAUSE-003",
            f"expected one paused run, found {names}",
            hint="name one of them",
        )
    raise UsageError(
        "CR-PAUSE-003",
        "expected a paused run of this project, found none",
        hint="`cleanroom-engine run PHASE --pause` pauses where the phase fails; "
        "`cleanroom-engine shell PHASE` needs no paused run",
    )


async def shell_in(run: PausedRun) -> int:
    """A shell in its environment, at this terminal; its exit status.

    Raises:
        EnvironmentFailed: the run ended meanwhile.
    """
    terminal = CallerTerminal()
    async with terminal.lend(run.title) as end:
        _ask(run, "shell", [end])
        status = await anyio.to_thread.run_sync(engine.answer, run)
    run.close()
    return _known(status)


def decide(run: PausedRun, op: str) -> int:
    """Let it go on here, and wait for its end or its next pause; its exit status.

    Raises:
        EnvironmentFailed: it ended without one.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        engine.interrupt(run)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    _ask(run, op, [sys.stdout.fileno(), sys.stderr.fileno()])
    status = engine.answer(run)
    run.close()
    return _known(status)


def _ask(run: PausedRun, op: str, descriptors: list[int]) -> None:
    try:
        engine.ask(run, op, descriptors, os.environ.get("TERM", ""))
    except OSError:
        raise _ended() from None


def _known(status: int | None) -> int:
    if status is None:
        raise _ended()
    return status


def _ended() -> EnvironmentFailed:
    return EnvironmentFailed(
        "CR-PAUSE-004",
        "the run ended meanwhile",
        hint="its reports say why; `cleanroom-engine run PHASE --pause` starts another one",
    )
