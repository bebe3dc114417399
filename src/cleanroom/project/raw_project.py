"""A project file in one shape, whatever dialect it was written in:
what `dialects.py` makes and `order.py` and `loader.py` read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from cleanroom.model.plan import Ignored
from cleanroom.project.source import Node, Source

Dialect = Literal["A", "B", "C", "D", "E"]


class PhaseReference(msgspec.Struct, frozen=True):
    """A phase's name where another key names it, so that a wrong one can be shown there."""

    name: str
    node: Node


class RawPhase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase as the file has it."""

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
    before: tuple[str, ...] = ()  # hook phases made of its own shell-string hooks
    after: tuple[str, ...] = ()
    generated: bool = False  # not written as a phase: the commands of a hook


class RawWorkspace(msgspec.Struct, frozen=True):
    """A folder that the phases are run in."""

    name: str
    path: str
    node: Node


class RawProject(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    source: Source
    dialect: Dialect
    name: str  # "" where the file does not say it
    phases: Mapping[str, RawPhase]
    hooks: Mapping[str, tuple[PhaseReference, ...]]  # "before_build" -> phases
    workspaces: tuple[RawWorkspace, ...] = ()
    parallel: bool = False
    variables: Mapping[str, str] = {}
    environments: Mapping[str, Mapping[str, str]] = {}
    settings: Node | None = None
    ignored: tuple[Ignored, ...] = ()
