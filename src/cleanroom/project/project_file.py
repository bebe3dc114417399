"""Which file of a folder has the project's phases: make.toml, or `[tool.cleanroom]` of
pyproject.toml where there is none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cleanroom.core.files import is_missing, open_to_read
from cleanroom.model.errors import ProjectError
from cleanroom.project.dialects import parse_project
from cleanroom.project.raw_project import RawProject
from cleanroom.project.source import BYTES_MAX, Node, Source, read_source

FILE = "make.toml"
PYPROJECT = "pyproject.toml"
TABLE = "tool.cleanroom"

# Below [tool.cleanroom], what stands beside [cleanroom] in a make.toml; all else is a setting.
_SECTIONS = ("lifecycle", "hooks", "workspace")


def read_project(root: Path) -> RawProject:
    """The project of a folder: its make.toml, else its pyproject.toml.

    Raises:
        ProjectError: there is neither, or the file has to be edited; it says where.
    """
    if not is_missing(root / FILE):
        project = parse_project(read_source(root / FILE, FILE), root)
        return msgspec.structs.replace(project, hides=hidden_table(root))
    if not _may_have_table(root / PYPROJECT):
        return parse_project(read_source(root / FILE, FILE), root)
    source = read_source(root / PYPROJECT, PYPROJECT)
    if settings_node(source) is None:
        return parse_project(read_source(root / FILE, FILE), root)
    return parse_project(source, root, _tables(source))


def settings_node(source: Source) -> Node | None:
    """The settings of the whole project in a file: `[cleanroom]`, or `[tool.cleanroom]` without
    the phases below it.

    Raises:
        ProjectError: it is no table.
    """
    if source.name != PYPROJECT:
        return source.node.get("cleanroom")
    tool = source.node.get("tool")
    found = tool.get("cleanroom") if tool else None
    if found is None:
        return None
    settings = {key: value for key, value in found.children().items() if key not in _SECTIONS}
    return Node(source, found.path, {key: child.value for key, child in settings.items()})


def _tables(source: Source) -> dict[str, Node]:
    """The tables of a make.toml, with their places in a pyproject.toml."""
    found: dict[str, Node] = {}
    whole = source.node.child("tool").child("cleanroom")
    for section in _SECTIONS:
        if (node := whole.get(section)) is not None:
            found[section] = node
    settings = settings_node(source)
    if settings is not None:
        found["cleanroom"] = settings
    project = source.node.get("project")
    if project and (name := project.get("name")) is not None:
        found["project"] = Node(source, project.path, {"name": name.value})
    return found


def hidden_table(root: Path) -> str:
    """The table with phases that a make.toml in this folder hides; empty where there is none."""
    return f"[{TABLE}] of {PYPROJECT}" if has_table(root) else ""


def has_table(root: Path) -> bool:
    """Whether the pyproject.toml of this folder, as far as it is readable, has settings."""
    if not _may_have_table(root / PYPROJECT):
        return False
    try:
        return settings_node(read_source(root / PYPROJECT, PYPROJECT)) is not None
    except ProjectError:
        return False


def _may_have_table(file: Path) -> bool:
    """Whether the file speaks of cleanroom at all: it is parsed for that only."""
    try:
        with open_to_read(file) as stream:
            return b"cleanroom" in stream.read(BYTES_MAX + 1)
    except OSError:
        return False
