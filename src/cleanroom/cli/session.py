"""One run of the command: the engine's run, shown while it goes on, its end and its exit status.

Imported after the keeper was started: everything that a run needs is imported here.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import anyio

from cleanroom import engine
from cleanroom.cli.options import engine_options
from cleanroom.cli.output import Output
from cleanroom.cli.pausing import DetachedFront, Pausing
from cleanroom.cli.terminal import CallerTerminal
from cleanroom.cli.views import delivery
from cleanroom.cli.views.failure import Stopped, coded, explain, root_cause
from cleanroom.cli.views.printing import print_lines
from cleanroom.cli.views.summary import last_line, shell_end, shell_status
from cleanroom.cli.views.view import PlainView, View, can_live, choose
from cleanroom.engine import Engine, PauseControl, started_by_ggen
from cleanroom.engine.prestart import KeeperProcess
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import failing
from cleanroom.evidence.tracing.delivery import Delivered
from cleanroom.model.errors import CleanroomError, Exit, combined
from cleanroom.model.events import Envelope

if TYPE_CHECKING:
    from cleanroom.cli.options import EngineOptions, RunOptions, ShellOptions

# A terminal that closes ends a run as a termination does; under nohup the signal stays ignored.
_STATUS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.TERMINATED,
}


class Request(NamedTuple):
    """The phases to run, in which project, and with which options of the engine."""

    root: str
    phases: tuple[str, ...]
    single: bool  # `run PHASE`: workspaces are ignored
    options: EngineOptions
    fetch_only: bool = False  # no phase runs
    arguments: tuple[str, ...] = ()  # of `run PHASE -- ARGUMENT...`
    shell: CallerTerminal | None = None  # an interactive one there, in the place of the phase
    pausing: Pausing | None = None  # where a phase fails


class FinishedRun(NamedTuple):
    """A run's result, and what a collector was sent of it (None: no collector is named)."""

    result: RunResult
    delivered: Delivered | None


def run_and_show(
    phases: tuple[str, ...],
    options: RunOptions,
    *,
    single: bool,
    keeper: KeeperProcess | None,
    fetch_only: bool = False,
    arguments: tuple[str, ...] = (),
    pausing: Pausing | None = None,
) -> int:
    """Run the phases, show the run as `options` ask, and return the exit status.

    `keeper` was started for this run.

    Raises:
        CleanroomError: nothing could be run at all.
        Stopped: a signal came before the engine had opened.
    """
    request = Request(
        options["root"],
        phases,
        single,
        _run_options(options),
        fetch_only,
        arguments,
        pausing=pausing,
    )
    with stop_signals_raise():
        below_ggen = started_by_ggen()  # asked first: ggen may have ended when the run has
        output = Output(options["colour"])
        finished = _run_in_view(request, options, output, keeper)
    # GitHub's view has shown errors and delivery, and the runner would read standard error too.
    if options["form"] != "github":
        _print_error(finished.result, output)
        _print_delivery(finished, options, output)
    if options["form"] == "human" and below_ggen and finished.result.exit_code:
        # ggen's own exit status is 1 whatever ours is, so that the last line has to tell it.
        output.out(f"{last_line(finished.result)}\n")
    status = _exit_status(finished.result, output)
    if pausing is not None:
        pausing.front.on_end(status)
    return status


def shell_and_show(phase: str, options: ShellOptions, *, keeper: KeeperProcess | None) -> int:
    """Open a shell in the phase's environment, and return its exit status; the run's own where
    that is no shell's.

    `keeper` was started for this run.

    Raises:
        CleanroomError: nothing could be run at all.
        Stopped: a signal came before the engine had opened.
    """
    engine_is_told: EngineOptions = {
        **engine_options(options),
        "keep": options["keep"],
        "offline": options["offline"],
    }
    shell = CallerTerminal()
    request = Request(options["root"], (phase,), single=True, options=engine_is_told, shell=shell)
    with stop_signals_raise():
        output = Output(options["colour"])
        view = PlainView(output)
        finished = _run_to_end(request, view, keeper)
    result = finished.result
    status = shell_status(result)
    if status is None:
        view.finish(result, "")
        _print_error(result, output)
    else:
        print_lines(output, shell_end(result, status))
    own = _exit_status(result, output)
    return own if status is None else status


def _run_in_view(
    request: Request, options: RunOptions, output: Output, keeper: KeeperProcess | None
) -> FinishedRun:
    form = options["form"]
    view = choose(
        form,
        output,
        quiet=options["quiet"],
        verbose=options["verbose"],
        live=request.pausing is None and can_live(sys.stderr.isatty(), os.environ),
        root=options["root"],
    )
    try:
        finished = _run_to_end(request, view, keeper)
        rerun = _rerun_options(options) + _rerun_arguments(request, finished.result)
        view.finish(finished.result, rerun)
        return finished
    except Exception as error:
        if isinstance(cause := root_cause(error), CleanroomError):
            view.refuse(cause)
            cause.reported = form == "github"
        raise
    finally:
        view.close()


def _run_to_end(request: Request, view: View, keeper: KeeperProcess | None) -> FinishedRun:
    try:
        return anyio.run(_run_in_engine, request, view, keeper)
    finally:
        if keeper is not None:
            keeper.abandon()  # unless the engine adopted it


