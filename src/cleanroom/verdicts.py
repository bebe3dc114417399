"""Judging: what an attempt counts as, and how a phase ended. Pure functions over values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple

from cleanroom.backends.base import ExecResult
from cleanroom.capability import Attempt, Canary, Target, bracketed
from cleanroom.characters import written_out_on_one_line
from cleanroom.errors import EXIT_ORDER, CleanroomError, Exit
from cleanroom.events import Result
from cleanroom.patterns import any_matches
from cleanroom.policy import Policy, Reaction

Severity = Literal["violation", "notice", "tolerated"]

# What well-behaved programs do without meaning it: byte code beside a mounted tool, a resolver's own sockets, looking whether something is there.
NOTICE_TAGS = frozenset(("pycache", "resolver", "probe"))
# A resolver's or a logger's own socket is looked for by the C library itself, in every `ls -l`: no level could hold that against a phase.
SOCKETS_RULE, HABITUAL_TAGS = "network.sockets", frozenset(("resolver", "probe"))
NAMES_RULE = "network.names"  # such a record is a name asked for with no packet following: a packet would carry the name in its own record

RECORD_RULE = "network.record"


def judge(policy: Policy, attempt: Attempt) -> tuple[Severity, str] | None:
    """What the attempt counts as and why; None for a canary's own, which is evidence and no trouble."""
    if "canary" in attempt.tags:
        return None
    for expected in policy.expected:
        if any_matches(_target_names(attempt), expected.target):
            return "tolerated", expected.reason
    if attempt.rule == SOCKETS_RULE and not HABITUAL_TAGS.isdisjoint(attempt.tags):
        return "notice", ", ".join(attempt.tags)
    if attempt.outcome == "observed" and attempt.rule == RECORD_RULE:
        return "notice", "allowed at this level, and recorded"
    harmless = attempt.rule == NAMES_RULE or not NOTICE_TAGS.isdisjoint(attempt.tags)
    if harmless and policy.forgives_harmless:
        return "notice", "a name was asked for, no packet followed" if attempt.rule == NAMES_RULE else ", ".join(attempt.tags)
    return "violation", _despite_declaration(policy.egress, attempt.target)


def _despite_declaration(egress: Sequence[str], target: Target) -> str:
    """Why a declared host was refused all the same; empty for what is not declared."""
    declared = [entry.rpartition(":") for entry in egress]
    asked = target.host or target.ip
    ports = [port for host, _, port in declared if asked and host.strip("[]").lower() == asked.lower()]
    if not ports:
        return ""
    if str(target.port) not in ports:
        return f"the host is declared for port {' and '.join(ports)} only"
    if target.proto == "udp":
        return "the host is declared for tcp only"
    return "the host is declared, but its name leads to an address that no declaration opens"


def _target_names(attempt: Attempt) -> tuple[str, ...]:
    """How a person may call the target: its parts, host and port together, and the text that lines and reports print."""
    target = attempt.target
    printed = str(target)
    hosts = [host for host in (target.host, target.ip) if host]
    ends = [f"{bracketed(host)}:{target.port}" for host in hosts]
    parts = (target.path, target.sun_path, target.limit, target.syscall)
    names = (*hosts, *ends, *parts, printed, written_out_on_one_line(printed))
    return tuple(name for name in names if name)


def fold_key(attempt: Attempt) -> tuple[str, str, str]:
    """Attempts with the same key are one fact with a count."""
    process = attempt.process
    return attempt.rule, (process.exe or str(process.pid)) if process else "", str(attempt.target)


def broken_canaries(canaries: Sequence[Canary], degraded: Collection[str] = ()) -> str:
    """What the canaries that were not stopped say; empty when all were, but for those of rules that the run was let go without."""
    return "; ".join(
        f"{c.name} ({c.rule}): expected {c.expected}, found {c.found}" for c in canaries if c.result != "passed" and c.rule not in degraded
    )


