"""Control groups of both versions: limits and counters where this process may write them, and the
obstacle where it may not.

A group is made beside the engine's own, so that limits set on the engine from outside still bind.
Version 1 has one folder a controller.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import ControlGroup

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
# many times the length of a counter's file
_TEXT_MOST = 1 << 14
# for the kernel to count an ended environment's processes out: a few ms, also on a busy machine
CLEAR_SECONDS = 1.0


class Homes(NamedTuple):
    """Where groups can be made: controller -> folder. `version` is 0 where none can."""

    version: int
    folders: dict[str, Path]
    # the obstacle, for version 0
    why: str


class Counters(NamedTuple):
    """Totals of one group. -1 where the kernel has no such counter."""

    memory_bytes: int
    memory_peak_bytes: int
    oom_kills: int
    pids: int
    pids_refused: int
    cpu_seconds: float


def homes(root: Path = ROOT, own: str | None = None) -> Homes:
    """Find the engine's own groups that can have children with limits.

    Only looks: a trial group would be left by a kill, and takes 20 ms to remove.
    """
    lines = (own if own is not None else Path("/proc/self/cgroup").read_text()).splitlines()
    found: dict[str, Path] = {}
    reason = "no controller is mounted"
    for line in lines:
        # cgroups(7): hierarchy, controllers, path. Version 2 is hierarchy 0 without controllers.
        _, names, path = line.split(":", 2)
        if names == "":
            candidate = root / path.lstrip("/")
            if (candidate / "cgroup.controllers").exists() and _delegated(candidate):
                return Homes(2, dict.fromkeys(CONTROLLERS, candidate), "")
            continue
        # Version 1 may mount several controllers together, in a folder such as "cpu,cpuacct".
        for controller in names.split(","):
            folder = next(
                (
                    f
                    for f in (root / names / path.lstrip("/"), root / controller / path.lstrip("/"))
                    if f.is_dir()
                ),
                None,
            )
            if controller in CONTROLLERS and folder is not None:
                if os.access(folder, os.W_OK):
                    found[controller] = folder
                else:
                    reason = f"{folder} is not writable"
    return Homes(1, found, "") if {"memory", "pids"} <= set(found) else Homes(0, {}, reason)


def _delegated(folder: Path) -> bool:
    """Version 2: memory and pids are given to children of this folder, which may be written."""
    with contextlib.suppress(OSError):
        # The controllers that children of this folder have files of.
        given = (folder / "cgroup.subtree_control").read_text().split()
        return {"memory", "pids"} <= set(given) and os.access(folder, os.W_OK)
    return False


class Group:
    """One environment's group.

    Made by the keeper, removed by the keeper, also after a crash of everything else.
    """

    def __init__(self, version: int, folders: Mapping[str, Path]) -> None:
        """`folders`: controller -> the group's own folder. `version` is that of control groups."""
        self.version = version
        self.folders = dict(folders)

    @classmethod
    def within(cls, homes: Homes, name: str) -> Group:
        """The group of that name where groups can be made."""
        return cls(homes.version, {known: folder / name for known, folder in homes.folders.items()})

    @classmethod
    def from_wire(cls, group: ControlGroup) -> Group:
        """The group of a description by `to_wire`."""
        return cls(group["version"], {known: Path(at) for known, at in group["folders"].items()})

    def to_wire(self) -> ControlGroup:
        """The description of the group for another process."""
        folders = {known: str(folder) for known, folder in self.folders.items()}
        return {"version": self.version, "folders": folders}

    def beside(self) -> Group:
        """The small group next to it in which its limits are proven.

        Not below it: version 2 allows no processes between.
        """
        folders = self.folders.items()
        return Group(
            self.version,
            {known: folder.with_name(f"{folder.name}-limits") for known, folder in folders},
        )

    @property
    def paths(self) -> list[Path]:
        return sorted(set(self.folders.values()))

    def make(self, *, memory_bytes: int, pids: int, cpus: float) -> None:
        """Create it with these limits. Swap counts as memory.

        Raises:
            OSError: a limit could not be set; what was made is removed again.
        """
        try:
            for path in self.paths:
                # The kernel fills a new folder with the files of its controllers.
                path.mkdir()
            if self.version == 2:
                self._set("memory", "memory.max", memory_bytes)
                # The file is missing on a kernel without swap, or one that does not account for it.
                self._set("memory", "memory.swap.max", 0, optional=True)
                self._set("pids", "pids.max", pids)
                if cpus:
                    # Quota and period in microseconds.
                    self._set("cpu", "cpu.max", f"{int(cpus * 100_000)} 100000", optional=True)
                return
            self._set("memory", "memory.limit_in_bytes", memory_bytes)
            # Second: the kernel refuses one below memory.limit_in_bytes (EINVAL).
            self._set("memory", "memory.memsw.limit_in_bytes", memory_bytes, optional=True)
            self._set("pids", "pids.max", pids)
            if cpus and "cpu" in self.folders:
                self._set("cpu", "cpu.cfs_quota_us", int(cpus * 100_000), optional=True)
        except OSError:
            self.remove()
            raise

    def _set(self, controller: str, name: str, value: int | str, *, optional: bool = False) -> None:
        path = self.folders[controller] / name
        if optional and not path.exists():
            return
        _write(str(path), str(value))

    def join(self) -> None:
        """Put this process, which has one thread, and so all it will start, into the group.

        The process moves itself and, in version 1, only its thread.
        Moving another process, or all threads of one, takes 8 to 20 ms: the kernel waits for every
        processor.
        """
        # cgroups(7): 0 stands for the process that writes.
        name = "tasks" if self.version == 1 else "cgroup.procs"
        for path in self.paths:
            _write(f"{path}/{name}", "0")

    def counters(self) -> Counters:
        """Its totals now."""
        read = self._read
        if self.version == 2:
            events = _fields(read("memory", "memory.events"))
            return Counters(
                _number(read("memory", "memory.current")),
                # since 5.19
                _number(read("memory", "memory.peak")),
                events.get("oom_kill", -1),
                _number(read("pids", "pids.current")),
                _fields(read("pids", "pids.events")).get("max", -1),
                _fields(read("cpu", "cpu.stat")).get("usage_usec", -1_000_000) / 1e6,
            )
        return Counters(
            _number(read("memory", "memory.usage_in_bytes")),
            _number(read("memory", "memory.max_usage_in_bytes")),
            _fields(read("memory", "memory.oom_control")).get("oom_kill", -1),
            _number(read("pids", "pids.current")),
            _fields(read("pids", "pids.events")).get("max", -1),
            _number(read("cpuacct", "cpuacct.usage")) / 1e9,
        )

    def _read(self, controller: str, name: str) -> str:
        folder = self.folders.get(controller)
        if folder is None:
            return ""
        try:
            descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            return os.read(descriptor, _TEXT_MOST).decode()
        except OSError:
            return ""
        finally:
            os.close(descriptor)

    def remove(self) -> list[Path]:
        """Remove its folders; returns those that stay, because they still hold processes."""
        left = []
        for path in self.paths:
            try:
                # EBUSY while the group has processes, or groups below it.
                path.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                left.append(path)
        return left


def clear(group: Group) -> list[Path]:
    """Remove the group of an environment that has ended; returns the folders that stay.

    The kernel may still be counting the last of its processes out.
    """
    # the second is there only if the warden was killed while it proved the limits
    both = (group, group.beside())
    # Usually the second attempt succeeds.
    pause, waited = 0.0005, 0.0
    while waited < CLEAR_SECONDS:
        left = [path for one in both for path in one.remove()]
        if not left:
            break
        time.sleep(pause)
        pause, waited = min(2 * pause, 0.01), waited + pause
    return left


def _write(path: str, text: str) -> None:
    """Write a file of the kernel in three system calls: an environment's start and end write and
    read dozens.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else -1


def _fields(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
