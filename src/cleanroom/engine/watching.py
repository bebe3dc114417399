"""Changes of a project's files, found by looking at their times.

Left out are `.git`, `.ggen`, caches of tools, what git ignores, what a run itself wrote, and a file
that the command's own output goes to.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from cleanroom.backends.base import Change
from cleanroom.engine import own_writes
from cleanroom.engine.own_writes import OwnWrites, Stamp
from cleanroom.engine.phase_cache.keys import RESERVED, TOOL_CACHES
from cleanroom.engine.phases.ignore_files import HostIgnores

_LEFT_OUT = frozenset((*RESERVED, *TOOL_CACHES))

# Absolute path of a file or link -> its state.
State = Mapping[str, Stamp]
# Of folders, by absolute paths, those that are left out.
Ignored = Callable[[Iterable[str]], frozenset[str]]


class ProjectWatch:
    """The files of one project, as they were before a run and as they are."""

    def __init__(self, root: str, variables: Mapping[str, str]) -> None:
        """`variables`: of the caller, for where their git configuration lies."""
        self._root = os.path.realpath(root)
        self._variables = variables
        self._told = -1
        self._state: State = {}
        self._begin()

    def begin_run(self) -> None:
        """A run begins: before the process of the run is forked."""
        self._begin()
        self._told = os.memfd_create("own-writes")

    def in_run(self) -> None:
        """This is the process of the run."""
        own_writes.tell_to(self._told)

    def end_run(self) -> tuple[str, ...]:
        """The run has ended; returns what others changed meanwhile, relative to the project."""
        own = own_writes.read(self._told)
        os.close(self._told)
        before = self._state
        self._begin()
        return self._shown(others(before, self._state, own))

    def changed(self) -> tuple[str, ...]:
        """What has changed since the last look, relative to the project."""
        before, self._state = self._state, scan(self._root, self._ignored_folders)
        return self._shown(others(before, self._state, OwnWrites({})))

    def _begin(self) -> None:
        self._ignores = HostIgnores(self._root, self._variables, time.time_ns())
        self._judged: dict[str, bool] = {}
        self._state = scan(self._root, self._ignored_folders)

    def _shown(self, paths: Iterable[str]) -> tuple[str, ...]:
        inside = [os.path.relpath(path, self._root) for path in paths]
        changes = [Change(path=path, kind="file") for path in inside]
        ignored = self._ignores.covered(changes) if changes else frozenset()
        return tuple(
            path
            for path in inside
            if path not in ignored and not _is_own_output(os.path.join(self._root, path))
        )

    def _ignored_folders(self, folders: Iterable[str]) -> frozenset[str]:
        """Judge each folder once: the repository's index is read for that."""
        asked = list(folders)
        new = {
            os.path.relpath(path, self._root): path for path in asked if path not in self._judged
        }
        if new:
            found = self._ignores.covered([Change(path=path, kind="directory") for path in new])
            self._judged |= {path: inside in found for inside, path in new.items()}
        return frozenset(path for path in asked if self._judged[path])


def _is_own_output(path: str) -> bool:
    """Whether this process writes its output there: what it says of a run would start another."""
    with suppress(OSError):
        found = os.lstat(path)
        return any(os.path.samestat(found, os.fstat(stream)) for stream in (1, 2))
    return False


def others(before: State, after: State, own: OwnWrites) -> list[str]:
    """The paths that differ and that are not as the run left them, sorted."""
    if own.anything:
        return []
    return sorted(
        path
        for path in before.keys() | after.keys()
        if before.get(path) != (now := after.get(path))
        and not (path in own.stamps and own.stamps[path] == now)
    )


def scan(root: str, ignored: Ignored) -> State:
    """The state of all files and links below `root`, a level of folders at a time."""
    found: dict[str, Stamp] = {}
    level = [root]
    while level:
        below: list[str] = []
        for folder in level:
            _list(folder, found, below)
        left_out = ignored(below) if below else frozenset()
        level = [folder for folder in below if folder not in left_out]
    return found


def _list(folder: str, found: dict[str, Stamp], below: list[str]) -> None:
    try:
        with os.scandir(folder) as items:
            names = [item.name for item in items]
    except OSError:
        return  # gone meanwhile, or not to be read: the run tells
    for name in names:
        path = os.path.join(folder, name)
        if name in _LEFT_OUT or (state := own_writes.stamp(path)) is None:
            continue
        if stat.S_ISDIR(state.mode):
            below.append(path)
        else:
            found[path] = state
