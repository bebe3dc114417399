"""Lines that views made, on their way to the standard streams."""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.cli.output import Output
from cleanroom.cli.views.summary import summary, verdict
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.result import RunResult


def print_end(
    output: Output, result: RunResult, rerun: str, *, quiet: int = 0, verbose: int = 0
) -> None:
    """The summary; with -q the verdict, and why a run did not pass; with -qq nothing."""
    if quiet == 0:
        print_lines(output, summary(result, rerun, verbose))
    elif quiet == 1:
        print_lines(output, verdict(result))


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
