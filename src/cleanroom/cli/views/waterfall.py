"""A trace as lines of a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cleanroom.cli.output import Output
from cleanroom.cli.views.text import clip, safe, table
from cleanroom.evidence.reports.text import plural

if TYPE_CHECKING:
    from cleanroom.evidence.tracing.reading import Difference, Node, Step
    from cleanroom.evidence.tracing.span import SpanData, SpanEvent

NAME_SHARE = 0.42  # of the line, for names; bars get the rest
SHOWN_MAX = 400  # rows; a trace of thousands of spans is for a viewer
STEPS_MAX = 15
UNCHANGED = "same"


def columns(output: Output) -> int:
    """The columns of a line: the terminal's, or 100 in a file."""
    import shutil
    import sys

    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100


def headline(run: str, spans: Sequence[SpanData]) -> str:
    """The run, and the trace's id that a viewer knows it by."""
    return f"run {run} · trace {spans[0].trace_id if spans else '-'} · {plural(len(spans), 'span')}"


def waterfall(nodes: Sequence[Node], output: Output, width: int) -> list[str]:
    """One line per span: name, indented below its parent, its time as a bar on the run's scale,
    its duration.
    """
    from cleanroom.evidence.tracing.reading import walk

    rows = list(walk(nodes))
    if not rows:
        return ["no spans are recorded"]
    # The roots' time is the scale: code under test may have another clock, or none.
    roots = [node.span for node in nodes]
    begin, end = min(span.start_ns for span in roots), max(span.end_ns for span in roots)
    name_width = max(
        12,
        min(
            int(width * NAME_SHARE),
            max(2 * row.depth + len(safe(row.span.name)) for row in rows) + 2,
        ),
    )
    bar_width = max(10, width - name_width - 12)
    lines = [
        _row(row, begin, max(end - begin, 1), name_width, bar_width, output)
        for row in rows[:SHOWN_MAX]
    ]
    return lines + (
        [f"and {len(rows) - SHOWN_MAX} spans more: --output json has all, `trace --open` a viewer"]
        if len(rows) > SHOWN_MAX
        else []
    )


def _row(row: Node, begin: int, whole: int, name_width: int, bar_width: int, output: Output) -> str:
    span = row.span
    failed = span.status == 2
    name = clip("  " * row.depth + safe(span.name), name_width - 1).ljust(name_width)
    first = max(0, min((span.start_ns - begin) * bar_width // whole, bar_width - 1))
    last = max(first + 1, min(-(-(span.end_ns - begin) * bar_width // whole), bar_width))
    bar = (" " * first + ("━" if output.unicode else "=") * (last - first)).ljust(bar_width)
    violations = sum(map(_attempts, span.events))
    tail = (
        f"{duration(span.duration_ns / 1e9):>9}"
        + (f" {output.mark('fail')}" if failed else "")
        + (f" {plural(violations, 'attempt')}" if violations else "")
    )
    return output.paint(name + bar + tail, "red") if failed else name + bar + tail


def _attempts(event: SpanEvent) -> int:
    """How many violations of the policy a span's event stands for: 0 for other events,
    and for attempts that are tolerated or only noticed.
    """
    attributes = event.attributes
    if event.name != "violation" or attributes.get("cleanroom.violation.severity") != "violation":
        return 0
    count = attributes.get("cleanroom.violation.count", 1)
    return count if isinstance(count, int) else 1


def steps(found: Sequence[Step]) -> list[str]:
    """The critical path, longest step first."""
    rows = [
        (f"{duration(step.seconds):>9}", f"{step.share:6.1%}", safe(step.path))
        for step in found[:STEPS_MAX]
    ]
    rest = sum(step.seconds for step in found[STEPS_MAX:])
    tail = [f"{duration(rest):>9}          {len(found) - STEPS_MAX} shorter steps"] if rest else []
    return [
        "What the run waited for: without a step it would be shorter by at most",
        *table(rows),
        *tail,
    ]


def differences(found: Sequence[Difference]) -> list[str]:
    """Spans that changed against earlier runs, the largest change first.

    Those that stayed within the earlier runs' spread are only counted.
    """
    changed = [row for row in found if row.verdict != UNCHANGED]
    rows = [("now", "median", "spread", "runs", "", "span")]
    rows += [
        (
            _or_dash(row.seconds),
            _or_dash(row.median_seconds),
            _spread(row),
            str(row.runs),
            row.verdict,
            safe(row.path),
        )
        for row in changed[:STEPS_MAX]
    ]
    same = len(found) - len(changed)
    return [
        *(table(rows) if changed else []),
        f"{same} spans as before"
        if changed
        else f"nothing changed: {same} spans within the spread of the runs before",
    ]


def unlike_note(name: str, differing: Sequence[str]) -> str:
    """A run that was named for comparison is of another kind."""
    return safe(
        f"run {name} is another kind of run ({'; '.join(differing)}): nothing is called "
        "slower or faster"
    )


def left_out_note(count: int, differing: Sequence[str]) -> str:
    """Runs were not compared with; `differing` is true of one of them."""
    return safe(
        f"left out {plural(count, 'run')} of another kind, such as one with {'; '.join(differing)}"
    )


def _or_dash(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _spread(row: Difference) -> str:
    if row.lowest_seconds is None or row.highest_seconds is None:
        return "-"
    return f"{duration(row.lowest_seconds)} to {duration(row.highest_seconds)}"


def duration(seconds: float) -> str:
    """`1.24 s`, `83 ms`, `0.4 ms`."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
