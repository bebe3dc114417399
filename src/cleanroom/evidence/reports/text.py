"""How values read in a report: durations, sentences about violations,
and text that cannot do harm.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cleanroom.core.text import written_out
from cleanroom.evidence.reports.result import PhaseResult, RunResult, ViolationResult
from cleanroom.model.capability import Process

COMMAND_COLUMNS = 120  # of a command line in a sentence; the whole is in the events
_MILLISECONDS_BELOW, _MINUTES_FROM = 0.0995, 99.995  # what rounds to 0.10 s, and to 100.00 s
_LEAST_SECONDS = 0.005  # less than that is not seen in a sum of hundredths
_NOTICES_NAMED = 3  # kinds of notices on one line: there are hardly more
# tag of an attempt -> what a notice with it is
_HABITS = {
    "resolver": "a resolver's socket was looked for",
    "pycache": "byte code was to be kept beside a tool",
    "probe": "a look for what is not there",
}
_RESULTS_TO_SHOW = ("failed", "error", "timeout", "cancelled")

# Terminal sequences go silently; what is left of controls is written out, so that it is seen.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


def plain(text: str) -> str:
    """`text` with terminal sequences removed and unfit characters written out;
    lines and tabs stay.
    """
    return written_out(_SEQUENCE.sub("", text))


def seconds(value: float) -> str:
    """A duration for people: 4 ms, 1.23 s, 3 min 05 s."""
    if value < _MILLISECONDS_BELOW:
        return f"{value * 1000:.0f} ms"
    if value < _MINUTES_FROM:
        return f"{value:.2f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def as_written(value: float) -> float:
    """The seconds that a reader of `seconds(value)` sees."""
    if value < _MILLISECONDS_BELOW:
        return round(value, 3)
    return round(value, 2) if value < _MINUTES_FROM else float(round(value))


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def phase_name(phase: PhaseResult) -> str:
    return f"{phase.workspace}/{phase.name}" if phase.workspace else phase.name


def summary_line(result: RunResult) -> str:
    """The run on one line: `init 1.80 s · test 5.30 s · rest 0.42 s = 7.52 s / 20.00 s,
    services ready in 0.42 s meanwhile`.

    What stands before the `=` adds up to what stands after it, as it is written. What went on
    beside something else is not among it, and says so.
    """
    total = seconds(result.duration_seconds)
    parts = [text for text, _ in _parts(result)]
    rest = as_written(result.duration_seconds) - sum(value for _, value in _parts(result))
    if parts and rest >= _LEAST_SECONDS:
        parts.append(f"rest {seconds(rest)}")
    ready = [
        service.ready_seconds for service in result.services if service.ready_seconds is not None
    ]
    beside = f", services ready in {seconds(max(ready))} meanwhile" if ready else ""
    return f"{' · '.join(parts) or 'nothing ran'} = {total} / {seconds(result.slo_seconds)}{beside}"


def _parts(result: RunResult) -> list[tuple[str, float]]:
    """Parts of the summary line that add up: text and seconds as written."""
    phases = [phase for phase in result.phases if phase.result != "skipped"]
    named = [(f"{phase_name(phase)} {_took(phase)}", _counted(phase)) for phase in phases]
    together = _covered(phases)
    if sum(phase.duration_seconds for phase in phases) - together < _LEAST_SECONDS:
        return named
    side_by_side = ", ".join(text for text, _ in named)
    return [(f"phases side by side {seconds(together)} ({side_by_side})", as_written(together))]


def _took(phase: PhaseResult) -> str:
    return "cached" if phase.result == "cached" else seconds(phase.duration_seconds)


def _counted(phase: PhaseResult) -> float:
    return 0.0 if phase.result == "cached" else as_written(phase.duration_seconds)


def _covered(phases: Sequence[PhaseResult]) -> float:
    """Seconds in which at least one of the phases was running."""
    covered = until = 0.0
    for begins, took in sorted((phase.started_seconds, phase.duration_seconds) for phase in phases):
        covered += max(0.0, begins + took - max(begins, until))
        until = max(until, begins + took)
    return covered


def failing(result: RunResult) -> PhaseResult | None:
    """The phase that a person has to look at: the first that went wrong."""
    return next(iter(gone_wrong(result)), None)


def gone_wrong(result: RunResult) -> list[PhaseResult]:
    """The phases that a person has to look at; of workspaces there may be several."""
    return [phase for phase in result.phases if phase.result in _RESULTS_TO_SHOW]


def broken_rules(result: RunResult, phase: PhaseResult) -> list[ViolationResult]:
    """The violations that are held against a phase."""
    rows = (row for row in result.violations if row.severity == "violation")
    return [row for row in rows if (row.workspace, row.phase) == (phase.workspace, phase.name)]


def describe_process(process: Process | None, gap: str = "") -> str:
    """`pid 1234 /usr/bin/curl (curl https://example.org/)`, or why nobody can be named."""
    if process is None:
        return (
            f"a process that could not be named ({gap})"
            if gap
            else "a process that could not be named"
        )
    command = " ".join(process.argv).rstrip()  # a program that renames itself leaves blanks
    shown = command if len(command) <= COMMAND_COLUMNS else command[: COMMAND_COLUMNS - 1] + "…"
    return f"pid {process.pid} {process.exe or process.comm}".rstrip() + (
        f" ({shown})" if shown else ""
    )


def describe_violation(row: ViolationResult) -> str:
    """One sentence: the action, the process, the target, the rule and its code."""
    tried = f"{describe_attempt(row)} [{row.rule}]{judged(row)}"
    return plain(f"{tried}, {row.code}" if row.code else tried)


def describe_attempt(row: ViolationResult) -> str:
    """The action, the process and the target, without the rule."""
    times = f", {row.count} times" if row.count > 1 else ""
    target = str(row.target) or "what the rule forbids"
    who = describe_process(row.process, row.attribution_gap)
    return plain(f"{row.action}: {who} tried {_verb(row)}{target}{times}")


def with_code(text: str, code: str) -> str:
    """A sentence with the code that explains it, as each line of ours has it."""
    return f"{text} [{code}]".lstrip() if code else text


def place_of(row: ViolationResult) -> str:
    """Where it happened: `phase api/test`, `service postgres`, or the environment's id."""
    if row.phase:
        return f"phase {row.workspace}/{row.phase}" if row.workspace else f"phase {row.phase}"
    return f"service {row.service}" if row.service else row.environment


