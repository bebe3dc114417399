"""The layers of one overlay as the host has them: which of them a path comes from.

The upper layer is mounted meanwhile, and hostile: it is only looked at, through descriptors, and no
link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cleanroom.core.beneath import open_beneath
from cleanroom.sandbox.filesystem.layers import is_opaque
from cleanroom.sandbox.filesystem.trees import ITSELF, lstat_at

Inode = tuple[int, int]
# Paths of one layer that are looked at for names of one file.
_PATHS_MAX = 500_000
_TOP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _Found(NamedTuple):
    """What one layer has at a path."""

    # None: nothing; a whiteout has a status
    info: os.stat_result | None
    # whether layers below are hidden there
    hides: bool


class LayerStack:
    """One overlay, whose folders are opened when they are first asked for."""

    def __init__(self, target: str, folders: Sequence[str]) -> None:
        """`target` is its path inside, `folders` are the host's, the upper one first."""
        self.prefix = target.rstrip("/") + "/"
        self._folders = tuple(folders)
        self._held: dict[int, int] = {}
        # of a layer: inode -> its names, of files with several
        self._names: dict[int, dict[Inode, list[str]]] = {}
        # layer and folder -> whether a file in it has several names; asked again for every rename
        self._linked: dict[tuple[int, str], bool] = {}

    def close(self) -> None:
        while self._held:
            os.close(self._held.popitem()[1])

    def is_merged(self, path: str) -> bool:
        """Whether the folder at `path` below the target has a part in a lower layer.

        Raises:
            OSError: a layer may not be looked at.
        """
        parts = path.split("/")
        for index in range(len(self._folders)):
            found = self._look(index, parts)
            is_folder = found.info is not None and stat.S_ISDIR(found.info.st_mode)
            if is_folder and index > 0:
                return True
            if found.hides:
                return False
        return False

    def other_names(self, path: str) -> list[str]:
        """Other names, below the target, of the file at `path` that a write would split from it.

        Raises:
            OSError: a layer may not be looked at.
        """
        index, info = self._provider(path)
        # What the upper layer has is not copied up any more.
        if not index or info is None or info.st_nlink < 2:
            return []
        known = self._names_in(index).get((info.st_dev, info.st_ino), [])
        return [name for name in known if name != path and self._provider(name)[0] == index]

    def linked_below(self, path: str) -> list[list[str]]:
        """Names, below the target, of each file that a move of the folder at `path` would split.

        Raises:
            OSError: a layer may not be looked at.
        """
        found = []
        for index in range(1, len(self._folders)):
            if not self._has_several_names(index, path):
                continue
            for names in self._names_in(index).values():
                if len(names) > 1 and any(name.startswith(f"{path}/") for name in names):
                    found.append([name for name in names if self._provider(name)[0] == index])
        return [names for names in found if len(names) > 1]

    def _has_several_names(self, index: int, path: str) -> bool:
        """Whether a file below `path` of a lower layer, which stays as it is, has several names."""
        if (index, path) not in self._linked:
            found = next(_files_with_several_names(self._top(index), path), None)
            self._linked[index, path] = found is not None
        return self._linked[index, path]

    def _names_in(self, index: int) -> dict[Inode, list[str]]:
        if index not in self._names:
            self._names[index] = {}
            for path, info in _files_with_several_names(self._top(index), ""):
                self._names[index].setdefault((info.st_dev, info.st_ino), []).append(path)
        return self._names[index]

    def _provider(self, path: str) -> tuple[int, os.stat_result | None]:
        """Index of the layer that a regular file comes from, and its status there; -1: none."""
        parts = path.split("/")
        for index in range(len(self._folders)):
            found = self._look(index, parts)
            if found.info is not None and stat.S_ISREG(found.info.st_mode):
                return index, found.info
            if found.hides:
                break
        return -1, None

    def _look(self, index: int, parts: Sequence[str]) -> _Found:
        """What a layer has at a path, and whether it hides what is below."""
        at, hides = os.dup(self._top(index)), False
        try:
            for part in parts[:-1]:
                info = lstat_at(part, at)
                if info is None:
                    return _Found(None, hides)
                if not stat.S_ISDIR(info.st_mode):
                    return _Found(None, hides=True)
                deeper = os.open(part, ITSELF | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = deeper
                hides = hides or is_opaque(at)
            info = lstat_at(parts[-1], at)
            if info is None:
                return _Found(None, hides)
            if not stat.S_ISDIR(info.st_mode):
                return _Found(info, hides=True)
            with _folder(parts[-1], at) as folder:
                return _Found(info, hides or is_opaque(folder))
        finally:
            os.close(at)

    def _top(self, index: int) -> int:
        if index not in self._held:
            self._held[index] = os.open(self._folders[index], _TOP)
        return self._held[index]


def _files_with_several_names(top: int, path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files with several names at and below a path of a layer, among its first paths."""
    pending, seen = [path], 0
    while pending:
        inside = pending.pop()
        with contextlib.suppress(OSError), _listed(inside, top) as items:
            # one by one: a folder may have more names than there is memory
            for item in items:
                seen += 1
                if seen > _PATHS_MAX:
                    return
                below = f"{inside}/{item.name}" if inside else item.name
                if item.is_dir(follow_symlinks=False):
                    pending.append(below)
                elif item.is_file(follow_symlinks=False):
                    info = item.stat(follow_symlinks=False)
                    if info.st_nlink > 1:
                        yield below, info


@contextlib.contextmanager
def _listed(path: str, at: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What is in a folder below `at`, in any order."""
    held = open_beneath(at, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(held) as items:
            yield items
    finally:
        os.close(held)


@contextlib.contextmanager
def _folder(path: str, at: int) -> Iterator[int]:
    held = open_beneath(at, path, ITSELF | os.O_DIRECTORY)
    try:
        yield held
    finally:
        os.close(held)
