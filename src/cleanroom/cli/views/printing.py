"""Lines that views made, on their way to the standard streams."""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.cli.output import Output
from cleanroom.cli.views.summary import headline, summary
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.result import RunResult


def print_end(output: Output, quiet: int, result: RunResult, rerun: str) -> None:
    """The summary; with -q the verdict alone; with -qq nothing."""
    if quiet == 0:
        print_lines(output, summary(result, rerun))
    elif quiet == 1:
        degraded = f" · DEGRADED: {', '.join(result.degraded)}" if result.degraded else ""
        print_lines(output, [Line(headline(result) + degraded, out=True)])


def print_lines(output: Output, lines: Iterable[Line]) -> None:
    """Each line to its stream. Lines of one stream that follow each other go out in one write."""
    pending, to_out = "", False
    for line in lines:
        if pending and line.out != to_out:
            _write(output, pending, to_out)
            pending = ""
        to_out = line.out
        pending += (
            output.paint(line.text, line.tone, err=not line.out) if line.tone else line.text
        ) + "\n"
    if pending:
        _write(output, pending, to_out)


def _write(output: Output, text: str, to_out: bool) -> None:
    (output.out if to_out else output.err)(text)
