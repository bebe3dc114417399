"""The sets of dependencies of a project."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.dependencies import discovery
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.session import Manager
from cleanroom.model.plan import Plan


class FoundSet(NamedTuple):
    """One set of dependencies of the project, and its key in the store."""

    manager: Manager
    found: Found
    key: str


def find(plan: Plan, known: Sequence[Manager]) -> list[FoundSet]:
    """The sets of the plan's project and workspaces. Reads lock files, and blocks."""
    inner = (os.path.relpath(one.path, plan.root) for one in plan.workspaces)
    workspaces = [path for path in inner if not path.startswith("..") and path != "."]
    with discovery.opened(Path(plan.root)) as root:
        return [
            FoundSet(manager, found, _key(manager, found))
            for folder in discovery.folders(root, workspaces)
            for manager in known
            if (found := manager.find(folder)) is not None
        ]


def _key(manager: Manager, found: Found) -> str:
    """What an entry of the store depends on, as a digest."""
    parts = [manager.name, str(manager.layout), manager.context(), found.folder]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path, content in found.files.items():
        digest.update(f"\0{path}\0{hashlib.sha256(content).hexdigest()}".encode())
    return f"{manager.name}-{digest.hexdigest()[:32]}"
