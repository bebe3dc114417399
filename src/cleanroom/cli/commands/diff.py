"""`diff`: two recorded runs, side by side."""

from __future__ import annotations

import click

from cleanroom.cli.options import general_options, output_option


@click.command(short_help="Show what differs between two runs.")
@click.argument("run_id", required=False, metavar="[RUN]")
@click.argument("other_id", required=False, metavar="[RUN]")
@output_option("human", "json")
@general_options
def diff(run_id: str | None, other_id: str | None, form: str, colour: str, root: str) -> None:
    """Show what differs between two runs: results, services, plan, violations, dependencies.

    Without RUN the last two runs; with one, that run and the one before it; with two, the earlier
    one first.
    Exits 0 when nothing differs and 1 when something does. Times are shown and do not count, nor
    does how much was written.

    \b
    cleanroom-engine diff
    cleanroom-engine diff --output json
    """
    from cleanroom import engine
    from cleanroom.cli.commands.report import require_run
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.comparison import comparison_lines

    require_run(root)
    found = engine.compare_runs(root, run_id, other_id)
    output = Output(colour)
    if form == "json":
        write_object(output, found)
    else:
        write_lines(output, comparison_lines(found))
    click.get_current_context().exit(0 if found.same else 1)
