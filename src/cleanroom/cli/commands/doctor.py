"""`doctor`: what this machine can hold, and what helps where it cannot."""

from __future__ import annotations

import os

import click

from cleanroom.cli.options import color_option, debug_option, output_option


@click.command()
@output_option("human", "json")
@color_option
@debug_option
def doctor(form: str, colour: str) -> None:
    """Tell what this machine can hold, what is installed, and what to do about the rest.

    Exits 0 when policy Medium can be held, else 3.

    \b
    cleanroom-engine doctor
    cleanroom-engine doctor --output json
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.diagnosis import diagnosis_lines
    from cleanroom.model.errors import Exit

    diagnosis = engine.diagnose(caller=os.environ)
    output = Output(colour)
    if form == "json":
        write_object(output, diagnosis)
    else:
        write_lines(output, diagnosis_lines(diagnosis, output))
    click.get_current_context().exit(Exit.OK if diagnosis.medium else Exit.REFUSED)
