"""Folders that a project names: workspaces, working folders, tools.

Looks at the file system, changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cleanroom.core.files import is_there
from cleanroom.project.raw_project import RawPhase, RawWorkspace
from cleanroom.project.settings import Layer
from cleanroom.project.tools import is_private


def workspace_folder(root: Path, workspace: RawWorkspace) -> tuple[Path, str]:
    """The folder, resolved as ggen does, and how it is called from the root.

    Raises:
        ProjectError: it lies outside the project or is no folder.
    """
    node = workspace.node.get("path") or workspace.node
    real = root.resolve()
    try:
        found = (real / workspace.path).resolve()
        is_folder = found.is_dir()
    except (OSError, ValueError, RuntimeError):
        found, is_folder = real / workspace.path, False
    if not found.is_relative_to(real):
        raise node.error(
            "CR-PROJECT-010",
            f"expected a folder inside the project, found {workspace.path!r}",
            hint="name it relative to the project's folder",
        )
    if not is_folder:
        raise node.error(
            "CR-PROJECT-016",
            f"expected a folder, found none at {workspace.path!r}",
            hint="make the folder, or remove the workspace",
        )
    return found, str(found.relative_to(real))


def working_folder(phase: RawPhase, path: Path) -> str:
    """Where the commands run; "" is the workspace's root."""
    return str(path / phase.working_directory) if phase.working_directory else ""


def tool_folders(layer: Layer, root: Path, caller: Mapping[str, str]) -> tuple[str, ...]:
    """The folders of `cleanroom.tools`, absolute.

    A relative one is meant from the folder of the file that names it.

    Raises:
        ProjectError: one does not exist, or shows what has to stay private.
    """
    found = []
    home = caller.get("HOME", "")
    for index, name in enumerate(layer.settings.tools or ()):
        node = layer.nodes["tools"].child(index)
        folder = Path(node.source.name).parent
        written = home + name[1:] if name.startswith("~/") and home else name
        path = os.path.normpath(root / folder / written)
        if not is_there(Path(path)):
            raise node.error(
                "CR-PROJECT-019",
                f"expected a folder, found none at {path!r}",
                hint="correct the name, or install what should be there",
            )
        if is_private(path, home):
            raise node.error(
                "CR-PROJECT-010",
                f"expected a folder of programs, found {path!r}, which holds what is private",
                hint="name the programs' own folder",
            )
        found.append(path)
    return tuple(dict.fromkeys(found))
