"""The package managers that are known, in the order in which they are shown.

A manager's module is loaded when a project has one of its files.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.settings import Settings

if TYPE_CHECKING:
    from cleanroom.dependencies.session import Manager
    from cleanroom.dependencies.store import Measure


class _Known(NamedTuple):
    """A manager, and the names of files at which it is asked; `*` stands for anything."""

    home: str  # module:class
    triggers: tuple[str, ...]


KNOWN = {
    "uv": _Known("uv:Uv", ("uv.lock",)),
    "pip": _Known(
        "pip:Pip",
        (
            *("*.txt", "pylock.toml", "poetry.lock", "pyproject.toml", "setup.py"),
            *("tox.ini", "tox.toml", "noxfile.py"),
        ),
    ),
    "npm": _Known("npm:Npm", ("package-lock.json", "npm-shrinkwrap.json")),
    "pnpm": _Known("pnpm:Pnpm", ("pnpm-lock.yaml",)),
    "yarn": _Known("yarn:Yarn", ("yarn.lock",)),
    "yarn-classic": _Known("yarn_classic:YarnClassic", ("yarn.lock",)),
    "cargo": _Known("cargo:Cargo", ("Cargo.lock",)),
    "go": _Known("golang:Go", ("go.mod", "go.work")),
    "maven": _Known("maven:Maven", ("pom.xml",)),
}


class Managers:
    """One of each, made when it is asked for first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, Manager] = {}

    def of(self, folder: ProjectFolder) -> Iterator[Manager]:
        """The managers that may have files in this folder."""
        for name, known in KNOWN.items():
            if any(_matches(known, file) for file in folder.names):
                yield self[name]

    def __getitem__(self, name: str) -> Manager:
        if name not in self._made:
            module, _, kind = KNOWN[name].home.partition(":")
            loaded = importlib.import_module(f"cleanroom.dependencies.{module}")
            self._made[name] = getattr(loaded, kind)(self._settings)
        return self._made[name]


def measures() -> Mapping[str, Measure]:
    """How files are measured whose digests are none of hashlib's: algorithm -> function."""
    from cleanroom.dependencies import git_packs, git_sources, go_hashes

    return {**go_hashes.MEASURES, git_sources.ALGORITHM: git_packs.measure}


def _matches(known: _Known, file: str) -> bool:
    return any(fnmatchcase(file, trigger) for trigger in known.triggers)
