"""How two runs read side by side. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cleanroom.cli.views.text import clip, safe, table
from cleanroom.evidence.reports.text import seconds

if TYPE_CHECKING:
    from cleanroom.evidence.reports.comparison import Comparison, Difference, Side, Times

_TEXT_MAX = 160  # columns of a value; --output json has all of it
_ROWS_MAX = 200  # of one part
_TITLES = {
    "run": "run",
    "phase": "phases",
    "violation": "attempts against the policy",
    "canary": "canaries",
    "service": "services",
    "held": "what was held",
    "plan": "plan",
    "variable": "variables",
    "dependency": "dependencies",
    "written": "written to the project",
    "left": "left behind",
}


def comparison_lines(found: Comparison) -> list[str]:
    """Both runs, what differs by part (`-` the earlier one, `+` the later one), and the times."""
    return [
        f"- {_side(found.before)}",
        f"+ {_side(found.after)}",
        *(f"note: {safe(note)}" for note in found.notes),
        *_parts(found.differences),
        *([] if found.differences else ["nothing differs but the times"]),
        "times, of one run each:",
        *table([("  ", *_times(one)) for one in found.times]),
    ]


def _side(side: Side) -> str:
    took = seconds(side.duration_seconds)
    return safe(f"run {side.run_id}: {side.outcome} (exit {side.exit_code}), {took}")


def _parts(differences: Sequence[Difference]) -> Iterator[str]:
    for part, title in _TITLES.items():
        rows = [one for one in differences if one.part == part]
        if not rows:
            continue
        yield f"{title}:"
        for one in rows[:_ROWS_MAX]:
            yield from _difference(one)
        if (hidden := len(rows) - _ROWS_MAX) > 0:
            yield f"  and {hidden} more, see --output json"


def _difference(one: Difference) -> Iterator[str]:
    name = clip(safe(one.name), _TEXT_MAX)
    if one.before is not None:
        yield f"  - {name}: {clip(safe(one.before), _TEXT_MAX)}"
    if one.after is not None:
        yield f"  + {name}: {clip(safe(one.after), _TEXT_MAX)}"


def _times(one: Times) -> tuple[str, ...]:
    ratio = "" if one.ratio is None else f"x{one.ratio:.2f}"
    return (
        clip(safe(one.name), _TEXT_MAX),
        seconds(one.before_seconds),
        seconds(one.after_seconds),
        ratio,
        "(noise)" if one.noise else "",
    )
