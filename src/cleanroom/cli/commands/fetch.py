"""`fetch`: the project's dependencies, without a phase."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import run_options

if TYPE_CHECKING:
    from typing import Unpack

    from cleanroom.cli.options import RunOptions


@click.command()
@run_options
def fetch(**options: Unpack[RunOptions]) -> None:
    """Fetch the dependencies that lock files name into the store, so that later runs need no
    network.

    A run does this by itself before its phases, for what the store lacks.

    \b
    cleanroom-engine fetch
    cleanroom-engine fetch --offline   # is all of it there?
    """
    # As `pipeline` does, for the same reasons.
    gc.disable()
    from cleanroom.engine import prestart

    keeper = prestart.keeper(options["backend"], os.environ)
    from cleanroom.cli.session import run_and_show

    status = run_and_show((), options, single=False, keeper=keeper, fetch_only=True)
    click.get_current_context().exit(status)
