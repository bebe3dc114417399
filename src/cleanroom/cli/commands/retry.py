"""`retry`: the phase at which a run is paused is run again."""

from __future__ import annotations

import click

from cleanroom.cli.options import color_option, debug_option, root_option


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--end", is_flag=True, help="Do not run it again: end the run as failed.")
@color_option
@root_option
@debug_option
def retry(run: str | None, end: bool, root: str, colour: str) -> None:
    """Run the phase again at which a run is paused (`--pause`), and the phases that follow it.

    It runs in a new environment, which has the project as it is now and what earlier phases made;
    services and their data are those of the run. The exit status is the run's, or 77 where it is
    paused again.

    \b
    cleanroom-engine run test --pause
    cleanroom-engine retry
    """
    from cleanroom.cli.resuming import decide, paused_run

    status = decide(paused_run(root, run), "end" if end else "retry")
    click.get_current_context().exit(status)
