"""`doctor`: what this machine can hold, and what helps where it cannot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import color_option, debug_option, output_option

if TYPE_CHECKING:
    from cleanroom.cli.output import Output
    from cleanroom.engine import Diagnosis


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
    from cleanroom.cli.output import Output, say, say_object
    from cleanroom.model.errors import Exit

    diagnosis = engine.diagnose(caller=os.environ)
    output = Output(colour)
    if form == "json":
        say_object(output, diagnosis)
    else:
        say(output, described(diagnosis, output))
    click.get_current_context().exit(Exit.OK if diagnosis.medium else Exit.REFUSED)


def described(diagnosis: Diagnosis, output: Output) -> list[str]:
    """One line per check, and below it what helps where it is not ok; the verdict last."""
    from cleanroom.cli.views.text import safe

    tones = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max(len(check.name) for check in diagnosis.checks)
    lines = []
    for check in diagnosis.checks:
        code = f" [{check.code}]" if check.code else ""
        lines.append(
            f"{output.paint(output.mark(check.status), tones[check.status])} "
            f"{check.name.ljust(width)}  {safe(check.detail)}{code}"
        )
        for number, line in enumerate(check.hint.splitlines()):
            lines.append(f"  {' ' * width}  {'      ' if number else 'hint: '}{safe(line)}")
    held = [level for level, holds in diagnosis.levels.items() if holds]
    return [*lines, "", f"policy levels that can be held here: {', '.join(held) or 'none'}"]
