"""The sets of dependencies of a project."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.dependencies import discovery
from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.settings import Settings
from cleanroom.model.plan import Plan

if TYPE_CHECKING:
    from cleanroom.dependencies.session import Manager


class FoundSet(NamedTuple):
    """One set of dependencies of the project, and its key in the store."""

    manager: Manager
    found: Found
    key: str


def find_all(plan: Plan, caller: Mapping[str, str]) -> list[FoundSet]:
    """The sets of a plan, for a caller with these variables. Reads lock files, and blocks."""
    return find(plan, Managers(Settings.of(caller)))


def find(plan: Plan, managers: Managers) -> list[FoundSet]:
    """The sets of the plan's project and workspaces. Reads lock files, and blocks."""
    inner = (os.path.relpath(one.path, plan.root) for one in plan.workspaces)
    workspaces = [path for path in inner if not path.startswith("..") and path != "."]
    with discovery.opened(Path(plan.root)) as root:
        return [
            FoundSet(manager, found, _key(manager, found))
            for folder in discovery.folders(root, workspaces)
            for manager in managers.of(folder)
            if (found := manager.find(folder)) is not None
        ]


def _key(manager: Manager, found: Found) -> str:
    """What an entry of the store depends on, as a digest."""
    parts = [manager.name, str(manager.layout), manager.context(), found.folder]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path, content in found.files.items():
        digest.update(f"\0{path}\0{hashlib.sha256(content).hexdigest()}".encode())
    return f"{manager.name}-{digest.hexdigest()[:32]}"
