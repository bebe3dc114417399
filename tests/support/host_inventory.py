"""What exists on this host that an environment could leave behind: looked at before and after."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

ENGINES = (
    "/var/lib/docker/",
    "/var/lib/containers/",
    "/run/docker/",
    "/run/containers/",
    "/run/netns/",
)  # of containers that other tests run meanwhile
SETTINGS = (
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/yama/ptrace_scope",
    "/proc/sys/user/max_user_namespaces",
)


def inventory(*run_ids: str) -> dict[str, set[str]]:
    """Descendants of this process, mounts, control groups of the runs,
    network namespaces of its descendants, links, SysV objects, settings.
    """
    family = descendants(os.getpid())
    return {
        "processes": {f"{pid} {command(pid)}" for pid in family},
        "mounts": {
            place for place in _lines("/proc/self/mountinfo", 4) if not place.startswith(ENGINES)
        },
        "groups": {
            where
            for where, _, _ in os.walk("/sys/fs/cgroup")
            if any(f"cleanroom-{run_id}-" in where for run_id in run_ids)
        },
        "namespaces": {_link(f"/proc/{pid}/ns/net") for pid in family}
        - {_link("/proc/self/ns/net"), ""},
        "links": set(os.listdir("/sys/class/net")),
        "shared memory": {name for name in os.listdir("/dev/shm") if "cleanroom" in name}
        | _segments(),
        "settings": {
            f"{name}={Path(name).read_text().strip()}"
            for name in SETTINGS
            if os.access(name, os.R_OK)
        },
    }


def descendants(ancestor: int) -> set[int]:
    """Living processes below `ancestor`, without zombies."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    parents[int(entry)] = int(fields[1])
    found: set[int] = set()
    fresh = {ancestor}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh and pid not in found}
        found |= fresh
    return found


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    return ""


def named(ancestor: int, name: str) -> set[int]:
    """Living processes below `ancestor` that call themselves so,
    which is cut after 15 characters.
    """
    return {
        pid
        for pid in descendants(ancestor)
        if _lines(f"/proc/{pid}/comm", slice(None)) == [name.split()]
    }


def warden_and_init(identity: str) -> tuple[int, int]:
    """The two processes that hold the environment `identity` of this process together."""
    named = {
        pid
        for pid in descendants(os.getpid())
        if _lines(f"/proc/{pid}/comm", slice(None)) == [["warden", identity]]
    }
    below = {
        int(child)
        for pid in named
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    }
    (warden,) = named - below  # init was forked from it and bears its name
    (init,) = (
        int(child) for child in Path(f"/proc/{warden}/task/{warden}/children").read_text().split()
    )
    return warden, init


def _segments(size: int = 4096) -> set[str]:
    """SysV segments of the size that tests make inside; other programs of this host make theirs
    meanwhile, of other sizes.
    """
    return {row[1] for row in _lines("/proc/sysvipc/shm", slice(None)) if row[3] == str(size)}


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _lines(path: str, column: Any) -> list[Any]:
    with contextlib.suppress(OSError):
        return [line.split()[column] for line in Path(path).read_text().splitlines()]
    return []