class Verdict(NamedTuple):
    """How a phase ended."""

    result: Result
    exit_code: int | None
    reason: str = ""
    code: str = ""


def phase_verdict(results: Sequence[ExecResult], *, violations: int, reaction: Reaction, ended_for: str, timeout_seconds: float) -> Verdict:
    """From how the phase's commands ended, what it tried, and why its environment was ended early (empty: it was not)."""
    last = results[-1] if results else None
    status = last.exit_code if last and last.ran else None
    if ended_for:
        return Verdict("failed", status, f"ended early: {ended_for}", "CR-PHASE-003")
    if last and last.timed_out:
        return Verdict("timeout", status, f"still running after {timeout_seconds:g} s", "CR-PHASE-002")
    if last and last.killed_for:
        return Verdict("failed", status, f"killed for its {last.killed_for} limit", "CR-PHASE-004")
    if last and last.ran and last.exit_code:
        return Verdict("failed", status, f"exit status {last.exit_code}", "CR-PHASE-001")
    if violations and reaction != "warn":
        attempts = "one attempt" if violations == 1 else f"{violations} attempts"
        return Verdict("failed", status, f"{attempts} against the policy", "CR-PHASE-005")
    if not any(result.ran for result in results):
        return Verdict("unverified", None, "nothing was run")
    return Verdict("passed", status)


RESULT_EXITS: dict[Result, Exit] = {
    "passed": Exit.OK, "cached": Exit.OK, "skipped": Exit.OK, "unverified": Exit.OK, "failed": Exit.NOT_PASSED, "error": Exit.ENGINE, "timeout": Exit.TIMEOUT,
    "refused": Exit.REFUSED, "cancelled": Exit.INTERRUPTED,
}  # fmt: skip
ERROR_RESULTS: dict[Exit, Result] = {Exit.REFUSED: "refused", Exit.UNVERIFIED: "unverified"}
EXIT_RESULTS: dict[Exit, Result] = {
    Exit.OK: "passed", Exit.NOT_PASSED: "failed", Exit.USAGE: "error", Exit.REFUSED: "refused", Exit.UNVERIFIED: "unverified",
    Exit.ENGINE: "error", Exit.TIMEOUT: "timeout", Exit.INTERRUPTED: "cancelled", Exit.TERMINATED: "cancelled",
}  # fmt: skip


VERIFYING: tuple[Result, ...] = ("passed", "cached", "failed", "timeout", "cancelled")


class Cause(NamedTuple):
    """One thing that a run's exit status may stand for."""

    exit: Exit
    reason: str = ""  # one sentence
    code: str = ""
    hint: str = ""

    @classmethod
    def of(cls, error: CleanroomError, exit: Exit | None = None) -> Cause:
        """An error as a cause, of its own exit status unless another is said."""
        return cls(error.exit if exit is None else exit, str(error), error.code, error.hint)


def decisive(causes: Iterable[Cause]) -> Cause:
    """The first of those whose exit status stands for all; a pass where there is none."""
    return min(causes, key=lambda cause: EXIT_ORDER.index(cause.exit), default=Cause(Exit.OK))


def phase_causes(name: str, result: Result, reason: str, error: CleanroomError | None) -> tuple[Cause, ...]:
    """What a phase that ended so says of its run; nothing where it passed. `error` kept it from its end."""
    if error is not None:
        return Cause.of(error), Cause.of(error, RESULT_EXITS[result])
    if RESULT_EXITS[result] is Exit.OK:
        return ()
    became = "timed out" if result == "timeout" else result
    why = f": {reason}" if reason else ""
    return (Cause(RESULT_EXITS[result], f"phase {name!r} {became}{why}"),)


def verifies(results: Iterable[Result]) -> bool:
    """Did a command run in one of the phases that ended so?

    A phase that the cache skipped counts: it does so only while the evidence of the run that passed
    it is there.
    """
    return any(result in VERIFYING for result in results)
