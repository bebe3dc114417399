"""Folders of a run outside the project, by name, and whose they are:
what makes them and what removes them agree here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.sandbox import journal

PREFIX = "cleanroom-"
OWNER = "owner"
GROUPS = "groups"


def run_areas(run_id: str) -> tuple[Path, Path]:
    """Folders outside the cache that a run may have.

    The first is on a disk, for large copies; the second has a short path, for unix sockets.
    """
    return Path(f"/var/tmp/{PREFIX}{run_id}"), Path(f"/tmp/{PREFIX}{run_id}")


def claim(scratch: Folder, groups: Iterable[Path] = ()) -> int:
    """Write down whose this run's folder is, and in which folders its control groups are made.

    The run lives while the descriptor is open somewhere.
    """
    os.close(_written(scratch, GROUPS, "".join(f"{folder}\n" for folder in sorted(set(groups)))))
    descriptor = _written(scratch, OWNER, journal.process_name(os.getpid()))
    journal.lock(descriptor)
    return descriptor


def _written(folder: Folder, name: str, text: str) -> int:
    """A file of ours with this text, still open."""
    descriptor = folder.open_own(name, os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, text.encode())
    return descriptor
