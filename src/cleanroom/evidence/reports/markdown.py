"""A run as a page of Markdown: GitHub's step summary, and whatever else shows Markdown. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import (
    counted,
    describe_violation,
    failing,
    phase_name,
    plain,
    seconds,
    summary_line,
)

ROWS_MAX = 200  # of one table: more than that nobody reads on such a page
# with ':' and '@', so that no text becomes a link, an emoji or a mention
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+|~!&:@-])")


def markdown_report(result: RunResult, *, bytes_max: int) -> str:
    """The whole page in at most `bytes_max` bytes: the verdict first,
    so that what is cut is what matters least.
    """
    page = "\n".join(_lines(result)) + "\n"
    data = page.encode()
    if len(data) <= bytes_max:
        return page
    note = "\n\n(cut: the reports have the rest)\n"
    whole = data[: bytes_max - len(note.encode())].decode(errors="ignore")
    return whole[: whole.rfind("\n") + 1] + note.lstrip("\n")


def _lines(result: RunResult) -> Iterator[str]:
    yield f"## {text(result.project or 'run')}: {result.outcome.upper()} (exit {result.exit_code})"
    if result.degraded:
        yield from ("", f"**DEGRADED: {text(', '.join(result.degraded))}**")
    if result.reason:
        first = failing(result)
        code = result.error.get("code") or (first.code if first else "")
        yield from ("", text(f"{code}: {result.reason}".removeprefix(": ")))
    passed = sum(canary.result == "passed" for canary in result.canaries)
    yield from ("", text(summary_line(result)), "")
    facts = [
        f"canaries {passed}/{len(result.canaries)}",
        *counted(result),
        f"policy {text(result.policy)}",
    ]
    yield " · ".join([*facts, f"backend {text(result.backend)} {text(result.tier)}"])
    yield from _violations(result)
    yield from _excerpt(result)
    rows = [
        (phase_name(p), p.result, seconds(p.duration_seconds), "yes" if p.hermetic else "**no**")
        for p in result.phases
    ]
    yield from _table(
        ("phase", "result", "time", "hermetic"),
        [(text(name), word, time, held) for name, word, time, held in rows],
    )
    ready = [
        (
            text(s.name),
            text(s.version),
            seconds(s.ready_seconds) if s.ready_seconds is not None else "not ready",
            str(s.restarts),
        )
        for s in result.services
    ]
    yield from _table(("service", "version", "ready in", "restarts"), ready)


def _violations(result: RunResult) -> Iterator[str]:
    if result.violations:
        yield ""
        yield from (
            f"- {text(describe_violation(found))}" for found in result.violations[:ROWS_MAX]
        )


def _excerpt(result: RunResult) -> Iterator[str]:
    """The end of the failing phase's output, in a fence that nothing inside can close."""
    phase = failing(result)
    if phase is None or not phase.excerpt:
        return
    shown = [plain(line) for line in phase.excerpt]
    fence = "`" * max(
        3, 1 + max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    )
    yield from ("", f"The end of {text(phase_name(phase))}:", "", f"{fence}text", *shown, fence)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield from ("", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}")
    yield from (f"| {' | '.join(row)} |" for row in rows[:ROWS_MAX])


def text(value: str) -> str:
    """`value` on one line, as nothing but text."""
    return _SPECIAL.sub(r"\\\1", " ".join(plain(value).splitlines()))
