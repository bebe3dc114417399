"""How the doctor's findings read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.cli.output import Output
from cleanroom.cli.views.text import safe

if TYPE_CHECKING:
    from cleanroom.engine import Diagnosis

_TONES = {"ok": "green", "warn": "yellow", "fail": "red"}


def diagnosis_lines(diagnosis: Diagnosis, output: Output) -> list[str]:
    """One line per check, and below it what helps where it is not ok; the verdict last."""
    width = max(len(check.name) for check in diagnosis.checks)
    lines = []
    for check in diagnosis.checks:
        code = f" [{check.code}]" if check.code else ""
        lines.append(
            f"{output.paint(output.mark(check.status), _TONES[check.status])} "
            f"{check.name.ljust(width)}  {safe(check.detail)}{code}"
        )
        for number, line in enumerate(check.hint.splitlines()):
            lines.append(f"  {' ' * width}  {'      ' if number else 'hint: '}{safe(line)}")
    held = [level for level, holds in diagnosis.levels.items() if holds]
    return [*lines, "", f"policy levels that can be held here: {', '.join(held) or 'none'}"]
