"""`pipeline` and `run`: a run of the engine, shown while it goes on."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import phase_names, run_options

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import RunOptions


@click.command()
@click.argument("phases", nargs=-1, required=True, metavar="PHASE...", shell_complete=phase_names)
@run_options
def pipeline(phases: tuple[str, ...], **options: Unpack[RunOptions]) -> None:
    """Run phases in order with their hooks and services, each in its own hermetic environment.

    \b
    cleanroom-engine pipeline init test validate
    cleanroom-engine pipeline test --output json > result.json
    cleanroom-engine pipeline test --env prod --policy High
    """
    _run_phases(phases, options, single=False)


@click.command()
@click.argument("phase", metavar="PHASE", shell_complete=phase_names)
@run_options
def run(phase: str, **options: Unpack[RunOptions]) -> None:
    """Run one phase with its hooks and services; workspaces are ignored.

    \b
    cleanroom-engine run test
    cleanroom-engine run test -v --keep always
    """
    _run_phases((phase,), options, single=True)


def _run_phases(phases: tuple[str, ...], options: RunOptions, *, single: bool) -> None:
    """Run the phases, show the run, and exit with its status."""
    # Nothing that an import makes is garbage, and looking for it costs 10 ms.
    # The engine enables it again, before the first phase.
    gc.disable()
    from cleanroom.engine import prestart

    # The keeper starts on another processor while this process imports what a run needs.
    keeper = prestart.keeper(options["backend"], os.environ)
    from cleanroom.cli.session import run_and_show

    status = run_and_show(phases, options, single=single, keeper=keeper)
    click.get_current_context().exit(status)
