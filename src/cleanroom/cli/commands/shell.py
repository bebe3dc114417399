"""`shell`: an interactive shell in the environment of a phase."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import chain, general_options, phase_names, plan_options

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import ShellOptions

shell_options = chain(
    plan_options,
    click.option(
        "--offline", is_flag=True, help="Fetch no dependencies: use those that the store has."
    ),
    click.option(
        "--keep",
        type=click.Choice(["never", "always"]),
        default="never",
        show_default=True,
        help="Keep what the shell changed, in the run's folder.",
    ),
    general_options,
)


@click.command()
@click.argument("phase", metavar="[PHASE|RUN]", required=False, shell_complete=phase_names)
@shell_options
def shell(phase: str | None, **options: Unpack[ShellOptions]) -> None:
    """Open a shell in the environment that a phase would get: its level, services, variables and
    packages, with the proof of its isolation. Without a phase, or with a run: in the environment
    of the phase at which that run is paused (`--pause`).

    The phase's hooks and prerequisites run before it; its own commands do not. Nothing comes back
    to the project, and no phase counts as passed. The exit status is the shell's.

    \b
    cleanroom-engine shell test
    cleanroom-engine shell test --policy High
    """
    gc.disable()
    from cleanroom.cli import terminal
    from cleanroom.engine import prestart

    if not terminal.is_terminal():
        from cleanroom.model.errors import UsageError

        raise UsageError(
            "CR-SHELL-001",
            "expected a terminal at standard input, output and error, found none",
            hint="`cleanroom-engine run PHASE` runs a phase's commands",
        )
    if phase is None or _is_run(phase):
        click.get_current_context().exit(_in_paused(options["root"], phase))
    with terminal.guarded():
        keeper = prestart.keeper(options["backend"], os.environ)
        from cleanroom.cli.session import shell_and_show

        status = shell_and_show(phase, options, keeper=keeper)
    click.get_current_context().exit(status)


def _is_run(name: str) -> bool:
    """Whether it is the name of a run, which no phase is called like."""
    import re

    return re.fullmatch(r"[0-9]{8}-[0-9]{6}-[a-z0-9]+", name) is not None


def _in_paused(root: str, run_id: str | None) -> int:
    """A shell in the environment of a paused run; its exit status."""
    import anyio

    from cleanroom.cli import terminal
    from cleanroom.cli.resuming import paused_run, shell_in

    run = paused_run(root, run_id)
    with terminal.guarded():
        return anyio.run(shell_in, run)
