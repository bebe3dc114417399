"""`sweep`: remove what killed runs left behind."""

from __future__ import annotations

import os

import click

from cleanroom.cli.options import general_options, output_option


@click.command()
@output_option("human", "json")
@general_options
def sweep(form: str, colour: str, root: str) -> None:
    """Remove what runs that were killed left behind; never touches a run that lives.

    What nobody can tell yet is left for now, and said. Exits 1 when something could not be removed.

    \b
    cleanroom-engine sweep
    cleanroom-engine sweep --output json
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.sweep import sweep_lines

    report = engine.sweep(root, caller=os.environ)
    output = Output(colour)
    if form == "json":
        write_object(output, report)
    else:
        write_lines(output, sweep_lines(report))
    click.get_current_context().exit(1 if report.left else 0)