def counted(result: RunResult) -> list[str]:
    """Numbers of violations, tolerated attempts and notices, as texts; none for a number of 0.

    The number of rows, and in parentheses that of attempts where it is larger.
    """
    found = []
    for severity, noun in (
        ("violation", "violation"),
        ("tolerated", "tolerated attempt"),
        ("notice", "notice"),
    ):
        rows = [row for row in (*result.violations, *result.notices) if row.severity == severity]
        attempts = sum(row.count for row in rows)
        again = f" ({attempts} attempts)" if attempts > len(rows) else ""
        found += [f"{plural(len(rows), noun)}{again}"] if rows else []
    return found


def judged(row: ViolationResult) -> str:
    """The reason of its judgement, to be added to a sentence; empty where the target has it."""
    if row.severity == "tolerated":
        return f", tolerated: {row.reason}"
    if row.severity == "notice":
        return f", {notice_kind(row)}"
    return f", {row.reason}" if row.reason and row.reason != str(row.target) else ""


def notice_kind(row: ViolationResult) -> str:
    """What a notice is, in words: a habit of programs, or what was recorded."""
    habits = [_HABITS[tag] for tag in row.tags if tag in _HABITS]
    return ", ".join(habits) or row.reason or row.rule


def notice_line(result: RunResult) -> str:
    """What this run's notices are, in one sentence; empty where there is none."""
    if not result.notices:
        return ""
    kinds = list(dict.fromkeys(map(notice_kind, result.notices)))
    named = "; ".join(kinds[:_NOTICES_NAMED])
    more = "; and others" if len(kinds) > _NOTICES_NAMED else ""
    noun = "a notice fails" if len(result.notices) == 1 else "notices fail"
    return plain(f"{noun} nothing: {named}{more}")


def _verb(row: ViolationResult) -> str:
    if row.dimension == "network" and (row.target.host or row.target.ip):
        return "to resolve " if row.rule == "network.names" else "to reach "
    if row.dimension == "filesystem" and row.target.path:
        return (
            "to read " if row.rule in ("filesystem.reads", "filesystem.secrets") else "to change "
        )
    if row.dimension == "resource":
        return "to go past "
    return ""
