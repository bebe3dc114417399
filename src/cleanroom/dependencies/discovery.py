"""Where a project keeps its lock files: a walk over few folders that opens no link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cleanroom.core.beneath import Folder, open_beneath
from cleanroom.model.errors import ProjectError

DEPTH_MAX = 3  # folders below the root, as in services/api/requirements.txt
FOLDERS_MAX = 512
FILE_MAX = 16 << 20  # of a lock file; npm's of large monorepos have 5 MB
# Of all files that are read: they stay in memory until the packages are laid out.
ALL_MAX = 128 << 20
# Folders that hold others' packages, what a build made, or samples that nothing installs.
SKIPPED = frozenset(
    (
        *("node_modules", "bower_components", "vendor", "third_party", "site-packages"),
        *("target", "dist", "build", "out", "venv", "env", "virtualenv", "__pycache__"),
        *("test", "tests", "testdata", "fixtures", "__fixtures__", "examples", "example"),
        *("samples", "docs", "doc", "bench", "benches", "benchmarks", "templates", "snapshots"),
    )
)


class Reading:
    """How much of a project was read, for all of its folders."""

    def __init__(self) -> None:
        self._bytes = 0

    def count(self, path: str, size: int) -> None:
        """Count a file of this size.

        Raises:
            ProjectError: it is too large, or there are too many.
        """
        self._bytes += size
        if size > FILE_MAX:
            raise _too_much(path, f"one of at most {FILE_MAX >> 20} MiB, found a larger one")
        if self._bytes > ALL_MAX:
            raise _too_much(path, f"lock files of {ALL_MAX >> 20} MiB in all, found more")


class ProjectFolder:
    """One folder of a project, read through no link and never out of the project."""

    def __init__(self, root: Folder, path: str, reading: Reading | None = None) -> None:
        """`path` is relative to the root, "" for the root itself."""
        self._root = root
        self._reading = reading or Reading()
        self.path = path
        try:
            with root.folder(path) as opened:
                self.names: frozenset[str] = frozenset(opened.names())
        except OSError:
            self.names = frozenset()

    def inside(self, name: str) -> str:
        """The path of `name`, which may have folders, relative to the project's root."""
        return os.path.normpath(os.path.join(self.path, name))

    def read(self, name: str) -> bytes | None:
        """The content of a regular file of this folder or below the root ("../constraints.txt").

        None where there is none, or a link leads to it.

        Raises:
            ProjectError: it is larger than any lock file, or too much was read already.
        """
        path = self.inside(name)
        if path.startswith(("..", "/")) or "\0" in path:
            return None
        try:
            with self._root.reading(path) as stream:
                found = stream.read(FILE_MAX + 1)
        except OSError:
            return None
        self._reading.count(path, len(found))
        return found

    def files(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those of these files that are there, by their paths relative to the root."""
        read = ((self.inside(name), self.read(name)) for name in names)
        return {path: content for path, content in read if content is not None}

    def names_in(self, name: str) -> list[str]:
        """The names in a folder of this one; none where there is no such folder."""
        try:
            with self._root.folder(self.inside(name)) as opened:
                return opened.names()
        except OSError:
            return []

    def has_folder(self, name: str) -> bool:
        """Whether it has a folder of this name that holds anything."""
        try:
            with self._root.folder(self.inside(name)) as opened:
                return bool(opened.names())
        except OSError:
            return False


def folders(root: Folder, workspaces: Iterable[str] = ()) -> Iterator[ProjectFolder]:
    """The folders in which lock files are looked for: the root, declared workspaces (relative
    paths), and folders a few levels below that are neither hidden nor made by tools.
    """
    seen: set[str] = set()
    reading = Reading()
    pending = ["", *sorted(workspaces)]
    while pending and len(seen) < FOLDERS_MAX:
        path = pending.pop(0)
        if path in seen:
            continue
        seen.add(path)
        found = ProjectFolder(root, path, reading)
        if "pyvenv.cfg" in found.names:
            continue  # a virtual environment, whatever it is called
        yield found
        if path.count("/") + bool(path) < DEPTH_MAX:
            pending += [
                found.inside(name)
                for name in sorted(found.names)
                if _is_searched(root, found, name)
            ]


def _is_searched(root: Folder, around: ProjectFolder, name: str) -> bool:
    if name.startswith(".") or name.lower() in SKIPPED:
        return False
    try:
        descriptor = open_beneath(root.descriptor, around.inside(name), os.O_PATH)
    except OSError:
        return False
    try:
        return stat.S_ISDIR(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _too_much(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected {why}",
        hint="no package manager writes so much: look at the file",
        where=f"{path}:1:1",
    )


def opened(root: Path) -> Folder:
    """The project's folder, held open."""
    return Folder.at(root)
