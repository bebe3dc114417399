"""The result of a run as data: what `--output json` prints and every report is made of.

`fold` (in `fold.py`) makes it of events alone, so that `report --from events.jsonl` gives the same.
Each field names the event that it comes from, as `docs/events.md` has it.
A time in `..._seconds` that is no duration counts from the run's start.
Fields are only ever added.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cleanroom.model.capability import DimensionReport, Process, Target

SCHEMA = "cleanroom.result/1"
Outcome = Literal["passed", "failed", "refused", "unverified", "error", "timeout", "interrupted"]


class PhaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One phase or hook in one workspace. From its Started and Finished."""

    name: str
    # passed, cached, failed, error, timeout, cancelled, skipped or unverified
    result: str
    # whether it ran in an environment, and one without declared egress
    hermetic: bool
    # 128+n for signal n; None where no command of it ran
    exit_code: int | None
    duration_seconds: float
    # the longest time that the project allows; None where it sets none
    budget_seconds: float | None = None
    # name of the workspace; empty for the project itself
    workspace: str = ""
    # phase, hook or prerequisite
    role: str = "phase"
    started_seconds: float = 0.0
    # why it did not pass, one sentence
    reason: str = ""
    # of that reason: CR-..., as `cleanroom-engine explain` takes it
    code: str = ""
    # what helps, where the engine knows it
    hint: str = ""
    # its complete output: a file, relative to the project
    log: str = ""
    # where the project declares it: FILE:LINE:COLUMN, the file relative to the project
    origin: str = ""
    # the policy level that it was held to; empty on the host
    policy: str = ""
    # whether it ran on the host
    host: bool = False
    # of a cached phase: the run that passed it
    cached_run: str = ""
    # of a phase with `cache.inputs` that ran: why it was not skipped
    cache: str = ""
    # the last lines of its output, at most 40; empty where it passed. From Output
    excerpt: tuple[str, ...] = ()


class ServiceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One service over all its starts. From Started, Finished, Recovery and Attached."""

    name: str
    version: str
    # duration of the first start that became ready, or of this run's wait for a service of a
    # session or pool; None where it never was. From Finished of its readiness
    ready_seconds: float | None
    # how often it was started again
    restarts: int
    # when its first start began
    started_seconds: float = 0.0
    # when its last start ended; the run's end for a service of a session or pool
    ended_seconds: float = 0.0
    # when it was ready for the first time, later than `started_seconds` + `ready_seconds` where a
    # start failed before; None where it never was
    ready_at_seconds: float | None = None
    # why it ended too early or was given up; empty where it did not
    reason: str = ""
    # of that reason: CR-...
    code: str = ""
    # what helps, where the engine knows it
    hint: str = ""
    # id of the session or pool that has the service; empty where this run started it
    held_by: str = ""


class CanaryResult(msgspec.Struct, frozen=True, kw_only=True):
    """One forbidden act that was tried to prove an environment. From Assertion."""

    name: str
    # network, filesystem, process or resource
    dimension: str
    # what has to happen, such as "refused"
    expected: str
    # passed or failed
    result: str
    # what happened
    found: str = ""
    # the policy rule that it tests
    rule: str = ""
    # id of the environment
    environment: str = ""


class ViolationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Attempts against the policy with the same severity, rule, process, target and owner.

    From Violation; except for `count`, each field is that of the first attempt.
    """

    rule: str
    # blocked, killed or observed
    action: str
    # how sure it is that it happened: kernel_verdict, held_syscall, packet, counter, sampled or
    # inferred
    certainty: str
    # what saw it, such as seccomp_notify
    mechanism: str
    # who tried; None where that is not known, see `attribution_gap`
    process: Process | None
    # what was tried
    target: Target
    # number of attempts
    count: int
    # violation, tolerated (the policy expects it) or notice (a habit of harmless programs)
    severity: str = "violation"
    # network, filesystem, process or resource
    dimension: str = ""
    # the phase that it belongs to; empty where it is a service's
    phase: str = ""
    # the service that it belongs to; empty where it is a phase's
    service: str = ""
    # id of the environment
    environment: str = ""
    # name of the system call
    syscall: str = ""
    # name of the error that the caller got, such as EPERM
    errno: str = ""
    # why `process` is missing
    attribution_gap: str = ""
    # what makes it a notice: resolver, pycache, probe, canary; or "dropped"
    tags: tuple[str, ...] = ()
    # why it is tolerated, or which limit was exceeded
    reason: str = ""
    # of the rule: CR-...
    code: str = ""
    # of `phase`: name of its workspace; empty for the project itself
    workspace: str = ""


