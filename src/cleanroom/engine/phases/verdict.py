"""The verdict on a phase, and the causes of a run's exit status. Pure functions over values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from cleanroom.backends.base import ExecResult
from cleanroom.model.capability import Canary
from cleanroom.model.errors import EXIT_ORDER, CleanroomError, Exit
from cleanroom.model.events import Result
from cleanroom.model.policy import Reaction


def broken_canaries(canaries: Sequence[Canary], degraded: Collection[str] = ()) -> str:
    """The findings of canaries that were not stopped, as one text; empty where all were.

    Canaries of `degraded` rules do not count.
    """
    return "; ".join(
        f"{c.name} ({c.rule}): expected {c.expected}, found {c.found}"
        for c in canaries
        if c.result != "passed" and c.rule not in degraded
    )


# codes that say what happened; one that says why may replace them
FAILED_COMMAND, BROKE_POLICY = "CR-PHASE-001", "CR-PHASE-005"


def named_attempts(violations: int) -> str:
    """The number of attempts against the policy as words; empty where there was none."""
    if not violations:
        return ""
    return f"{'one attempt' if violations == 1 else f'{violations} attempts'} against the policy"


class Verdict(NamedTuple):
    """How a phase ended, as the end of its span has it."""

    result: Result
    exit_code: int | None
    reason: str = ""
    code: str = ""


def phase_verdict(
    results: Sequence[ExecResult],
    *,
    violations: int,
    reaction: Reaction,
    ended_for: str,
    timeout_seconds: float,
) -> Verdict:
    """The verdict on a phase, by its commands, its violations and the end of its environment.

    `ended_for` is why the environment was ended early; empty where it was not.
    Attempts against the policy stand before the exit status, which they usually explain.
    """
    attempts = named_attempts(violations)
    breaks_policy = bool(violations) and reaction != "warn"
    last = results[-1] if results else None
    status = last.exit_code if last and last.ran else None
    if ended_for:
        return Verdict("failed", status, f"ended early: {ended_for}", "CR-PHASE-003")
    if last and last.timed_out:
        running = f"still running after {timeout_seconds:g} s"
        tried = f", with {attempts}" if attempts else ""
        return Verdict("timeout", status, f"{running}{tried}", "CR-PHASE-002")
    if last and last.killed_for:
        return Verdict("failed", status, f"killed for its {last.killed_for} limit", "CR-PHASE-004")
    if last and last.ran and last.exit_code:
        ended = f"exit status {last.exit_code}"
        reason = f"{attempts}, {ended}" if attempts else ended
        return Verdict("failed", status, reason, BROKE_POLICY if breaks_policy else FAILED_COMMAND)
    if breaks_policy:
        return Verdict("failed", status, attempts, BROKE_POLICY)
    if not any(result.ran for result in results):
        return Verdict("unverified", None, "nothing was run")
    return Verdict("passed", status)


RESULT_EXITS: dict[Result, Exit] = {
    "passed": Exit.OK,
    "cached": Exit.OK,
    "skipped": Exit.OK,
    "unverified": Exit.OK,
    "failed": Exit.NOT_PASSED,
    "error": Exit.ENGINE,
    "timeout": Exit.TIMEOUT,
    "refused": Exit.REFUSED,
    "cancelled": Exit.INTERRUPTED,
}
ERROR_RESULTS: dict[Exit, Result] = {Exit.REFUSED: "refused", Exit.UNVERIFIED: "unverified"}
EXIT_RESULTS: dict[Exit, Result] = {
    Exit.OK: "passed",
    Exit.NOT_PASSED: "failed",
    Exit.USAGE: "error",
    Exit.REFUSED: "refused",
    Exit.UNVERIFIED: "unverified",
    Exit.ENGINE: "error",
    Exit.TIMEOUT: "timeout",
    Exit.INTERRUPTED: "cancelled",
    Exit.TERMINATED: "cancelled",
}


VERIFYING: tuple[Result, ...] = ("passed", "cached", "failed", "timeout", "cancelled")


class Cause(NamedTuple):
    """One thing that a run's exit status may stand for."""

    exit: Exit
    reason: str = ""  # one sentence
    code: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: CleanroomError, exit: Exit | None = None) -> Cause:
        """An error as a cause, with its own exit status unless another is given."""
        return cls(error.exit if exit is None else exit, str(error), error.code, error.hint)


def decisive(causes: Iterable[Cause]) -> Cause:
    """The first of those whose exit status stands for all; a pass where there is none."""
    return min(causes, key=lambda cause: EXIT_ORDER.index(cause.exit), default=Cause(Exit.OK))


def phase_causes(
    name: str, result: Result, reason: str, error: CleanroomError | None
) -> tuple[Cause, ...]:
    """The causes that a phase contributes to its run's exit status; none where it passed.

    `error` is the one that kept the phase from running to its end.
    """
    if error is not None:
        return Cause.of(error), Cause.of(error, RESULT_EXITS[result])
    if RESULT_EXITS[result] is Exit.OK:
        return ()
    became = "timed out" if result == "timeout" else result
    why = f": {reason}" if reason else ""
    return (Cause(RESULT_EXITS[result], f"phase {name!r} {became}{why}"),)


def verifies(results: Iterable[Result]) -> bool:
    """True if a command ran in one of the phases with these results.

    A phase that the cache skipped counts: the cache skips one only while the evidence of the run
    that passed it exists.
    """
    return any(result in VERIFYING for result in results)
