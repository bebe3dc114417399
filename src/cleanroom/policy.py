"""What a run is allowed to do: levels, controls, limits.

Values only. The table is `docs/policy.md`; a level contains every lower one, which a property test holds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Level(StrEnum):
    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    LOCKED = "Locked"

    @property
    def rank(self) -> int:
        return list(Level).index(self)


Dimension = Literal["network", "filesystem", "process", "resource"]
DIMENSIONS: tuple[Dimension, ...] = ("network", "filesystem", "process", "resource")

Reaction = Literal["warn", "fail", "end"]  # what a violation does to its phase: nothing, fail it at its end, end it at once


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one environment. Downwards freely, upwards only with a written reason."""

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int
    tmpfs_bytes: int
    open_files: int
    output_bytes: int
    wall_seconds: float
    grace_seconds: float


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a level, with the dimension it belongs to."""

    rule: str  # such as network.egress; the name that `allow_degraded` takes
    dimension: Dimension
    title: str
    since: Level  # the lowest level that requires it


# 256 MiB of output: far beyond what a person reads, small beside any disk.
LIMITS: dict[Level, Limits] = {
    Level.LOW: Limits(
        memory_bytes=4 * GIB, cpus=0, pids=4096, disk_bytes=20 * GIB, tmpfs_bytes=2 * GIB, open_files=4096,
        output_bytes=256 * MIB, wall_seconds=1800, grace_seconds=10,
    ),
    Level.MEDIUM: Limits(
        memory_bytes=2 * GIB, cpus=2, pids=1024, disk_bytes=10 * GIB, tmpfs_bytes=1 * GIB, open_files=1024,
        output_bytes=256 * MIB, wall_seconds=600, grace_seconds=10,
    ),
    Level.HIGH: Limits(
        memory_bytes=1 * GIB, cpus=2, pids=512, disk_bytes=5 * GIB, tmpfs_bytes=512 * MIB, open_files=1024,
        output_bytes=256 * MIB, wall_seconds=300, grace_seconds=5,
    ),
    Level.LOCKED: Limits(
        memory_bytes=1 * GIB, cpus=1, pids=256, disk_bytes=5 * GIB, tmpfs_bytes=256 * MIB, open_files=1024,
        output_bytes=256 * MIB, wall_seconds=300, grace_seconds=5,
    ),
}  # fmt: skip

REACTIONS: dict[Level, Reaction] = {Level.LOW: "warn", Level.MEDIUM: "fail", Level.HIGH: "fail", Level.LOCKED: "end"}

CONTROLS: tuple[Control, ...] = (
    Control(rule="filesystem.write", dimension="filesystem", title="nothing outside the workspace is written", since=Level.LOW),
    Control(rule="filesystem.metadata", dimension="filesystem", title="no owner, mode or time outside is changed", since=Level.LOW),
    Control(rule="filesystem.secrets", dimension="filesystem", title="home folders and credentials are not there", since=Level.MEDIUM),
    Control(rule="filesystem.workspace", dimension="filesystem", title="the workspace is copy-on-write", since=Level.MEDIUM),
    Control(
        rule="filesystem.reads",
        dimension="filesystem",
        title="only listed paths are readable, refused reads are recorded",
        since=Level.HIGH,
    ),
    Control(
        rule="network.local", dimension="network", title="link-local addresses and the host's own loopback are not reached", since=Level.LOW
    ),
    Control(rule="network.publish", dimension="network", title="nothing is listened on for other machines", since=Level.LOW),
    Control(
        rule="network.runtimes",
        dimension="network",
        title="sockets that start programs outside are not reached: container engines, service managers, sessions, editors",
        since=Level.LOW,
    ),
    Control(
        rule="network.record", dimension="network", title="connections out and visible questions for names are recorded", since=Level.LOW
    ),
    Control(rule="network.egress", dimension="network", title="no connection but to declared services", since=Level.MEDIUM),
    Control(
        rule="network.names",
        dimension="network",
        title="questions for undeclared names are answered by the sink and recorded",
        since=Level.MEDIUM,
    ),
    Control(
        rule="network.families", dimension="network", title="raw, packet, vsock and other unusual sockets are refused", since=Level.LOW
    ),
    Control(rule="network.sockets", dimension="network", title="no unix socket of the host is reachable", since=Level.MEDIUM),
    Control(rule="network.listen", dimension="network", title="only declared ports are listened on", since=Level.HIGH),
    Control(rule="process.tree", dimension="process", title="the whole process tree dies with the environment", since=Level.LOW),
    Control(rule="process.visibility", dimension="process", title="no process outside is seen, signalled or traced", since=Level.MEDIUM),
    Control(rule="process.privileges", dimension="process", title="no capability, no new privileges, never uid 0", since=Level.LOW),
    Control(rule="process.syscalls", dimension="process", title="dangerous system calls are refused", since=Level.LOW),
    Control(rule="process.exec", dimension="process", title="only listed programs run", since=Level.HIGH),
    Control(rule="resource.memory", dimension="resource", title="memory is bounded", since=Level.LOW),
    Control(rule="resource.pids", dimension="resource", title="the number of processes is bounded", since=Level.LOW),
    Control(rule="resource.time", dimension="resource", title="wall time is bounded", since=Level.LOW),
    Control(rule="resource.disk", dimension="resource", title="what is written is bounded", since=Level.LOW),
)


def required(level: Level) -> tuple[Control, ...]:
    """The controls that `level` requires, in table order."""
    return tuple(control for control in CONTROLS if control.since.rank <= level.rank)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is tolerated: still blocked, still reported, but not held against the phase."""

    target: str
    reason: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What one phase may do."""

    level: Level
    limits: Limits
    reaction: Reaction
    egress: tuple[str, ...] = ()  # "host:port"
    expected: tuple[Expected, ...] = ()
    listen: tuple[int, ...] = ()
    tmp_exec: bool = True
    reason: str = ""


def default_policy(level: Level) -> Policy:
    """The policy of `level` with nothing added."""
    return Policy(level=level, limits=LIMITS[level], reaction=REACTIONS[level], tmp_exec=level.rank < Level.HIGH.rank)
