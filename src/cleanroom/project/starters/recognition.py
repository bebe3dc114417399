"""Which kinds of project a folder and its sub-folders are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cleanroom.core.files import is_file
from cleanroom.project.starters import compiled, node, python, runners
from cleanroom.project.starters.base import Starter, StarterPhase
from cleanroom.project.starters.files import SKIPPED, files_below

# Folders that show a project to its readers, and are not what it consists of.
_SHOWN = ("docs", "doc", "examples", "example", "samples")
_TESTING = ("tests", "test", "testdata", "fixtures", "scripts")
_ASIDE = frozenset((*_SHOWN, *_TESTING))
_DEPTH = 2


class Kind(NamedTuple):
    """A kind of project."""

    family: str  # one package manager's project may hold others of its family
    signs: tuple[str, ...]  # files that show it
    starter: Callable[[Path], Starter]


class Found(NamedTuple):
    """A project in a folder, relative to the root; "" is the root itself."""

    folder: str
    kind: Kind


_KINDS = (
    Kind("python", python.SIGNS, python.starter),
    Kind("rust", compiled.RUST_SIGNS, compiled.rust),
    Kind("node", node.SIGNS, node.starter),
    Kind("go", compiled.GO_SIGNS, compiled.go),
    Kind("java", compiled.MAVEN_SIGNS, compiled.maven),
    Kind("java", compiled.GRADLE_SIGNS, compiled.gradle),
)
_RUNNERS = (
    Kind("just", runners.JUST_SIGNS, runners.just),
    Kind("make", runners.MAKE_SIGNS, runners.make),
    Kind("cmake", runners.CMAKE_SIGNS, runners.cmake),
)


def recognized(root: Path) -> dict[str, Starter]:
    """Folder -> its project, the root's ("") first.

    A folder below counts where no folder around it is of its family. Phases that one of several
    has and another has not are there in all, since a pipeline runs them in each.
    """
    found = {each.folder: each.kind.starter(root / each.folder) for each in _find(root)}
    if not found:
        found[""] = _without_manager(root)
    return _aligned(found) if len(found) > 1 else found


def _without_manager(root: Path) -> Starter:
    """A project that no package manager's file shows."""
    runner = next((kind for kind in _RUNNERS if _shows(root, kind)), None)
    if runner:
        return runner.starter(root)
    plain = any("/" not in name and name.endswith(".py") for name in files_below(root))
    return python.starter(root) if plain else runners.unknown()


def _find(root: Path) -> Iterator[Found]:
    families: dict[str, set[str]] = {}
    for folder in _folders(root):
        around = {
            family for outer, own in families.items() if _is_below(folder, outer) for family in own
        }
        kind = next((kind for kind in _KINDS if _shows(root / folder, kind)), None)
        if kind is not None and kind.family not in around:
            families.setdefault(folder, set()).add(kind.family)
            yield Found(folder, kind)


def _folders(root: Path, folder: str = "", depth: int = 0) -> Iterator[str]:
    yield folder
    if depth == _DEPTH:
        return
    try:
        with os.scandir(root / folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        if not name.startswith(".") and name not in SKIPPED | _ASIDE:
            yield from _folders(root, f"{folder}/{name}" if folder else name, depth + 1)


def _is_below(folder: str, outer: str) -> bool:
    return not outer or folder.startswith(f"{outer}/")


def _shows(folder: Path, kind: Kind) -> bool:
    return any(is_file(folder / sign) for sign in kind.signs)


def _aligned(found: dict[str, Starter]) -> dict[str, Starter]:
    names = dict.fromkeys(
        phase.name
        for name in ("init", "build", "test", "validate")
        for starter in found.values()
        for phase in starter.phases
        if phase.name == name
    )
    return {
        folder: msgspec.structs.replace(
            starter, phases=tuple(_phase(starter, name) for name in names)
        )
        for folder, starter in found.items()
    }


def _phase(starter: Starter, name: str) -> StarterPhase:
    own = [phase for phase in starter.phases if phase.name == name]
    return own[0] if own else StarterPhase(name, "Nothing to do in this folder")
