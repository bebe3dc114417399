"""Unix sockets of the host in folders that are shown: found, and covered.

A read-only mount keeps nobody from connecting to a socket in it.
A held connect that is let go on could be given another path meanwhile, so the kernel has to refuse.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cleanroom.sandbox.filesystem.mount_ops import device
from cleanroom.sandbox.filesystem.paths import innermost_length

if TYPE_CHECKING:
    from cleanroom.sandbox.filesystem.mount_plan import MountPlan
    from cleanroom.sandbox.protocol import Device


def covers(plan: MountPlan) -> list[Device]:
    """Mounts of /dev/null over each socket that lies in a read-only tree of the plan."""
    return [
        # connect(2) to a file that is no socket fails with ECONNREFUSED.
        device("/dev/null", path)
        for path in _bound_sockets()
        if innermost_length(path, plan.executable) > innermost_length(path, plan.writable)
    ]


def _bound_sockets() -> list[str]:
    """Paths of this network namespace's bound unix sockets that exist; see proc(5)."""
    # Eight columns, the path last; the name of an abstract socket begins with "@".
    with open("/proc/net/unix", "rb") as file:
        rows = [line.rstrip(b"\n").split(None, 7) for line in file]
    paths = {os.fsdecode(row[7]) for row in rows if len(row) == 8 and row[7].startswith(b"/")}
    return sorted(path for path in paths if _is_socket(path))


def _is_socket(path: str) -> bool:
    try:
        return os.path.realpath(path) == path and stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
