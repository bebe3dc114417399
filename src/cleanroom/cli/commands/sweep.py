"""`sweep`: remove what killed runs left behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import general_options, output_option

if TYPE_CHECKING:
    from cleanroom.engine import SweepReport


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
    from cleanroom.cli.output import Output, say, say_object

    report = engine.sweep(root, caller=os.environ)
    output = Output(colour)
    if form == "json":
        say_object(output, report)
    else:
        say(output, described(report))
    click.get_current_context().exit(1 if report.left else 0)


def described(report: SweepReport) -> list[str]:
    """What was found dead, what was removed, what is left and why."""
    from cleanroom.cli.views.text import safe
    from cleanroom.evidence.reports.text import plural

    living = f"; {plural(report.living, 'run')} under way, left alone" if report.living else ""
    if not (report.runs or report.removed or report.left or report.waiting):
        return ["nothing was left behind" + living]
    lines = [
        f"{plural(len(report.runs), 'dead run')}: {safe(', '.join(report.runs)) or 'none'}{living}"
    ]
    lines += [
        safe(f"removed {left.kind} {left.name} {left.detail}").rstrip() for left in report.removed
    ]
    lines += [
        safe(f"left for now {left.kind} {left.name}: {left.detail}") for left in report.waiting
    ]
    return lines + [
        safe(f"could not remove {left.kind} {left.name} {left.detail}").rstrip()
        for left in report.left
    ]
