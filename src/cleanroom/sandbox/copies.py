"""Workspaces that are copies, where no overlay can be mounted: making one, and telling what was changed in it since the last look.

A change is told by what the kernel keeps of a file and its owner cannot set back: number, size, mode and the time of the last change of any of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.sandbox import layers

_CLONE = 0x40049409  # FICLONE: the copy shares its blocks with the original until one is written

Owner = tuple[int, int] | None


class Mark(NamedTuple):
    """What a path was at a look."""

    inode: int
    mode: int
    size: int
    changed_ns: int


Marks = dict[str, Mark]


def copy(source: Path, target: Path, *, owner: Owner = None, masked: Collection[str] = ()) -> list[str]:
    """Copy a project to `target`, which exists, for `owner` (user, group) where one is given; returns what could not be read.

    Links stay links, holes stay holes, hard links become files of their own. Sockets, devices and FIFOs are left out. `masked` folders are there and empty.
    """
    unread: list[str] = []
    folders: list[tuple[str, os.stat_result]] = []
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            items = list(os.scandir(source / inside))
        except OSError:
            unread.append(inside)
            continue
        for item in items:
            path = f"{inside}/{item.name}" if inside else item.name
            info = item.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.mkdir(target / path, 0o700)
                folders.append((path, info))
                if path not in masked:
                    pending.append(path)
            elif not _copy_one(item, info, target / path, owner):
                unread.append(path)
    for path, info in reversed(folders):  # the innermost first: what is made in a folder changes its time
        _settle(target / path, info, owner)
    _settle(target, source.stat(), owner)
    return unread


def _copy_one(item: os.DirEntry[str], info: os.stat_result, target: Path, owner: Owner) -> bool:
    """False where it may not be read."""
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(item.path), target)
        if owner is not None:
            os.chown(target, *owner, follow_symlinks=False)
        return True
    if not stat.S_ISREG(info.st_mode):
        return True
    try:
        if not _cloned(item.path, target):
            layers.copy_file(Path(item.path), target)
    except PermissionError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        return False
    _settle(target, info, owner)
    return True


def _cloned(source: str, target: Path) -> bool:
    """Let the copy share its blocks, where the file system can."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(writing, _CLONE, reading)
        except OSError:
            return False
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return True


def _settle(target: Path, info: os.stat_result, owner: Owner) -> None:
    """Mode and times as they were; a folder of the copy can always be entered and written by its owner."""
    if owner is not None:
        os.chown(target, *owner, follow_symlinks=False)
    os.chmod(target, stat.S_IMODE(info.st_mode) & 0o777 | (0o700 if stat.S_ISDIR(info.st_mode) else 0))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def look(folder: Path, masked: Collection[str] = ()) -> Marks:
    """What is there now, parents before children; at most `layers.ENTRIES_MAX` paths."""
    return dict(_marks(folder, masked))


def _marks(folder: Path, masked: Collection[str]) -> Iterator[tuple[str, Mark]]:
    pending, seen = [""], 0
    while pending:
        inside = pending.pop()
        with contextlib.suppress(OSError):
            for item in sorted(os.scandir(folder / inside), key=lambda item: item.name):
                path = f"{inside}/{item.name}" if inside else item.name
                if path in masked:
                    continue
                info = item.stat(follow_symlinks=False)
                yield path, Mark(info.st_ino, info.st_mode, info.st_size, info.st_ctime_ns)
                seen += 1
                if seen > layers.ENTRIES_MAX:
                    return
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)


def changes(copy_root: Path, project: Path, before: Marks, after: Marks, visible: Sequence[str]) -> list[layers.Entry]:
    """What differs between two looks, in the words of `layers.changes`: parents before children, deletions where they happened."""
    found: list[layers.Entry] = []
    gone = {path for path in before if path not in after or _kind(before[path]) != _kind(after[path])}
    for path in sorted({*after, *gone}):
        if path not in after:
            if os.path.dirname(path) not in gone and os.path.lexists(project / path):  # what lay in a folder that is gone went with it
                found.append(layers.Entry(path, "deleted"))
        elif before.get(path) != after[path]:
            found += layers.entry(copy_root, path, project, visible)
        if len(found) >= layers.ENTRIES_MAX:
            return [*found, layers.Entry("", "refused", reason=f"more than {layers.ENTRIES_MAX} changes")]
    return found


def _kind(mark: Mark) -> int:
    return stat.S_IFMT(mark.mode)
