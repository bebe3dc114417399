"""The result of a run as data: what `--output json` prints and every report is made of.

Folded from events alone by `fold` (in `fold.py`), so that `report --from events.jsonl` gives the
same.
Fields are only ever added.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cleanroom.model.capability import DimensionReport, Process, Target

SCHEMA = "cleanroom.result/1"
Outcome = Literal["passed", "failed", "refused", "unverified", "error", "timeout", "interrupted"]


class PhaseResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    result: str  # passed, cached, failed, error, timeout, cancelled, skipped, unverified
    hermetic: bool
    exit_code: int | None
    duration_seconds: float
    budget_seconds: float | None = None
    workspace: str = ""
    role: str = "phase"
    started_seconds: float = 0.0  # after the run's start
    reason: str = ""
    log: str = ""  # relative path of its full output
    policy: str = ""  # the level that it was held to; empty on the host
    host: bool = False  # ran on the host; else what is not hermetic had declared egress
    cached_run: str = ""  # of a cached phase: the run that passed it
    cache: str = ""  # of a phase with cache.inputs that ran: why it was not skipped
    excerpt: tuple[str, ...] = ()  # the last lines of its output, unless it passed


class ServiceResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    # how long the start took after which it was ready for the first time
    ready_seconds: float | None
    restarts: int
    started_seconds: float = 0.0
    ended_seconds: float = 0.0
    # after the run's start; later than started + ready where a start failed
    ready_at_seconds: float | None = None
    reason: str = ""
    # the session or pool that has it: it was not started by this run and does not end with it
    held_by: str = ""


class CanaryResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    dimension: str
    expected: str
    result: str
    found: str = ""
    rule: str = ""
    environment: str = ""


class ViolationResult(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    action: str  # blocked, killed, observed
    certainty: str
    mechanism: str
    process: Process | None
    target: Target
    count: int
    severity: str = "violation"
    dimension: str = ""
    phase: str = ""
    service: str = ""  # whose it is, where it is no phase's
    environment: str = ""
    syscall: str = ""
    errno: str = ""
    attribution_gap: str = ""
    tags: tuple[str, ...] = ()
    reason: str = ""


class LedgerResult(msgspec.Struct, frozen=True, kw_only=True):
    created: int = 0
    removed: int = 0
    held: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class ResourceResult(msgspec.Struct, frozen=True, kw_only=True):
    """One environment's readings over time, for the picture:
    seconds after the run's start, CPU cores in use, bytes.
    """

    environment: str
    subject: str
    peak_memory_bytes: int
    cpu_seconds: float
    samples: tuple[tuple[float, float, int], ...] = ()


class AutorunResult(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came back and that something of the host starts or reads by itself."""

    path: str  # relative to the workspace
    by: str
    phase: str = ""
    workspace: str = ""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    schema: str = SCHEMA
    run_id: str = ""
    outcome: Outcome = "error"
    exit_code: int = 5
    reason: str = ""  # why it did not pass: one sentence
    project: str = ""
    degraded: tuple[str, ...] = ()
    backend: str = ""
    tier: str = ""
    policy: str = ""  # the level of its hermetic phases; several are comma-joined, the lowest first
    environment: str = ""
    requested: tuple[str, ...] = ()
    phases: tuple[PhaseResult, ...] = ()
    services: tuple[ServiceResult, ...] = ()
    canaries: tuple[CanaryResult, ...] = ()
    capabilities: tuple[DimensionReport, ...] = ()
    violations: tuple[ViolationResult, ...] = ()  # severity violation and tolerated
    notices: tuple[ViolationResult, ...] = ()
    recoveries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ledger: LedgerResult = LedgerResult()
    duration_seconds: float = 0.0
    engine_seconds: float = 0.0  # wall time in which no phase's command ran
    slo_seconds: float = 20.0
    slo_met: bool = True
    seed: int = 42
    trace_id: str = ""
    version: str = ""
    started_unix_ns: int = 0
    resources: tuple[ResourceResult, ...] = ()
    brought_back: dict[str, int] = {}  # files, bytes, deleted, conflicts, autorun
    audit_head: dict[str, str | int] = {}  # bytes, seq, hash
    reports: dict[str, str] = {}  # kind -> path relative to the project
    error: dict[str, str] = {}  # code, message, hint of what ended the run
    autorun: tuple[AutorunResult, ...] = ()  # some of those that `brought_back` counts
