"""`pipeline` and `run`: a run of the engine, shown while it goes on."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import pause_options, phase_names, run_options, watch_option

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import RunOptions
    from cleanroom.cli.pausing import Pausing


@click.command()
@click.argument("phases", nargs=-1, required=True, metavar="PHASE...", shell_complete=phase_names)
@pause_options
@watch_option
@run_options
def pipeline(phases: tuple[str, ...], **options: Unpack[RunOptions]) -> None:
    """Run phases in order with their hooks and services, each in its own hermetic environment.

    \b
    cleanroom-engine pipeline init test validate
    cleanroom-engine pipeline test --output json > result.json
    cleanroom-engine pipeline test --env prod --policy High
    """
    _run_phases(phases, options, single=False)


class _TakesArguments(click.Command):
    """A command whose words after `--` are for a phase's command.

    click would take them without `--` too, and `run build test` is a mistake.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.obj = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGUMENT...]"]


@click.command(cls=_TakesArguments)
@click.argument("phase", metavar="PHASE", shell_complete=phase_names)
@pause_options
@watch_option
@run_options
@click.pass_obj
def run(arguments: tuple[str, ...], phase: str, **options: Unpack[RunOptions]) -> None:
    """Run one phase with its hooks and services; workspaces are ignored.

    Words after `--` are arguments of the phase's command: they follow the last one, or are what
    "$@" in a command stands for. Hooks and prerequisites get none.

    \b
    cleanroom-engine run test
    cleanroom-engine run test -v --keep always
    cleanroom-engine run test -- -k 'checkout and not slow' tests/api
    """
    _run_phases((phase,), options, single=True, arguments=arguments)


def _run_phases(
    phases: tuple[str, ...],
    options: RunOptions,
    *,
    single: bool,
    arguments: tuple[str, ...] = (),
) -> None:
    """Run the phases, show the run, and exit with its status."""
    if options.get("watch"):
        from cleanroom.cli.watching import refuse_combinations, watch

        refuse_combinations(options)
        ended = watch(options)
        if ended is not None:
            click.get_current_context().exit(ended)
    # Nothing that an import makes is garbage, and looking for it costs 10 ms.
    # The engine enables it again, before the first phase.
    gc.disable()
    with ExitStack() as stack:
        pausing: Pausing | int | None = None
        if options.get("pause"):
            from cleanroom.cli.pausing import begin

            pausing = begin(options, stack)
        if isinstance(pausing, int):
            # The run is another process, and has ended or is paused.
            status = pausing
        else:
            status = _run_here(phases, options, single, arguments, pausing)
    click.get_current_context().exit(status)


def _run_here(
    phases: tuple[str, ...],
    options: RunOptions,
    single: bool,
    arguments: tuple[str, ...],
    pausing: Pausing | None,
) -> int:
    from cleanroom.engine import prestart

    # The keeper starts on another processor while this process imports what a run needs.
    with pausing.front.hidden_streams() if pausing is not None else nullcontext():
        keeper = prestart.keeper(options["backend"], os.environ)
    from cleanroom.cli.session import run_and_show

    return run_and_show(
        phases, options, single=single, keeper=keeper, arguments=arguments, pausing=pausing
    )
