"""What a run is allowed to do: levels, what each means, controls, limits.

Values only.
The table is `docs/policy.md`; a level contains every lower one, which a property test holds.
What a level means is a property of `Policy`: no other module compares levels with one it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Level(StrEnum):
    """How far a phase is isolated, the lowest first."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"
    LOCKED = "Locked"

    def at_least(self, other: Level) -> bool:
        """Whether this level is `other` or a stricter one.

        Use it in place of `<`, which compares names by the alphabet.
        """
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER = tuple(Level)


def lowest_first(levels: Iterable[Level]) -> tuple[Level, ...]:
    """Each level once, in order."""
    return tuple(sorted(set(levels), key=_ORDER.index))


Dimension = Literal["network", "filesystem", "process", "resource"]
DIMENSIONS: tuple[Dimension, ...] = ("network", "filesystem", "process", "resource")

# what a violation does to its phase: nothing, fail it at its end, end it at once
Reaction = Literal["warn", "fail", "end"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one environment.

    A project lowers them freely, and raises them only with a written reason.
    """

    memory_bytes: int  # of all processes together
    cpus: float  # seconds of processor time in a second; 0: no bound
    pids: int  # processes and threads at once
    disk_bytes: int  # written into the workspace's layer
    tmpfs_bytes: int  # size of /tmp
    open_files: int  # of each process
    output_bytes: int  # of output that is kept; the rest is cut and marked
    wall_seconds: float
    grace_seconds: float  # between the request to end and the kill


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a level, with the dimension it belongs to."""

    rule: str  # such as network.egress; the name that `allow_degraded` takes
    dimension: Dimension
    title: str
    since: Level  # the lowest level that requires it


# 256 MiB of output: far beyond what a person reads, small beside any disk.
LIMITS: dict[Level, Limits] = {
    Level.LOW: Limits(
        memory_bytes=4 * GIB,
        cpus=0,
        pids=4096,
        disk_bytes=20 * GIB,
        tmpfs_bytes=2 * GIB,
        open_files=4096,
        output_bytes=256 * MIB,
        wall_seconds=1800,
        grace_seconds=10,
    ),
    Level.MEDIUM: Limits(
        memory_bytes=2 * GIB,
        cpus=2,
        pids=1024,
        disk_bytes=10 * GIB,
        tmpfs_bytes=1 * GIB,
        open_files=1024,
        output_bytes=256 * MIB,
        wall_seconds=600,
        grace_seconds=10,
    ),
    Level.HIGH: Limits(
        memory_bytes=1 * GIB,
        cpus=2,
        pids=512,
        disk_bytes=5 * GIB,
        tmpfs_bytes=512 * MIB,
        open_files=1024,
        output_bytes=256 * MIB,
        wall_seconds=300,
        grace_seconds=5,
    ),
    Level.LOCKED: Limits(
        memory_bytes=1 * GIB,
        cpus=1,
        pids=256,
        disk_bytes=5 * GIB,
        tmpfs_bytes=256 * MIB,
        open_files=1024,
        output_bytes=256 * MIB,
        wall_seconds=300,
        grace_seconds=5,
    ),
}

REACTIONS: dict[Level, Reaction] = {
    Level.LOW: "warn",
    Level.MEDIUM: "fail",
    Level.HIGH: "fail",
    Level.LOCKED: "end",
}

CONTROLS: tuple[Control, ...] = (
    Control(
        rule="filesystem.write",
        dimension="filesystem",
        title="nothing outside the workspace is written",
        since=Level.LOW,
    ),
    Control(
        rule="filesystem.metadata",
        dimension="filesystem",
        title="no owner, mode or time outside is changed",
        since=Level.LOW,
    ),
    Control(
        rule="filesystem.secrets",
        dimension="filesystem",
        title="home folders and credentials are not there",
        since=Level.MEDIUM,
    ),
    Control(
        rule="filesystem.workspace",
        dimension="filesystem",
        title="the workspace is copy-on-write",
        since=Level.MEDIUM,
    ),
    Control(
        rule="filesystem.reads",
        dimension="filesystem",
        title="only listed paths are readable, refused reads are recorded",
        since=Level.HIGH,
    ),
    Control(
        rule="network.local",
        dimension="network",
        title="link-local addresses and the host's own loopback are not reached",
        since=Level.LOW,
    ),
    Control(
        rule="network.publish",
        dimension="network",
        title="nothing is listened on for other machines",
        since=Level.LOW,
    ),
    Control(
        rule="network.runtimes",
        dimension="network",
        title=(
            "sockets that start programs outside are not reached: container engines, service "
            "managers, sessions, editors"
        ),
        since=Level.LOW,
    ),
    Control(
        rule="network.record",
        dimension="network",
        title="connections out and visible questions for names are recorded",
        since=Level.LOW,
    ),
    Control(
        rule="network.egress",
        dimension="network",
        title="no connection but to declared services",
        since=Level.MEDIUM,
    ),
    Control(
        rule="network.names",
        dimension="network",
        title="questions for undeclared names are answered by the sink and recorded",
        since=Level.MEDIUM,
    ),
    Control(
        rule="network.families",
        dimension="network",
        title="raw, packet, vsock and other unusual sockets are refused",
        since=Level.LOW,
    ),
    Control(
        rule="network.sockets",
        dimension="network",
        title="no unix socket of the host is reachable",
        since=Level.MEDIUM,
    ),
    Control(
        rule="network.listen",
        dimension="network",
        title="only declared ports are listened on",
        since=Level.HIGH,
    ),
    Control(
        rule="process.tree",
        dimension="process",
        title="the whole process tree dies with the environment",
        since=Level.LOW,
    ),
    Control(
        rule="process.visibility",
        dimension="process",
        title="no process outside is seen, signalled or traced",
        since=Level.MEDIUM,
    ),
    Control(
        rule="process.privileges",
        dimension="process",
        title="no capability, no new privileges, never uid 0",
        since=Level.LOW,
    ),
    Control(
        rule="process.syscalls",
        dimension="process",
        title="dangerous system calls are refused",
        since=Level.LOW,
    ),
    Control(
        rule="process.exec", dimension="process", title="only listed programs run", since=Level.HIGH
    ),
    Control(
        rule="resource.memory", dimension="resource", title="memory is bounded", since=Level.LOW
    ),
    Control(
        rule="resource.pids",
        dimension="resource",
        title="the number of processes is bounded",
        since=Level.LOW,
    ),
    Control(
        rule="resource.time", dimension="resource", title="wall time is bounded", since=Level.LOW
    ),
    Control(
        rule="resource.disk",
        dimension="resource",
        title="what is written is bounded",
        since=Level.LOW,
    ),
)


def required(level: Level) -> tuple[Control, ...]:
    """The controls that `level` requires, in table order."""
    return tuple(control for control in CONTROLS if level.at_least(control.since))


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that is tolerated: still blocked, still reported,
    but not held against the phase.
    """

    target: str
    reason: str


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Rights and bounds of one phase.

    The meaning of its level is given by properties, which no encoder writes: the JSON of a policy
    is part of audit logs and of cache keys.
    """

    level: Level
    limits: Limits
    reaction: Reaction
    egress: tuple[str, ...] = ()  # "host:port"
    expected: tuple[Expected, ...] = ()
    listen: tuple[int, ...] = ()
    tmp_exec: bool = True
    reason: str = ""
    # those of `egress` whose names may lead to private addresses; unset, it is in no JSON, which
    # stays what it was for policies without one
    private_egress: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    def opens_private(self, entry: str) -> bool:
        """Whether an entry of `egress` may lead to private and documentation addresses."""
        return entry in (self.private_egress or ())

    @property
    def host_network(self) -> bool:
        """The phase is in the host's network: connections are recorded, few are stopped."""
        return self.level == Level.LOW

    @property
    def host_root(self) -> bool:
        """The phase sees the host's whole root, read-only, and its user's real home."""
        return self.level == Level.LOW

    @property
    def in_place(self) -> bool:
        """The phase writes the project's own files, and not layers above them."""
        return self.level == Level.LOW

    @property
    def inherits_variables(self) -> bool:
        """The phase gets the caller's variables, and not only those that the project names."""
        return self.level == Level.LOW

    @property
    def allowlist(self) -> bool:
        """Only listed paths are read, only listed programs start, only declared ports listen."""
        return self.level.at_least(Level.HIGH)

    @property
    def allows_egress(self) -> bool:
        """Hosts can be declared that the phase may reach."""
        return not self.level.at_least(Level.HIGH)

    @property
    def offline(self) -> bool:
        """The phase reaches its services and nothing else."""
        return not self.host_network and not self.egress

    @property
    def keeps_home_cache(self) -> bool:
        """Its home's `.cache` is kept from run to run, for phases of the same level."""
        return not self.level.at_least(Level.HIGH)

    @property
    def returns_ignored(self) -> bool:
        """A phase that failed, and broke no rule, brings back what the project ignores."""
        return not self.level.at_least(Level.HIGH)

    @property
    def forgives_harmless(self) -> bool:
        """Attempts that well-behaved programs make without meaning it are notices."""
        return not self.level.at_least(Level.HIGH)


def default_policy(level: Level) -> Policy:
    """The policy of `level` with nothing added."""
    tmp_exec = not level.at_least(Level.HIGH)
    return Policy(level=level, limits=LIMITS[level], reaction=REACTIONS[level], tmp_exec=tmp_exec)
