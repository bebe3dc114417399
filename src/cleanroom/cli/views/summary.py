"""The end of a run for people: what became of it in few lines, and the failure last. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cleanroom.cli.views import words
from cleanroom.cli.views.text import safe
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.result import PhaseResult, RunResult
from cleanroom.evidence.reports.text import (
    counted,
    failing,
    gone_wrong,
    notice_line,
    phase_name,
    plural,
    seconds,
    summary_line,
    with_code,
)
from cleanroom.model.errors import Exit

SHELL_CODE = "CR-SHELL-003"  # of a phase in whose place a shell ran
_VIOLATIONS_MAX = 20  # more than that nobody reads here; the report has all
_PHASES_MAX = 5  # that went wrong, in a quiet run


def summary(result: RunResult, rerun: str, verbose: int = 0) -> list[Line]:
    """The whole end of a human run. `rerun`: the options to repeat on the line that re-runs it.

    `verbose`: how much of the run was shown while it went on.
    """
    return [
        Line(headline(result), out=True, tone="green" if result.outcome == "passed" else "red"),
        *(
            [Line(f"why: {safe(result.reason)}", out=True, tone="red")]
            if _unexplained(result)
            else []
        ),
        *(Line(line, out=True) for line in facts(result, verbose)),
        *failure(result, rerun),
        *(
            [Line(f"DEGRADED: {safe(', '.join(result.degraded))}", out=True, tone="red")]
            if result.degraded
            else []
        ),
    ]


def shell_status(result: RunResult) -> int | None:
    """The exit status of the shell that ran in the place of a phase; None where that is no
    shell's, since something else ended the run.
    """
    last = result.phases[-1] if result.phases else None
    if result.exit_code != Exit.UNVERIFIED or last is None or last.code != SHELL_CODE:
        return None
    return last.exit_code


def shell_end(result: RunResult, status: int) -> list[Line]:
    """The end of a run whose last phase was a shell."""
    name = safe(result.phases[-1].name)
    lines = [
        f"shell in phase {name} ended with exit status {status} · run {safe(result.run_id)}",
        _proofs(result, 1),
        *_violations(result),
        *_would_change(result, "shell"),
        _ledger(result),
    ]
    return [Line(line, out=False) for line in lines]


def verdict(result: RunResult) -> list[Line]:
    """The end of a quiet run: what became of it, and of one that did not pass why, and where the
    report is.
    """
    degraded = f" · DEGRADED: {safe(', '.join(result.degraded))}" if result.degraded else ""
    lines = [headline(result) + degraded]
    if result.outcome != "passed":
        wrong = gone_wrong(result)
        lines += map(words.end_of_phase, wrong[:_PHASES_MAX])
        if hidden := wrong[_PHASES_MAX:]:
            lines.append(f"and {plural(len(hidden), 'more phase')}, see the report")
        if _unexplained(result):
            lines.append(f"why: {safe(with_code(result.reason, result.error.get('code', '')))}")
        kind = "html" if "html" in result.reports else next(iter(result.reports), "")
        lines += [f"report: {safe(result.reports[kind])}"] if kind else []
    return [Line(line, out=True) for line in lines]


def _unexplained(result: RunResult) -> bool:
    """Is there a reason that no phase's end at the bottom says?"""
    return bool(result.reason) and failing(result) is None


def headline(result: RunResult) -> str:
    name = safe(result.project) or "run"
    return f"{name}: {result.outcome.upper()} (exit {result.exit_code}) · run {safe(result.run_id)}"


def last_line(result: RunResult) -> str:
    """The exit status and its cause, for callers that see the last line only."""
    phase = failing(result)
    if phase is not None:
        cause = words.end_of_phase(phase)
    else:
        cause = safe(result.error.get("message", result.outcome))
    return f"exit {result.exit_code}: {cause}"


def facts(result: RunResult, verbose: int = 0) -> list[str]:
    """Times, proofs, violations, what came back, the account, where the evidence is."""
    lines = [safe(summary_line(result)), _proofs(result, verbose)]
    lines += _violations(result)
    lines += [*_would_change(result), *_brought_back(result.brought_back), _ledger(result)]
    if not result.slo_met:
        lines.append(
            f"SLO missed: {seconds(result.duration_seconds)} of {seconds(result.slo_seconds)}"
        )
    lines += [f"{kind}: {safe(path)}" for kind, path in result.reports.items()]
    return [line for line in lines if line]


