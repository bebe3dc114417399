"""What holds here: what a backend can enforce, detect and attribute, and the attempts it saw.

Values only.
The words are those of `docs/isolation.md`: enforced (the attempt fails),
detected (an event is raised), attributed (it names process and target),
verified (a canary of this run tried it).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cleanroom.model.policy import DIMENSIONS, Dimension, Level, required

Extent = Literal["yes", "partial", "no"]

# What is read back from a file has these bounds, so that no number in it is beyond arithmetic.
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class DimensionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One dimension of one environment."""

    dimension: Dimension
    enforced: Extent
    detected: Extent
    attributed: Extent
    mechanism: str
    evidence: str = ""  # the probe's own words, with errno
    verified_by_canary: bool = False
    completeness: Literal["exact", "lossy", "unknown"] = "unknown"


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that cannot be held here."""

    rule: str
    why: str
    hint: str


class CapabilityReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend can hold at a level on this machine."""

    backend: str
    tier: str
    dimensions: tuple[DimensionReport, ...]
    missing: tuple[Missing, ...] = ()  # rules of any level that cannot be held
    # level -> what that level alone would need and is not there
    levels: dict[str, tuple[Missing, ...]] = {}
    mechanisms: dict[str, str] = {}  # rule -> the mechanism that holds it
    notes: tuple[str, ...] = ()


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """Who tried. `pid` is the host's number, `ns_pid` the environment's."""

    pid: Whole
    ns_pid: Whole = 0
    ppid: Whole = 0
    exe: str = ""
    comm: str = ""
    argv: tuple[str, ...] = ()
    cwd: str = ""
    uid: Whole = -1


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in square brackets."""
    return f"[{host}]" if ":" in host else host


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was tried; only the fields that apply are set."""

    path: str = ""
    host: str = ""
    ip: str = ""
    port: Whole = 0
    proto: str = ""
    sun_path: str = ""
    signal_pid: Whole = 0
    syscall: str = ""
    limit: str = ""

    def __str__(self) -> str:
        if self.host or self.ip:
            name = self.host or self.ip
            shown = bracketed(name)
            port = f":{self.port}" if self.port else ""
            extra = f" ({self.ip})" if self.host and self.ip else ""
            return f"{self.proto + ' ' if self.proto else ''}{shown}{port}{extra}"
        return (
            self.path
            or self.sun_path
            or self.limit
            or self.syscall
            or (f"pid {self.signal_pid}" if self.signal_pid else "")
        )


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt that the policy does not allow, as a backend saw it."""

    environment: str
    dimension: Dimension
    rule: str
    outcome: Literal["blocked", "killed", "observed"]
    mechanism: str  # seccomp_notify, cgroup, rlimit, sampler, process_scan, ...
    certainty: Literal["kernel_verdict", "held_syscall", "packet", "counter", "sampled", "inferred"]
    target: Target
    process: Process | None = None
    attribution_gap: str = ""  # why `process` is missing
    syscall: str = ""
    errno: str = ""
    tags: tuple[str, ...] = ()  # resolver, pycache, probe, canary: what makes it a notice or none
    count: Whole = 1
    first_unix_ns: Whole = 0
    last_unix_ns: Whole = 0


def aggregation_key(rule: str, process: Process | None, target: Target) -> tuple[str, str, str]:
    """Attempts with the same key are one fact with a count.

    The process counts by its program, or by its number where the program is not known: a build
    starts the same program a thousand times.
    """
    program = (process.exe or str(process.pid)) if process else ""
    return rule, program, str(target)


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the policy forbids, tried in this environment before anything else ran in it."""

    name: str
    dimension: Dimension
    rule: str
    expected: str
    found: str
    result: Literal["passed", "failed"]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of an environment. Totals, so that a lost sample loses nothing."""

    cpu_seconds: float
    memory_bytes: int
    disk_bytes: int
    network_bytes: int
    processes: int
    source: Literal["cgroup", "processes", "memory"]
    # the process that holds most memory, while the environment is near its limit and processes
    # are looked at
    largest: Process | None = None


def unmet(report: CapabilityReport, level: Level) -> tuple[Missing, ...]:
    """The rules `level` requires and `report` does not hold."""
    lacking = {missing.rule: missing for missing in report.missing}
    return tuple(
        lacking[control.rule] for control in required(level) if control.rule in lacking
    ) + report.levels.get(level.value, ())


def verified(report: CapabilityReport, canaries: tuple[Canary, ...]) -> CapabilityReport:
    """`report` with each dimension marked by what its canaries showed."""
    proven = {
        dimension: any(c.dimension == dimension for c in canaries)
        and all(c.result == "passed" for c in canaries if c.dimension == dimension)
        for dimension in DIMENSIONS
    }
    rows = tuple(
        msgspec.structs.replace(row, verified_by_canary=proven[row.dimension])
        for row in report.dimensions
    )
    return msgspec.structs.replace(report, dimensions=rows)
