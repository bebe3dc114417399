"""One run as the command conducts it: the engine, its events shown as they come,
and signals that unwind it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from cleanroom.cli.views.failure import Stopped
from cleanroom.cli.views.view import View
from cleanroom.engine import Engine
from cleanroom.engine.prestart import KeeperProcess
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.tracing.deliver import Delivered
from cleanroom.model.errors import Exit
from cleanroom.model.events import Envelope

# A terminal that closes ends a run as a termination does; under nohup the signal stays ignored.
_STATUS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.TERMINATED,
}


class Conducted(NamedTuple):
    """How a run ended, and what became of what a collector was sent (None: none is named)."""

    result: RunResult
    delivered: Delivered | None


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, as Python does for SIGINT,
    for the time in which no engine listens to them.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(_STATUS[signal.Signals(number)])

    for number in _watched():
        if number is not signal.SIGINT:
            signal.signal(number, stop)
    yield


def _watched() -> list[signal.Signals]:
    return [number for number in _STATUS if signal.getsignal(number) is not signal.SIG_IGN]


def conduct(
    root: str,
    phases: tuple[str, ...],
    *,
    single: bool,
    view: View,
    keeper: KeeperProcess | None = None,
    options: dict[str, Any],
) -> Conducted:
    """Run the phases to their end, whatever that is. `keeper` was started for this run.

    Raises:
        CleanroomError: nothing could be run at all.
        Stopped: a signal came before the engine had opened.
    """
    import anyio

    try:
        return anyio.run(_conduct, root, phases, single, view, keeper, options)
    finally:
        if keeper is not None:
            keeper.abandon()  # unless the engine took it


async def _conduct(
    root: str,
    phases: tuple[str, ...],
    single: bool,
    view: View,
    keeper: KeeperProcess | None,
    options: dict[str, Any],
) -> Conducted:
    import anyio

    from cleanroom import engine

    signals = _Signals()
    result: RunResult | None = None
    delivered: Delivered | None = None
    async with anyio.create_task_group() as helpers:
        signals.scope = helpers.cancel_scope
        helpers.start_soon(signals.watch)
        helpers.start_soon(_tick, view)
        async with engine.open(root, caller=os.environ, **options) as opened:
            signals.engine = opened
            opened.adopt(keeper)
            opened.alone()
            async with anyio.create_task_group() as showing:
                showing.start_soon(_follow, opened.events(), view)
                result = await (opened.run(phases[0]) if single else opened.pipeline(*phases))
                delivered = opened.delivered
        helpers.cancel_scope.cancel()
    if result is None:
        raise Stopped(signals.status)
    return Conducted(result, delivered)


class _Signals:
    """Hands signals to the engine: the first unwinds the run, a second one hurries.

    Before there is an engine they end the command.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.scope: Any = None
        self.status = Exit.INTERRUPTED

    async def watch(self) -> None:
        import anyio

        with anyio.open_signal_receiver(*_watched()) as received:
            async for number in received:
                self.status = _STATUS[number]
                if self.engine is None:
                    self.scope.cancel()
                else:
                    self.engine.interrupt(self.status)


async def _follow(events: AsyncIterator[Envelope], view: View) -> None:
    async for envelope in events:
        view.show(envelope)


async def _tick(view: View) -> None:
    import time

    import anyio

    while True:
        view.tick(time.monotonic_ns())
        await anyio.sleep(view.interval_seconds)
