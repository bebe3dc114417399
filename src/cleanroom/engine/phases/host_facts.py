"""Host facts: what the host has where changes would be written. Blocks.

No link below the project is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.backends.base import Change
from cleanroom.core.beneath import Folder
from cleanroom.core.paths import parent
from cleanroom.engine.phases.host_links import READ_FOLDER, link_ends
from cleanroom.engine.phases.project_links import ProjectLinks
from cleanroom.engine.phases.repositories import is_history_folder, made_repositories

# Paths that are looked through in a folder that a change removes; as many as there may be changes.
REMOVED_PATHS_MAX = 500_000
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class HostFacts(NamedTuple):
    """The host's side of a set of changes. Paths are relative to the project."""

    # covered by the host's own ignore files
    ignored: frozenset[str] = frozenset()
    # folders above those, covered too: at least the outermost one of each
    ignored_folders: frozenset[str] = frozenset()
    # Changes that remove or replace more than a file: path -> a path in it that is never removed,
    # or empty.
    lost: Mapping[str, str] = {}
    # changed folders that the host has
    folders: frozenset[str] = frozenset()
    # make.toml of the project and its workspaces
    files: frozenset[str] = frozenset()
    # paths that make.toml names to be run -> whether the host has them
    named: Mapping[str, bool] = {}
    # folders that git would take for a repository
    repositories: frozenset[str] = frozenset()
    # links of the host and changed ones
    links: ProjectLinks = ProjectLinks()
    # changes by which group or others may write what they could not write before
    opened_to_others: frozenset[str] = frozenset()


def read_host_facts(
    root: str,
    changes: Sequence[Change],
    *,
    files: Iterable[str] = (),
    named: Iterable[str] = (),
) -> HostFacts:
    """Read the facts of these changes; `files` and `named` are absolute, as in `plan.Plan`.

    Raises:
        OSError: the project is not there.
    """
    with Folder.at(Path(root)) as project:
        modes = Modes(project.descriptor)
        deciding = frozenset(_relative(root, files))
        run = {path: _is_file_or_link(modes.of(path)) for path in _relative(root, named)}
        protected = deciding | {path for path, exists in run.items() if exists}
        lost: dict[str, str] = {}
        folders: set[str] = set()
        opened: set[str] = set()
        for change in changes:
            mode = modes.of(change.path) if change.path else 0
            if opens_to_others(mode, change):
                opened.add(change.path)
            if stat.S_ISDIR(mode) and change.kind == "directory":
                folders.add(change.path)
            elif stat.S_ISDIR(mode) and change.kind != "refused":
                lost[change.path] = _protected_in(project.descriptor, change.path, protected)
            elif mode and change.kind in ("deleted", "directory"):
                lost[change.path] = ""
        return HostFacts(
            lost=lost,
            folders=frozenset(folders),
            files=deciding,
            named=run,
            repositories=made_repositories(changes, lambda path: bool(modes.of(path))),
            links=ProjectLinks(link_ends(root, changes, project.descriptor, modes.of)),
            opened_to_others=frozenset(opened),
        )


def opens_to_others(before: int, change: Change) -> bool:
    """Whether group or others may write by this change what they could not write before.

    `before` is the mode on the host, 0 for a new path.
    A new path that its group may write does not count: a umask of 002 is common.
    Nor does a lock that programs only hold: nobody reads or starts what others write there.
    """
    now = change.mode & _OTHERS_WRITE
    if not now or change.kind not in ("file", "directory") or _is_held_lock(change):
        return False
    is_same_kind = stat.S_ISDIR if change.kind == "directory" else stat.S_ISREG
    had = before if is_same_kind(before) else stat.S_IWGRP
    return bool(now & ~had)


def _is_held_lock(change: Change) -> bool:
    """Whether it is an empty file `.lock`, which uv makes for everybody in each `.venv`."""
    named = change.path.rpartition("/")[2] == ".lock"
    startable = change.mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return named and change.kind == "file" and not change.bytes and not startable


class Modes:
    """Modes of paths below an open folder; below something that is no folder nothing exists."""

    def __init__(self, folder: int) -> None:
        """The descriptor stays the caller's."""
        self._folder = folder
        self._is_folder: dict[str, bool] = {"": True}

    def of(self, path: str) -> int:
        """The mode; 0 if the path does not exist."""
        above = parent(path)
        if above not in self._is_folder:
            self._read_parents(above)
        return self._read(path) if self._is_folder[above] else 0

    def _read_parents(self, folder: str) -> None:
        """Read the outermost folder first, so that none is reached through a link."""
        parts = folder.split("/")
        exists = True
        for depth in range(1, len(parts) + 1):
            outer = "/".join(parts[:depth])
            if outer not in self._is_folder:
                self._is_folder[outer] = exists and stat.S_ISDIR(self._read(outer))
            exists = self._is_folder[outer]

    def _read(self, path: str) -> int:
        try:
            return os.stat(path, dir_fd=self._folder, follow_symlinks=False).st_mode
        except (OSError, ValueError):
            return 0


def _is_file_or_link(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _protected_in(project: int, path: str, protected: Collection[str]) -> str:
    """A path in a folder of the host that is never removed with it; empty if there is none."""
    seen = 0
    pending = [path]
    while pending and seen < REMOVED_PATHS_MAX:
        folder = pending.pop()
        for name, is_folder in _children(project, folder):
            inner = f"{folder}/{name}"
            if is_history_folder(name) or inner in protected:
                return inner
            if is_folder:
                pending.append(inner)
            seen += 1
    return ""


def _children(project: int, folder: str) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder; empty if it cannot be read."""
    try:
        descriptor = os.open(folder, READ_FOLDER, dir_fd=project)
    except OSError:
        return []
    try:
        with os.scandir(descriptor) as items:
            return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
    finally:
        os.close(descriptor)


def _relative(root: str, paths: Iterable[str]) -> Iterator[str]:
    """The paths below `root`, relative to it."""
    prefix = root.rstrip("/") + "/"
    return (path.removeprefix(prefix) for path in paths if path.startswith(prefix))
