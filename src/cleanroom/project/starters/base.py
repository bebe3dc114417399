"""A project's phases before they are written: values without I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class StarterPhase(msgspec.Struct, frozen=True):
    """One phase. Without commands it has nothing to do, and says why in `description`."""

    name: str
    description: str
    commands: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()


class StarterService(msgspec.Struct, frozen=True, kw_only=True):
    """A service as `[cleanroom.services.NAME]` has it."""

    name: str
    keys: Mapping[str, object]  # in the order in which they are written
    comment: str = ""
    image_only: bool = False  # no program of the host is known to be it


class Starter(msgspec.Struct, frozen=True, kw_only=True):
    """All that a make.toml begins with."""

    language: str  # for a reader: language and package manager
    name: str = ""  # of the project's metadata; empty where it has none
    image: str
    phases: tuple[StarterPhase, ...]
    variables: Mapping[str, str] = {}
    # what its tests evidently need; a compose file that is taken over goes before it
    services: tuple[StarterService, ...] = ()
    slo: str = "20s"
    comments: tuple[str, ...] = ()  # what was not found, or could not be taken over

    def has_phase(self, name: str) -> bool:
        return any(phase.name == name for phase in self.phases)


ORDER = ("init", "build", "test", "validate")
DESCRIPTIONS = {
    "init": "Install the packages",
    "build": "Build",
    "test": "Run the tests",
    "validate": "Check what was built",
}
NO_TESTS = "No tests were found: add [lifecycle.test] with the command that runs them."


def phases(commands: Mapping[str, Iterable[str]], **descriptions: str) -> tuple[StarterPhase, ...]:
    """The phases that have commands, in the usual order."""
    found = []
    for name in ORDER:
        lines = tuple(line for line in commands.get(name, ()) if line)
        if lines:
            description = descriptions.get(name, DESCRIPTIONS[name])
            found.append(StarterPhase(name, description, lines))
    return tuple(found)


def no_tests(commands: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The comment where nothing tests the project."""
    return () if any(commands.get("test", ())) else (NO_TESTS,)