async def _run_in_engine(request: Request, view: View, keeper: KeeperProcess | None) -> FinishedRun:
    signals = _Signals()
    finished: FinishedRun | None = None
    async with anyio.create_task_group() as helpers:
        signals.scope = helpers.cancel_scope
        helpers.start_soon(signals.watch)
        helpers.start_soon(_tick, view, request)
        async with engine.open(request.root, caller=os.environ, **request.options) as opened:
            signals.engine = opened
            opened.adopt(keeper)
            opened.alone()
            if request.pausing is not None:
                _pause(opened, request.pausing)
            async with anyio.create_task_group() as showing:
                showing.start_soon(_show_events, opened.events(), view, request)
                result = await _requested(opened, request)
                finished = FinishedRun(result, opened.delivered)
        helpers.cancel_scope.cancel()
    if finished is None:
        raise Stopped(signals.status)
    return finished


async def _requested(opened: Engine, request: Request) -> RunResult:
    if request.fetch_only:
        return await opened.fetch()
    if request.shell is not None:
        return await opened.shell(request.phases[0], request.shell)
    if request.single:
        return await opened.run(request.phases[0], *request.arguments)
    return await opened.pipeline(*request.phases)


def _pause(opened: Engine, pausing: Pausing) -> None:
    """Let the phases that fail wait for a decision."""
    interrupt = partial(opened.interrupt, Exit.TERMINATED)
    control = PauseControl(os.environ, pausing.front, interrupt, pausing.limit_seconds)
    if isinstance(pausing.front, DetachedFront):
        pausing.front.watch(interrupt)
    opened.pause_with(control)
    pausing.front.on_end = control.finish


class _Signals:
    """Hands signals to the engine: the first unwinds the run, a second one hurries.

    Before there is an engine they end the command.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.scope: anyio.CancelScope | None = None
        self.status = Exit.INTERRUPTED

    async def watch(self) -> None:
        with anyio.open_signal_receiver(*_handled_signals()) as received:
            async for number in received:
                self.status = _STATUS[number]
                if self.engine is not None:
                    self.engine.interrupt(self.status)
                elif self.scope is not None:
                    self.scope.cancel()


@contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, as Python does for SIGINT,
    for the time in which no engine handles them.

    Raises:
        Stopped: one of them came.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(_STATUS[signal.Signals(number)])

    for number in _handled_signals():
        if number is not signal.SIGINT:
            signal.signal(number, stop)
    yield


def _handled_signals() -> list[signal.Signals]:
    return [number for number in _STATUS if signal.getsignal(number) is not signal.SIG_IGN]


async def _show_events(events: AsyncIterator[Envelope], view: View, request: Request) -> None:
    """Show events; what happens while a shell has the terminal, after it.

    The end of a shell in the place of a phase lists them: nothing is shown after it.
    """
    pausing = request.pausing
    async for envelope in events:
        if pausing is not None and pausing.terminal is not None:
            await pausing.terminal.wait_free()
        if request.shell is None or not request.shell.was_lent:
            view.show(envelope)


async def _tick(view: View, request: Request) -> None:
    pausing = request.pausing
    while True:
        shell = request.shell is not None and request.shell.is_lent
        if not shell and (pausing is None or not pausing.front.waits):
            view.tick(time.monotonic_ns())
        await anyio.sleep(view.interval_seconds)


def _run_options(options: RunOptions) -> EngineOptions:
    """The command line as the engine's options."""
    interactive = sys.stderr.isatty() and not os.environ.get("CI")
    folder = options["report_dir"]
    return {
        **engine_options(options),
        "keep": options["keep"] or ("on-failure" if interactive else "never"),
        "report_directory": os.path.abspath(folder) if folder else None,  # noqa: PTH100
        "fresh": options["fresh"],
        "no_cache": options["no_cache"],
        "dry_run": options["dry_run"],
        "offline": options["offline"],
    }


def _rerun_options(options: RunOptions) -> str:
    """The options that change what runs, for the line that runs it again."""
    root = options["root"]
    given = [
        ("--root", root if root != "." else None),
        ("--backend", options["backend"]),
        ("--policy", options["policy"]),
        ("--env", options["env"]),
        ("--seed", options["seed"]),
        *(("--allow-degraded", rule) for rule in options["allow_degraded"]),
    ]
    words = [word for name, value in given if value is not None for word in (name, str(value))]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _rerun_arguments(request: Request, result: RunResult) -> str:
    """The end of the line that runs the phase again which failed: it was given the arguments."""
    phase = failing(result)
    is_requested = phase is not None and phase.name in request.phases
    return f" -- {shlex.join(request.arguments)}" if request.arguments and is_requested else ""


def _print_error(result: RunResult, output: Output) -> None:
    """Write the error that ended the run to standard error, in the form of all errors."""
    if result.error:
        output.err(
            coded(
                result.error.get("code", "CR-ENGINE-000"),
                result.error.get("message", ""),
                result.error.get("hint", ""),
            )
        )


def _print_delivery(finished: FinishedRun, options: RunOptions, output: Output) -> None:
    """Write to standard error what a collector was sent. It never changes the run's result."""
    result, delivered = finished
    if delivered is None:
        return
    if not delivered.complete:
        output.err(delivery.undelivered(delivered, result.run_id, "", options["root"]))
    elif not options["quiet"]:
        output.err(f"trace {result.trace_id}: sent {delivery.delivered_counts(delivered)}\n")


def _exit_status(result: RunResult, output: Output) -> int:
    """The run's own exit status, or 5 before it where the result was lost."""
    codes = [Exit(result.exit_code)]
    if output.lost is not None:
        output.err(explain(output.lost).text)
        codes.append(Exit.ENGINE)
    return int(combined(codes))
