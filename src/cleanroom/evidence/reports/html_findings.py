"""What was blocked and what failed, as the page's first sections; tolerated attempts and notices,
which fail nothing, as sections of their own further down.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from cleanroom.evidence.reports.html_elements import (
    bullet_list,
    code_element,
    section,
    table,
    table_row,
)
from cleanroom.evidence.reports.markup import Markup, element
from cleanroom.evidence.reports.result import PhaseResult, RunResult, ViolationResult
from cleanroom.evidence.reports.text import (
    broken_rules,
    describe_process,
    gone_wrong,
    judged,
    notice_line,
    phase_name,
    place_of,
    plural,
    seconds,
    with_code,
)

# What follows has to be found without scrolling for long; the rest is folded, and there.
_ROWS_MAX = 20
_PHASES_MAX = 5
_NOTHING = "No attempt against the policy was seen."


def what_went_wrong(result: RunResult) -> Iterator[Markup | None]:
    """What was blocked, then what failed; nothing where nothing was and did."""
    rows = [row for row in result.violations if row.severity == "violation"]
    if rows:
        yield section(f"Blocked: {_counted(rows, 'violation')}", _folded(rows))
    wrong = gone_wrong(result)
    yield from (_failure(result, phase) for phase in wrong[:_PHASES_MAX])
    if further := wrong[_PHASES_MAX:]:
        yield section("Failed too", bullet_list([_in_short(phase) for phase in further]))
    services = [
        with_code(f"{service.name}: {service.reason}", service.code)
        for service in result.services
        if service.reason
    ]
    if services:
        yield section("Services that failed", bullet_list(services))


def tolerated(result: RunResult) -> Markup | None:
    """Attempts that the project expects; where there were no violations either, that it is so."""
    rows = [row for row in result.violations if row.severity != "violation"]
    if rows:
        words = element("p", "The project says that it expects these; they fail nothing.")
        return section(f"Tolerated: {_counted(rows, 'attempt')}", words, _folded(rows))
    return None if result.violations else section("Blocked: nothing", element("p", _NOTHING))


def notices(result: RunResult) -> Markup | None:
    """What they are, and each."""
    if not result.notices:
        return None
    line = notice_line(result)
    words = element("p", f"{line[:1].upper()}{line[1:]}.")
    return section(f"Notices: {_counted(result.notices, 'notice')}", words, _folded(result.notices))


def _counted(rows: Sequence[ViolationResult], noun: str) -> str:
    attempts = sum(row.count for row in rows)
    again = f" ({attempts} attempts)" if attempts > len(rows) else ""
    return f"{plural(len(rows), noun)}{again}"


def _folded(rows: Sequence[ViolationResult]) -> Markup:
    """A table of the first rows, and one of the others that opens when it is asked for."""
    first, rest = rows[:_ROWS_MAX], rows[_ROWS_MAX:]
    if not rest:
        return _violations(first)
    summary = element("summary", f"and {plural(len(rest), 'more row')}")
    return element("div", _violations(first), element("details", summary, _violations(rest)))


def _violations(rows: Sequence[ViolationResult]) -> Markup:
    return table(
        ("rule", "what became of it", "process", "target", "times", "where", "how it is known"),
        (
            table_row(
                with_code(row.rule, row.code),
                f"{row.action}{judged(row)}",
                describe_process(row.process, row.attribution_gap),
                f"{row.target} {row.syscall} {row.errno}".strip(),
                str(row.count),
                place_of(row),
                f"{row.mechanism}, {row.certainty}".replace("_", " "),
            )
            for row in rows
        ),
        "None.",
    )


def explained_by(code: str) -> Sequence[str | Markup]:
    """The words that say where a code is explained, to be added to a sentence."""
    if not code:
        return ()
    return " Explained by ", code_element(f"cleanroom-engine explain {code}"), "."


def _failure(result: RunResult, phase: PhaseResult) -> Markup:
    hint_is_new = bool(phase.hint) and phase.hint not in phase.reason
    return section(
        f"Failed: {phase_name(phase)}",
        element("p", _how_it_ended(phase), *explained_by(phase.code)),
        element("p", f"Hint: {phase.hint}") if hint_is_new else None,
        _attempts_of(result, phase),
        element(
            "pre",
            "\n".join(phase.excerpt),
            tabindex="0",
            role="region",
            aria_label="the end of its output",
        )
        if phase.excerpt
        else None,
        element("p", "All of its output: ", code_element(phase.log)) if phase.log else None,
        element("p", "Run it again: ", code_element(repeat_command(result, phase))),
    )


def _attempts_of(result: RunResult, phase: PhaseResult) -> Markup | None:
    """How many rows of the table above are this phase's, where others have some too."""
    broken = len(broken_rules(result, phase))
    if not broken or len(gone_wrong(result)) == 1:
        return None
    return element("p", f"Of what was blocked, {plural(broken, 'row')} above: {phase_name(phase)}.")


def _in_short(phase: PhaseResult) -> str:
    return f"{phase_name(phase)}: {with_code(_how_it_ended(phase), phase.code)}"


def _how_it_ended(phase: PhaseResult) -> str:
    """One sentence with its exit status, and its reason where that says more."""
    after = f"after {seconds(phase.duration_seconds)}"
    status = f"exit status {phase.exit_code}" if phase.exit_code is not None else "no exit status"
    # what led to an exit status stands before it
    if phase.reason.endswith(status):
        return f"{phase.result}, {phase.reason}, {after}."
    reason = f" {phase.reason}" if phase.reason != phase.result else ""
    return f"{phase.result}, {status}, {after}.{reason}"


def repeat_command(result: RunResult, phase: PhaseResult | None) -> str:
    """The command that runs the phase again, or the whole run.

    A phase of a workspace cannot be run alone: only a pipeline has workspaces.
    """
    command = (
        ["run", phase.name] if phase and not phase.workspace else ["pipeline", *result.requested]
    )
    return shlex.join(["cleanroom-engine", *command])
