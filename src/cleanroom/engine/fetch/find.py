"""The sets of dependencies of a project."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends import registry
from cleanroom.dependencies import discovery
from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.settings import Settings
from cleanroom.model.errors import BackendUnavailable, ProjectError
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
    return find(plan, Managers(Settings.of(caller)), _identity(tools_image(plan), plan, caller))


def find(plan: Plan, managers: Managers, image: str = "") -> list[FoundSet]:
    """The sets of the plan's project and workspaces. Reads lock files, and blocks.

    `image` is the identity of the image whose tools prepare them; "" for the host's.
    """
    inner = (os.path.relpath(one.path, plan.root) for one in plan.workspaces)
    workspaces = [path for path in inner if not path.startswith("..") and path != "."]
    with discovery.opened(Path(plan.root)) as root:
        return [
            FoundSet(manager, found, _key(manager, found, image))
            for folder in discovery.folders(root, workspaces)
            for manager in managers.of(folder)
            if (found := manager.find(folder)) is not None
        ]


def tools_image(plan: Plan) -> str:
    """The image whose tools prepare packages: that of the first phase without a network.

    Empty where phases have the host's tools.
    """
    if plan.backend not in registry.CONTAINERS:
        return ""
    offline = (one.image for one in plan.phases if one.hermetic and one.policy.offline)
    return next(offline, "")


def _identity(image: str, plan: Plan, caller: Mapping[str, str]) -> str:
    if not image:
        return ""
    try:
        return str(registry.image_reader(plan.backend, caller)(image).get("Id", ""))
    except (BackendUnavailable, ProjectError):
        return image  # a run says so by itself; a plan can do without


def _key(manager: Manager, found: Found, image: str) -> str:
    """What an entry of the store depends on, as a digest."""
    context = image or manager.context()
    parts = [manager.name, str(manager.layout), context, found.folder]
    digest = hashlib.sha256("\0".join(parts).encode())
    for path, content in found.files.items():
        digest.update(f"\0{path}\0{hashlib.sha256(content).hexdigest()}".encode())
    return f"{manager.name}-{digest.hexdigest()[:32]}"
