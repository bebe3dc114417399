"""A run in a few lines, for whoever called it from Python: its end, and what went wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import (
    counted,
    describe_violation,
    failing,
    notice_line,
    phase_name,
    place_of,
    plain,
    summary_line,
)

ROWS_MAX = 20  # of violations: more than that nobody reads here; the report has all


def short(result: RunResult) -> str:
    """One line: the outcome, and why where it did not pass."""
    phases = ", ".join(phase_name(phase) for phase in result.phases) or "no phase"
    named = f"{result.project or 'run'} {result.run_id}".strip()
    why = f": {result.reason}" if result.reason else ""
    return plain(f"{result.outcome} (exit {result.exit_code}), {named}, {phases}{why}")


def explanation(result: RunResult) -> str:
    """The lines of `RunResult.explain`, without a line's end."""
    return "\n".join(plain(line) for line in _lines(result))


def _lines(result: RunResult) -> Iterator[str]:
    name = result.project or "run"
    yield f"{name}: {result.outcome.upper()} (exit {result.exit_code}) · run {result.run_id}"
    yield from _error(result)
    yield summary_line(result)
    proven = sum(canary.result == "passed" for canary in result.canaries)
    yield " · ".join([f"canaries {proven}/{len(result.canaries)}", *counted(result)])
    for row in result.violations[:ROWS_MAX]:
        yield f"  {describe_violation(row)}, {place_of(row)}"
    if (hidden := len(result.violations) - ROWS_MAX) > 0:
        yield f"  and {hidden} more in the report"
    if notices := notice_line(result):
        yield f"  {notices}"
    yield from (f"service {one.name}: {one.reason}" for one in result.services if one.reason)
    yield from (f"note: {note}" for note in result.notes)
    yield from (f"left behind: {left}" for left in result.ledger.left)
    yield from _failure(result)
    yield from (f"{kind}: {path}" for kind, path in result.reports.items())


def _error(result: RunResult) -> Iterator[str]:
    if result.reason:
        yield f"why: {result.reason}"
    if code := result.error.get("code"):
        if hint := result.error.get("hint"):
            yield f"hint: {hint}"
        yield f"explain: cleanroom-engine explain {code}"


def _failure(result: RunResult) -> Iterator[str]:
    """The end of what the failing phase said."""
    phase = failing(result)
    if phase is None:
        return
    name = phase_name(phase)
    yield from (f"{name} | {line}" for line in phase.excerpt)
    if phase.log:
        yield f"full log: {phase.log}"
