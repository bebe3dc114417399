"""A project file in one shape, whatever its dialect: `dialects.py` makes it, `order.py` and
`loader.py` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cleanroom.model.plan import Ignored
from cleanroom.project.source import Node, Source

Dialect = Literal["A", "B", "C", "D", "E"]


class PhaseReference(msgspec.Struct, frozen=True):
    """A phase's name in another key, with its node for errors."""

    name: str
    node: Node


class RawPhase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase as its file has it."""

    name: str
    node: Node
    commands: tuple[str, ...] = ()
    commands_node: Node | None = None
    description: str = ""
    parallel: bool = False
    depends_on: tuple[PhaseReference, ...] = ()
    variables: Mapping[str, str] = {}
    environments: Mapping[str, Mapping[str, str]] = {}  # environment -> variables
    settings: Node | None = None  # its cleanroom table
    working_directory: str = ""  # relative to the workspace's root
    before: tuple[str, ...] = ()  # hook phases that its own hooks of shell strings became
    after: tuple[str, ...] = ()
    generated: bool = False  # the commands of a hook, and not written as a phase


class RawWorkspace(msgspec.Struct, frozen=True):
    """A folder that the phases run in."""

    name: str
    path: str
    node: Node


class RawProject(msgspec.Struct, frozen=True, kw_only=True):
    """One project file."""

    source: Source
    dialect: Dialect
    name: str  # "" where the file has none
    phases: Mapping[str, RawPhase]
    hooks: Mapping[str, tuple[PhaseReference, ...]]  # "before_build" -> phases
    workspaces: tuple[RawWorkspace, ...] = ()
    parallel: bool = False
    variables: Mapping[str, str] = {}
    environments: Mapping[str, Mapping[str, str]] = {}
    settings: Node | None = None
    ignored: tuple[Ignored, ...] = ()
    hides: str = ""  # another table with phases, which has no effect beside this file