def _violations(result: RunResult) -> list[str]:
    lines = [f"  {words.violation(found)}" for found in result.violations[:_VIOLATIONS_MAX]]
    hidden = len(result.violations) - _VIOLATIONS_MAX
    lines += [f"  and {hidden} more in the report"] if hidden > 0 else []
    if notices := notice_line(result):
        lines.append(f"  {safe(notices)}")
    return lines


def _proofs(result: RunResult, verbose: int) -> str:
    passed = sum(canary.result == "passed" for canary in result.canaries)
    canaries = (
        f"canaries {passed}/{len(result.canaries)}"
        if result.canaries
        else f"no canaries: {_unproven(result)}"
    )
    open_phases = [
        phase for phase in result.phases if not phase.hermetic and phase.result != "skipped"
    ]
    for host in (True, False):
        named = ", ".join(phase.name for phase in open_phases if phase.host is host)
        canaries += f" · {words.NOT_HERMETIC[host]}: {safe(named)}" if named else ""
    parts = [canaries, *counted(result)]
    if result.notices and not verbose:
        parts[-1] += f", -v shows {'it' if len(result.notices) == 1 else 'them'}"
    return " · ".join(parts)


def _unproven(result: RunResult) -> str:
    runs = ", ".join(dict.fromkeys(phase.cached_run for phase in result.phases if phase.cached_run))
    return (
        f"nothing ran, what counts was proven in run {runs}"
        if runs and result.outcome == "passed"
        else "nothing was proven"
    )


def _would_change(result: RunResult, of: str = "dry run") -> list[str]:
    """What a dry run would have brought back, each path with what it would become."""
    if not result.dry_run:
        return []
    rows = [
        f"  {row.kind} {f'{row.workspace}/{row.path}'.lstrip('/')}" for row in result.would_change
    ]
    verb = "would come back" if of == "dry run" else "that did not come back"
    return [f"{of}: {plural(len(rows), 'change')} {verb}", *map(safe, rows)]


def _brought_back(counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    conflicts = counts.get("conflicts", 0)
    tail = (
        f", {plural(conflicts, 'conflict')}: changed on the host meanwhile, left as they are"
        if conflicts
        else ""
    )
    autorun = counts.get("autorun", 0)
    tail += f"; {autorun} that the host's tools start or read by themselves" if autorun else ""
    files, size, deleted = (counts.get(name, 0) for name in ("files", "bytes", "deleted"))
    return [words.brought_back(files, size, deleted) + tail]


def _ledger(result: RunResult) -> str:
    ledger = result.ledger
    left = f"{len(ledger.left)} left: {safe(', '.join(ledger.left))}" if ledger.left else "0 left"
    held = f", {len(ledger.held)} held" if ledger.held else ""
    return f"ledger: {ledger.created} created, {ledger.removed} removed{held}, {left}"


def failure(result: RunResult, rerun: str) -> list[Line]:
    """What went wrong, last: how each phase ended that did, the first one last of all, where all
    of its output is, how to run it again.
    """
    phase = failing(result)
    if phase is None:
        return []
    others = gone_wrong(result)[1:]
    lines = [Line(words.end_of_phase(other), out=True, tone="red") for other in others]
    lines += _excerpt(phase, result)
    lines.append(Line(words.end_of_phase(phase), out=True, tone="red"))
    if phase.log:
        lines.append(Line(f"full log: {safe(phase.log)}", out=True))
    return [*lines, Line(f"run again: {again(phase, result.requested, rerun)}", out=True)]


def _excerpt(phase: PhaseResult, result: RunResult) -> list[Line]:
    """The end of the phase's output, where that of phases at its side may stand between; else it
    stands right above.
    """
    if not phase.excerpt or len({found.workspace for found in result.phases}) == 1:
        return []
    name = safe(phase_name(phase))
    return [
        Line(f"last {plural(len(phase.excerpt), 'line')} of {name}:", out=True),
        *(Line(f"{name} | {safe(text)}", out=True) for text in phase.excerpt),
    ]


def again(phase: PhaseResult, requested: Sequence[str], rerun: str) -> str:
    """The line that runs the failing phase again; in a workspace that is the whole pipeline,
    since `run` knows no workspaces.
    """
    import shlex

    command = ["pipeline", *requested] if phase.workspace else ["run", phase.name]
    return safe(f"cleanroom-engine {shlex.join(command)}{rerun}")
