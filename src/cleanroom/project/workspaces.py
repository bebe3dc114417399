"""`[workspace]`: the folders that phases run in."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.files import is_folder
from cleanroom.project.ignored_keys import IgnoredKeys
from cleanroom.project.raw_project import RawWorkspace
from cleanroom.project.source import Node


class Workspaces(NamedTuple):
    """The content of a `[workspace]` table."""

    folders: tuple[RawWorkspace, ...]  # by name
    parallel: bool


def read_workspaces(node: Node | None, root: Path, ignored: IgnoredKeys) -> Workspaces:
    """Read a `[workspace]` table. `members` patterns are looked for below `root`.

    Raises:
        ProjectError: a folder is missing, or a pattern leads out of the project.
    """
    found: dict[str, RawWorkspace] = {}
    parallel = False
    for name, child in node.children().items() if node else ():
        if name == "members" and isinstance(child.value, list):
            members = (member for item in child.items() for member in _members(item, root))
            found.update((member.name, member) for member in members)
        elif name == "parallel" and not isinstance(child.value, dict):
            parallel = child.flag()
        elif isinstance(child.value, dict):
            found[name] = RawWorkspace(name, _path(child, ignored), child)
        else:
            ignored.add(child)
    return Workspaces(tuple(found[name] for name in sorted(found)), parallel)


def _path(node: Node, ignored: IgnoredKeys) -> str:
    for key, child in node.children().items():
        if key != "path":
            ignored.add(child)
    path = node.get("path")
    if path is None:
        raise node.error(
            "CR-PROJECT-005",
            "expected the key 'path' in it, found none",
            hint='add path = "FOLDER"',
            at_key=True,
        )
    return path.text("a folder")


def _members(node: Node, root: Path) -> list[RawWorkspace]:
    """The folder of a plain name, or the folders that a pattern matches."""
    pattern = node.text("a folder")
    if not glob.has_magic(pattern) or is_folder(root / pattern):
        return [RawWorkspace(pattern, pattern, node)]
    if pattern.startswith("/") or ".." in Path(pattern).parts:
        raise node.error(
            "CR-PROJECT-010",
            f"expected a pattern inside the project, found {pattern!r}",
            hint="name it relative to the project's folder",
        )
    folders = sorted(str(path.relative_to(root)) for path in root.glob(pattern) if is_folder(path))
    return [RawWorkspace(path, path, node) for path in folders]
