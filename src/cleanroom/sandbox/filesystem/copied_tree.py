"""Workspaces that are copies, where no overlay can be mounted:
making one, and telling what was changed in it since the last look.

A change is told by what the kernel keeps of a file and its owner cannot set back:
number, size, mode and the time of the last change of any of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import changes as layer_changes
from cleanroom.sandbox.filesystem.changes import Entry, permissions
from cleanroom.sandbox.filesystem.file_copy import copy_content
from cleanroom.sandbox.filesystem.trees import (
    ALL,
    LIST,
    Tree,
    lstat_at,
    open_file,
    proc_path,
    set_mode,
)
from cleanroom.sandbox.kernel import constants

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Owner = tuple[int, int] | None


class Mark(NamedTuple):
    """What a path was at a look."""

    inode: int
    mode: int
    size: int
    changed_ns: int


Marks = dict[str, Mark]


def copy(
    source: Path, target: Path, *, owner: Owner = None, masked: Collection[str] = ()
) -> list[str]:
    """Copy a project to `target`, which exists, for `owner` (user, group) where one is given;
    returns what could not be read.

    Links stay links, holes stay holes, and names of one file stay that.
    Sockets, devices and FIFOs are left out.
    `masked` folders are there and empty.
    """
    with (
        Folder.at(source) as here,
        Folder.at(target) as there,
        Tree(here.descriptor, 0) as sources,
        Tree(there.descriptor, ALL) as targets,
    ):
        return _Copying(sources, targets, owner).all(masked)


class _Copying:
    """One copy being made."""

    def __init__(self, sources: Tree, targets: Tree, owner: Owner) -> None:
        self._sources, self._targets, self._owner = sources, targets, owner
        self._names: dict[tuple[int, int], str] = {}  # inode -> the path of its first name

    def all(self, masked: Collection[str]) -> list[str]:
        unread: list[str] = []
        folders = [("", os.fstat(self._sources.enter("")))]
        pending = [""]
        while pending:
            inside = pending.pop()
            try:
                listed = self._sources.entries(inside)
            except OSError:
                unread.append(inside)
                continue
            for name, info in listed:
                path = f"{inside}/{name}" if inside else name
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(name, 0o700, dir_fd=self._targets.enter(inside))
                    folders.append((path, info))
                    pending += [] if path in masked else [path]
                elif not self._one(path, info):
                    unread.append(path)
        for path, info in reversed(folders):  # a parent later: what is made in it changes its time
            self._settle(path, info)
        return unread

    def _one(self, path: str, info: os.stat_result) -> bool:
        """False where it may not be read."""
        inside, _, name = path.rpartition("/")
        source, target = self._sources.enter(inside), self._targets.enter(inside)
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=target, follow_symlinks=False)
            return True
        if not stat.S_ISREG(info.st_mode):
            return True
        first = self._names.get((info.st_dev, info.st_ino))
        if first is not None:
            folder, _, known = first.rpartition("/")
            at = os.dup(self._targets.enter(folder))
            try:
                os.link(known, name, src_dir_fd=at, dst_dir_fd=self._targets.enter(inside))
            finally:
                os.close(at)
            return True
        try:
            reading, info = open_file(name, source)
        except PermissionError:
            return False
        try:
            self._file(name, target, reading, info)
        finally:
            os.close(reading)
        if info.st_nlink > 1:
            self._names[info.st_dev, info.st_ino] = path
        return True

    def _file(self, name: str, at: int, reading: int, info: os.stat_result) -> None:
        sink = os.open(name, _NEW_FILE, 0o600, dir_fd=at)
        try:
            if not _cloned(reading, sink):
                copy_content(reading, sink, info)
            if self._owner is not None:
                os.fchown(sink, *self._owner)
            os.fchmod(sink, permissions(info))
            os.utime(sink, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(sink)

    def _settle(self, path: str, info: os.stat_result) -> None:
        """Mode and times as they were; its owner can always enter and write such a folder."""
        folder = self._targets.enter(path)
        if self._owner is not None:
            os.chown(proc_path(folder), *self._owner)
        set_mode(folder, permissions(info) | ALL)
        os.utime(proc_path(folder), ns=(info.st_atime_ns, info.st_mtime_ns))


def _cloned(reading: int, sink: int) -> bool:
    """Let the copy share its blocks, where the file system can."""
    try:
        fcntl.ioctl(sink, constants.FICLONE, reading)
    except OSError:
        return False
    return True


def look(folder: Folder, masked: Collection[str] = ()) -> Marks:
    """What is there now, parents before children; at most `layer_changes.ENTRIES_MAX` paths."""
    with Tree(folder.descriptor, LIST) as tree:
        return dict(_marks(tree, masked))


def _marks(tree: Tree, masked: Collection[str]) -> Iterator[tuple[str, Mark]]:
    pending, seen = [""], 0
    while pending:
        inside = pending.pop()
        with contextlib.suppress(OSError):
            for name, info in tree.entries(inside):
                path = f"{inside}/{name}" if inside else name
                if path in masked:
                    continue
                yield path, Mark(info.st_ino, info.st_mode, info.st_size, info.st_ctime_ns)
                seen += 1
                if seen > layer_changes.ENTRIES_MAX:
                    return
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)


def changes(
    copied: Folder,
    project: Folder,
    before: Marks,
    after: Marks,
    visible: Sequence[str],
) -> list[Entry]:
    """What differs between two looks, in the words and the order of `changes.find_changes`."""
    found: list[Entry] = []
    gone = {path for path in before if path not in after}
    gone |= {path for path in before.keys() & after if _kind(before[path]) != _kind(after[path])}
    with Tree(copied.descriptor, LIST) as ours, Tree(project.descriptor, 0) as theirs:
        for path in sorted({*after, *gone}):
            if path in after and _is_unchanged(before.get(path), after[path]):
                continue
            if path not in after and os.path.dirname(path) in gone:
                continue  # it went with the folder that it lay in
            found += _entry(path, path in after, ours, theirs)
            if len(found) >= layer_changes.ENTRIES_MAX:
                found.append(layer_changes.too_many_changes())
                break
    return layer_changes.refuse_outward_links(found, project, visible)


def _is_unchanged(before: Mark | None, after: Mark) -> bool:
    """Of a folder only the mode counts: what is in it has marks of its own."""
    if before is not None and stat.S_ISDIR(after.mode):
        return before.mode == after.mode
    return before == after


def _entry(path: str, is_there: bool, ours: Tree, theirs: Tree) -> list[Entry]:
    inside, _, name = path.rpartition("/")
    host = layer_changes.project_status(path, theirs)
    if not is_there:
        entry = layer_changes.deletion(path, host)
    else:
        at = ours.enter(inside)
        info = lstat_at(name, at)
        entry = None if info is None else layer_changes.compare(path, info, host, at)
    return [] if entry is None else [entry]


def _kind(mark: Mark) -> int:
    return stat.S_IFMT(mark.mode)
