"""Copied trees: workspaces where no overlay can be mounted, and what changed in them.

Two snapshots of a copy tell what changed between them.
A snapshot has of each path what its owner cannot set back: inode, size, mode and ctime.
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
    NEW_FILE,
    Tree,
    lstat_at,
    open_file,
    proc_path,
    set_mode,
)
from cleanroom.sandbox.kernel import constants

Owner = tuple[int, int] | None


class PathState(NamedTuple):
    """A path at the moment of a snapshot."""

    inode: int
    mode: int
    size: int
    # ctime: utimensat(2) cannot set it
    changed_ns: int


# path relative to the top -> its state; parents before children
Snapshot = dict[str, PathState]


def copy(
    source: Path, target: Path, *, owner: Owner = None, masked: Collection[str] = ()
) -> list[str]:
    """Copy a project to the existing folder `target`; returns the paths that could not be read.

    The copy belongs to `owner` (user, group) if one is given.
    Symbolic links, hard links and holes are kept; sockets, devices and FIFOs are left out.
    Folders in `masked` are empty in the copy.
    """
    with (
        Folder.at(source) as here,
        Folder.at(target) as there,
        Tree(here.descriptor, 0) as sources,
        Tree(there.descriptor, ALL) as targets,
    ):
        return _TreeCopy(sources, targets, owner).copy_all(masked)


class _TreeCopy:
    """One copy in progress."""

    def __init__(self, sources: Tree, targets: Tree, owner: Owner) -> None:
        self._sources, self._targets, self._owner = sources, targets, owner
        # inode in the source -> path of its first name
        self._first_names: dict[tuple[int, int], str] = {}

    def copy_all(self, masked: Collection[str]) -> list[str]:
        """Copy everything; returns the paths that could not be read."""
        unread: list[str] = []
        folders = [("", os.fstat(self._sources.enter("")))]
        pending = [""]
        while pending:
            inside = pending.pop()
            try:
                children = self._sources.entries(inside)
            except OSError:
                unread.append(inside)
                continue
            for name, info in children:
                path = f"{inside}/{name}" if inside else name
                if stat.S_ISDIR(info.st_mode):
                    # Closed to others until the copy is complete.
                    os.mkdir(name, 0o700, dir_fd=self._targets.enter(inside))
                    folders.append((path, info))
                    pending += [] if path in masked else [path]
                elif not self._copy_one(path, info):
                    unread.append(path)
        # Parents come last: making an entry in a folder changes its mtime.
        for path, info in reversed(folders):
            self._finish_folder(path, info)
        return unread

    def _copy_one(self, path: str, info: os.stat_result) -> bool:
        """Copy what is no folder; False if it may not be read."""
        inside, _, name = path.rpartition("/")
        source, target = self._sources.enter(inside), self._targets.enter(inside)
        if stat.S_ISLNK(info.st_mode):
            # The text is copied as it is: links are judged when they are written back.
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=target, follow_symlinks=False)
            return True
        if not stat.S_ISREG(info.st_mode):
            return True
        first = self._first_names.get((info.st_dev, info.st_ino))
        if first is not None:
            self._link_to(first, path)
            return True
        try:
            reading, info = open_file(name, source)
        except PermissionError:
            return False
        try:
            self._copy_file(name, target, reading, info)
        finally:
            os.close(reading)
        if info.st_nlink > 1:
            self._first_names[info.st_dev, info.st_ino] = path
        return True

    def _link_to(self, first: str, path: str) -> None:
        folder, _, known = first.rpartition("/")
        inside, _, name = path.rpartition("/")
        # `enter` closes the folder of the first name on its way to the other.
        at = os.dup(self._targets.enter(folder))
        try:
            os.link(known, name, src_dir_fd=at, dst_dir_fd=self._targets.enter(inside))
        finally:
            os.close(at)

    def _copy_file(self, name: str, at: int, reading: int, info: os.stat_result) -> None:
        sink = os.open(name, NEW_FILE, 0o600, dir_fd=at)
        try:
            if not _clone_blocks(reading, sink):
                copy_content(reading, sink, info)
            # The mtime comes last: write(2) sets it.
            if self._owner is not None:
                os.fchown(sink, *self._owner)
            os.fchmod(sink, permissions(info))
            os.utime(sink, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(sink)

    def _finish_folder(self, path: str, info: os.stat_result) -> None:
        """Set owner, mode and times; the owner may always enter and write the copy of a folder."""
        folder = self._targets.enter(path)
        if self._owner is not None:
            os.chown(proc_path(folder), *self._owner)
        set_mode(folder, permissions(info) | ALL)
        os.utime(proc_path(folder), ns=(info.st_atime_ns, info.st_mtime_ns))


def _clone_blocks(reading: int, sink: int) -> bool:
    """Share the blocks of a file by ioctl_ficlone(2); False if the file system cannot."""
    try:
        # EOPNOTSUPP without reflinks, EXDEV between two file systems.
        fcntl.ioctl(sink, constants.FICLONE, reading)
    except OSError:
        return False
    return True


def snapshot(folder: Folder, masked: Collection[str] = ()) -> Snapshot:
    """The state of each path but the `masked` ones; at most `changes.ENTRIES_MAX` paths."""
    with Tree(folder.descriptor, LIST) as tree:
        return dict(_states(tree, masked))


def _states(tree: Tree, masked: Collection[str]) -> Iterator[tuple[str, PathState]]:
    pending, seen = [""], 0
    while pending:
        inside = pending.pop()
        with contextlib.suppress(OSError):
            for name, info in tree.entries(inside):
                path = f"{inside}/{name}" if inside else name
                if path in masked:
                    continue
                state = PathState(info.st_ino, info.st_mode, info.st_size, info.st_ctime_ns)
                yield path, state
                seen += 1
                if seen > layer_changes.ENTRIES_MAX:
                    return
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)


def find_changes(
    copied: Folder,
    project: Folder,
    before: Snapshot,
    after: Snapshot,
    visible: Sequence[str],
) -> list[Entry]:
    """Differences between two snapshots of a copy, as `changes.find_changes` gives it."""
    found: list[Entry] = []
    gone = {path for path in before if path not in after}
    gone |= {path for path in before.keys() & after if _kind(before[path]) != _kind(after[path])}
    with Tree(copied.descriptor, LIST) as ours, Tree(project.descriptor, 0) as theirs:
        for path in sorted({*after, *gone}):
            if path in after and _is_unchanged(before.get(path), after[path]):
                continue
            if path not in after and os.path.dirname(path) in gone:
                # The deletion of the folder that it lay in says so already.
                continue
            entry = _entry(path, path in after, ours, theirs)
            if entry is not None:
                found.append(entry)
            if len(found) >= layer_changes.ENTRIES_MAX:
                found.append(layer_changes.too_many_changes())
                break
    return layer_changes.refuse_outward_links(found, project, visible)


def _is_unchanged(before: PathState | None, after: PathState) -> bool:
    """Whether a path has no change of its own: of a folder only the mode counts."""
    if before is not None and stat.S_ISDIR(after.mode):
        return before.mode == after.mode
    return before == after


def _entry(path: str, exists: bool, ours: Tree, theirs: Tree) -> Entry | None:
    """The change of one path against the project; None if there is none."""
    host = layer_changes.project_status(path, theirs)
    if not exists:
        return layer_changes.deletion(path, host)
    inside, _, name = path.rpartition("/")
    at = ours.enter(inside)
    info = lstat_at(name, at)
    return None if info is None else layer_changes.compare(path, info, host, at)


def _kind(state: PathState) -> int:
    return stat.S_IFMT(state.mode)