class NoteResult(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a reader has to be told. From Note."""

    # info, warning or degraded
    level: str
    text: str
    # CR-...; empty where the note has none
    code: str = ""


class LedgerResult(msgspec.Struct, frozen=True, kw_only=True):
    """The account of what the run made outside the project. From Ledger."""

    # numbers of resources: folders, environments, processes and so on
    created: int = 0
    removed: int = 0
    # what a session or pool keeps, one line each
    held: tuple[str, ...] = ()
    # what could not be removed, one line each
    left: tuple[str, ...] = ()


class ResourceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One environment's use of the host over time. From Metric."""

    # id of the environment
    environment: str
    # what it was for: role and name, such as "phase test"
    subject: str
    # the largest reading
    peak_memory_bytes: int
    # CPU time in total, up to the last reading
    cpu_seconds: float
    # time after the run's start in seconds, CPU cores in use since the sample before, memory in
    # bytes; at most 240, thinned evenly
    samples: tuple[tuple[float, float, int], ...] = ()


class ChangeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A change that a dry run would have brought back. From Artifact of role would_change."""

    # relative to the workspace
    path: str
    # file, directory, symlink or deleted
    kind: str
    # the last phase that changed it
    phase: str = ""
    workspace: str = ""


class AutorunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was brought back and that a tool of the host starts or reads by itself.

    From Artifact of role autorun.
    """

    # relative to the workspace
    path: str
    # what starts or reads it
    by: str
    # the phase that changed it
    phase: str = ""
    workspace: str = ""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Without another source, a field is from the run's Started and Finished."""

    schema: str = SCHEMA
    run_id: str = ""
    # how it ended; of events that end before the run does: error
    outcome: Outcome = "error"
    # what the command exits with, see `docs/exit-codes.md`
    exit_code: int = 5
    # why it did not pass, one sentence
    reason: str = ""
    # name of the project
    project: str = ""
    # rules that were not held and that file and command line both allow to be missing
    degraded: tuple[str, ...] = ()
    # name of the backend
    backend: str = ""
    # tier of the embedded backend (E2 or E3), or the container engine with its version
    tier: str = ""
    # level of its hermetic phases; several are comma-joined, the lowest first
    policy: str = ""
    # name of the environment that `--env` chose
    environment: str = ""
    # phases that were asked for
    requested: tuple[str, ...] = ()
    # in the order in which they began
    phases: tuple[PhaseResult, ...] = ()
    services: tuple[ServiceResult, ...] = ()
    canaries: tuple[CanaryResult, ...] = ()
    # what the backend holds, with what canaries of this run have verified. From Capability
    capabilities: tuple[DimensionReport, ...] = ()
    # of severity violation and tolerated, at most 1,000 together with `notices`
    violations: tuple[ViolationResult, ...] = ()
    # of severity notice
    notices: tuple[ViolationResult, ...] = ()
    # what was restarted, killed or given up, one sentence each, at most 1,000. From Recovery
    recoveries: tuple[str, ...] = ()
    # what a reader has to be told, one sentence each, at most 1,000. From Note
    notes: tuple[str, ...] = ()
    # the same notes by their parts
    note_details: tuple[NoteResult, ...] = ()
    ledger: LedgerResult = LedgerResult()
    duration_seconds: float = 0.0
    # wall time in which no command of a phase ran
    engine_seconds: float = 0.0
    # the duration that the project aims at
    slo_seconds: float = 20.0
    slo_met: bool = True
    seed: int = 42
    # id of its trace: 32 hex digits. From the envelopes
    trace_id: str = ""
    # the engine's version
    version: str = ""
    # wall clock, nanoseconds since 1970. From the first envelope
    started_unix_ns: int = 0
    resources: tuple[ResourceResult, ...] = ()
    # totals of what came back to the project: `files`, `bytes`, `deleted`, `conflicts`,
    # `autorun`; one that no phase reported is missing. From Artifact
    brought_back: dict[str, int] = {}
    # the audit log's end as this run closed it: `bytes`, `seq` and `hash`. From the file
    audit_head: dict[str, str | int] = {}
    # kind (json, junit, html, sarif, events, trace, audit) -> path relative to the project.
    # From Artifact, and from the files that are written last
    reports: dict[str, str] = {}
    # `code`, `message` and `hint` of the error that ended the run; empty where none did
    error: dict[str, str] = {}
    # at most 1,000 of the files that `brought_back` counts as autorun
    autorun: tuple[AutorunResult, ...] = ()
    # nothing came back to the project
    dry_run: bool = False
    # of a dry run: what would have come back, by path, at most 1,000 of each phase
    would_change: tuple[ChangeResult, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether its outcome is "passed"."""
        return self.outcome == "passed"

    def explain(self) -> str:
        """What became of it, for people: the end that the command prints, and what went wrong."""
        from cleanroom.evidence.reports.explanation import explanation

        return explanation(self)

    def assert_passed(self) -> RunResult:
        """Itself, for tests.

        Raises:
            AssertionError: it did not pass; the message is that of `explain`.
        """
        __tracebackhide__ = True  # pytest shows the caller's line and not this one
        if not self.passed:
            raise AssertionError(self.explain())
        return self

    def __repr__(self) -> str:
        """One line; `msgspec.to_builtins` gives all of it."""
        from cleanroom.evidence.reports.explanation import short

        return f"<RunResult {short(self)}>"
