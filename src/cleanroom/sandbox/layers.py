"""Copy-on-write layers on the host's side: reading what a phase changed, and bringing it back to the project.

A layer is the upper folder of an overlay. Files in it were written by the code under test and are hostile: nothing here follows a link, opens a
device or a FIFO, or waits. Only regular files, folders and links that stay inside come out; set-user-id bits do not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cleanroom.beneath import Folder

OPAQUE = "user.overlay.opaque"
ENTRIES_MAX = 500_000  # a monorepo's node_modules is a tenth of it; more is an attack or an accident
NEVER = (".git", ".ggen")
BLOCK_BYTES = 4096
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM)  # not the path's own fault


class Entry(NamedTuple):
    """One difference between a layer and the project. `path` is relative; kinds are those of `backends.base.Change`."""

    path: str
    kind: str
    bytes: int = 0
    reason: str = ""


class Outcome(NamedTuple):
    files: int
    bytes: int
    deleted: int
    conflicts: tuple[str, ...]
    refused: tuple[Entry, ...]
    failed: tuple[Entry, ...]  # the system did not let them be written


def make(folder: Path, like: Path, owner: tuple[int, int] | None = None) -> None:
    """Create an empty layer whose root looks like the project's own folder and belongs to `owner` (user, group) where one is given."""
    (folder / "work").mkdir(parents=True)
    (folder / "upper").mkdir()
    os.chmod(folder / "upper", stat.S_IMODE(like.stat().st_mode) | 0o700)
    if owner is not None:
        os.chown(folder / "upper", *owner)


def foreign(project: Path, entries_max: int = 5000, most: int = 3) -> list[str]:
    """Some files of the project that an ordinary user cannot copy up: of another owner or group, which no id map of theirs can name."""
    found: list[str] = []
    pending, seen = [str(project)], 0
    while pending and seen < entries_max and len(found) < most:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                seen += 1
                info = item.stat(follow_symlinks=False)
                if info.st_uid != os.geteuid() or info.st_gid != os.getegid():
                    found.append(os.path.relpath(item.path, project))
                elif stat.S_ISDIR(info.st_mode) and item.name not in NEVER:
                    pending.append(item.path)
    return found[:most]


def changes(upper: Path, project: Path, visible: Sequence[str] = ()) -> list[Entry]:
    """What differs, parents before children, deletions where they happened. `visible` are folders outside to which links may point."""
    found = []
    for entry in _walk(upper, project, "", visible):
        found.append(entry)
        if len(found) >= ENTRIES_MAX:
            found.append(Entry("", "refused", reason=f"more than {ENTRIES_MAX} changes"))
            break
    return found


def _walk(upper: Path, project: Path, inside: str, visible: Sequence[str]) -> Iterator[Entry]:
    folder = upper / inside if inside else upper
    names: set[str] = set()
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        names.add(item.name)
        path = f"{inside}/{item.name}" if inside else item.name
        yield from _entry(item, path, upper, project, visible)
    if inside and is_opaque(folder):
        yield from (Entry(f"{inside}/{name}", "deleted") for name in _names(project / inside) if name not in names)


def _entry(item: os.DirEntry[str], path: str, upper: Path, project: Path, visible: Sequence[str]) -> Iterator[Entry]:
    info = item.stat(follow_symlinks=False)
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0 and _told(path):
        yield Entry(path, "deleted")
        return
    yield from entry(upper, path, project, visible)
    if stat.S_ISDIR(info.st_mode) and _told(path):
        yield from _walk(upper, project, path, visible)


def entry(root: Path, path: str, project: Path, visible: Sequence[str]) -> list[Entry]:
    """What a path that is in `root` is to the project: nothing where both have a folder, and nothing of what is below one."""
    if not _told(path):
        return [Entry(path.encode(errors="surrogateescape").decode(errors="replace"), "refused", reason="its name is not UTF-8")]
    info = os.lstat(root / path)
    if stat.S_ISDIR(info.st_mode):
        return [] if _is_folder(project / path) else [Entry(path, "directory")]
    if stat.S_ISREG(info.st_mode):
        return [Entry(path, "file", info.st_size)]
    if stat.S_ISLNK(info.st_mode):
        leads_out = _leads_out(path, os.readlink(root / path), project, visible)
        return [Entry(path, "refused", reason=f"a link that leads out, to {leads_out}") if leads_out else Entry(path, "symlink")]
    return [Entry(path, "refused", reason=_kind(info.st_mode))]


def _told(path: str) -> bool:
    """Whether a name can be written down."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a block device"), (stat.S_ISCHR, "a character device"))
    return next((name for matches, name in kinds if matches(mode)), "not a file, folder or link")


def _leads_out(path: str, target: str, project: Path, visible: Sequence[str]) -> str:
    """Where a link leads if that is neither inside the project nor in a folder that every phase sees; else nothing."""
    absolute = os.path.normpath(os.path.join(project, os.path.dirname(path), target))
    within = (str(project), *visible)
    return "" if any(absolute == folder or absolute.startswith(folder.rstrip("/") + "/") for folder in within) else absolute


def is_opaque(folder: Path) -> bool:
    """Does a folder of a layer hide what is below it?"""
    try:
        return os.getxattr(folder, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if _is_folder(folder) else []
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


class Returner:
    """Brings layers' changes back to one project during one run. A path that someone else changed meanwhile is never overwritten."""

    def __init__(self, project: Path, began_ns: int) -> None:
        self._project = project
        self._began_ns = began_ns
        self._ours: dict[str, int] = {}  # path -> ctime after our own last write of it
        info = project.stat()
        self._owner = (info.st_uid, info.st_gid) if os.geteuid() == 0 else None  # whose the project's new files become

    def bring(self, upper: Path, entries: Iterable[Entry], conflicts: Path) -> Outcome:
        """Apply `entries` (as `changes` gave them) to the project; what conflicts is copied to the folder `conflicts` instead."""
        files = written = deleted = 0
        clashes: list[str] = []
        refused: list[Entry] = []
        failed: list[Entry] = []
        with _Folders(self._project) as folders:
            for entry in entries:
                if entry.kind == "refused":
                    refused.append(entry)
                    continue
                inside, _, name = entry.path.rpartition("/")
                try:
                    folder = folders.open(inside)
                    was = _status(name, folder)
                    if self._changed_meanwhile(was, entry):
                        clashes.append(entry.path)
                        self._set_aside(upper, entry, conflicts)
                        continue
                    written += _apply(entry.kind, f"{upper}/{entry.path}", name, folder, was)
                    self._remember(entry, name, folder)
                except OSError as error:
                    unwritten = failed if error.errno in DISK_ERRORS else refused
                    unwritten.append(Entry(entry.path, "refused", reason=os.strerror(error.errno or errno.EIO)))
                    continue
                files += entry.kind in ("file", "symlink")
                deleted += entry.kind == "deleted"
        return Outcome(files, written, deleted, tuple(clashes), tuple(refused), tuple(failed))

    def _changed_meanwhile(self, was: os.stat_result | None, entry: Entry) -> bool:
        """Has the host's own copy a later change than the run's beginning and our own last write?"""
        if was is None or (stat.S_ISDIR(was.st_mode) and entry.kind == "directory"):
            return False
        return was.st_ctime_ns > self._ours.get(entry.path, self._began_ns)

    def _remember(self, entry: Entry, name: str, folder: int) -> None:
        if entry.kind == "deleted":
            return
        with contextlib.suppress(FileNotFoundError):
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)
            self._ours[entry.path] = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ctime_ns

    def _set_aside(self, upper: Path, entry: Entry, conflicts: Path) -> None:
        if entry.kind == "file":
            target = conflicts / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(upper / entry.path, target)


class _Folders:
    """Folders of the project, reached component by component so that no link on the way is followed. Missing ones are made.

    The last one stays open: what is brought back comes folder by folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._inside: str | None = None
        self._descriptor = -1

    def open(self, inside: str) -> int:
        """A descriptor that is good until the next call."""
        if inside != self._inside:
            self._close()
            self._descriptor = _reach(self._root, inside)
            self._inside = inside
        return self._descriptor

    def _close(self) -> None:
        if self._inside is not None:
            self._inside = None
            os.close(self._descriptor)

    def __enter__(self) -> _Folders:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _reach(root: Path, inside: str) -> int:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in inside.split("/") if inside else ():
        try:
            deeper = _made_folder(name, descriptor)
        finally:
            os.close(descriptor)
        descriptor = deeper
    return descriptor


def _made_folder(name: str, at: int) -> int:
    try:
        return _open_folder(name, at)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=at)
        return _open_folder(name, at)


def _open_folder(name: str, at: int) -> int:
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)


def _status(name: str, at: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _apply(kind: str, source: str, name: str, at: int, was: os.stat_result | None) -> int:
    """One change; what `was` there gives way. Returns the bytes that were written."""
    if kind == "directory":
        _make_folder(name, at, source)
        return 0
    if kind == "file":
        return _replace_file(source, name, at, was)
    if was is not None:
        _remove(name, at, was)
    if kind == "symlink":
        os.symlink(os.readlink(source), name, dir_fd=at)
    return 0


def _remove(name: str, at: int, was: os.stat_result) -> None:
    if stat.S_ISDIR(was.st_mode):
        import shutil  # seldom, and with it come three compressors, which the keeper's start would pay for

        shutil.rmtree(name, dir_fd=at)
    else:
        os.unlink(name, dir_fd=at)


def _make_folder(name: str, at: int, model: str) -> None:
    mode = stat.S_IMODE(os.lstat(model).st_mode) & 0o777
    try:
        os.mkdir(name, mode, dir_fd=at)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=at)
        os.mkdir(name, mode, dir_fd=at)


def _replace_file(source: str, name: str, at: int, was: os.stat_result | None) -> int:
    """Copy beside the destination, then rename over it: a reader sees the old file or the new one."""
    passing = f".{name[:200]}.cleanroom-{os.getpid()}"
    try:
        size = _copy(source, os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at))
        if was is not None and stat.S_ISDIR(was.st_mode):
            _remove(name, at, was)
        os.rename(passing, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(passing, dir_fd=at)
        raise
    return size


def copy_file(source: Path, target: Path) -> int:
    """Copy one regular file of a layer, its holes kept and its set-user-id bits not; returns the bytes that hold data."""
    return _copy(str(source), os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _copy(source: str, sink: int) -> int:
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(reading)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if info.st_blocks * 512 >= info.st_size:
                copied = _copy_range(reading, sink, info.st_size)
            else:
                copied = _copy_data(reading, sink, info.st_size)
                os.ftruncate(sink, info.st_size)
            os.fchmod(sink, stat.S_IMODE(info.st_mode) & 0o777)
            os.utime(sink, ns=(info.st_atime_ns, info.st_mtime_ns))
            return copied
        finally:
            os.close(reading)
    finally:
        os.close(sink)


def _copy_data(reading: int, sink: int, size: int) -> int:
    """Copy the parts that hold data, without the end: a sparse giant stays sparse."""
    copied = at = 0
    while at < size:
        try:
            begin = os.lseek(reading, at, os.SEEK_DATA)
            end = os.lseek(reading, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                break
            begin, end = at, size
        os.lseek(reading, begin, os.SEEK_SET)
        os.lseek(sink, begin, os.SEEK_SET)
        copied += _copy_range(reading, sink, end - begin)
        at = end
    return copied


def _copy_range(reading: int, sink: int, length: int) -> int:
    done = 0
    while done < length:
        try:
            moved = os.copy_file_range(reading, sink, length - done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            moved = 0
        if not moved:  # also what a full disk may answer: writing says so
            piece = os.read(reading, min(1 << 20, length - done))
            if not piece:
                break
            moved = os.write(sink, piece)
            os.lseek(reading, moved - len(piece), os.SEEK_CUR)
        done += moved
    return done


def remove_tree(folder: Path) -> None:
    """Remove a folder that lies where nobody but this user puts anything. As `remove_beneath`."""
    with Folder.at(folder.parent) as around:
        remove_beneath(around.descriptor, folder.name)


def remove_beneath(around: int, name: str) -> None:
    """Remove a folder that hostile code may have filled: mode-000 folders, nesting deeper than a path can name. Never follows a link.

    Each inner folder is first moved to the top, so that no depth needs recursion, a long path or many descriptors.
    """
    top = _entered(around, name)
    prefix = f".{os.urandom(8).hex()}-"
    moved = 0
    pending: list[str] = [""]
    try:
        while pending:
            inside = pending.pop()
            inner = _entered(top, inside) if inside else top
            try:
                for name_inside, is_folder in _listed(inner):
                    if not is_folder:
                        os.unlink(name_inside, dir_fd=inner)
                        continue
                    os.close(_entered(inner, name_inside))  # one that may not be written cannot be moved
                    moved += 1
                    os.rename(name_inside, f"{prefix}{moved}", src_dir_fd=inner, dst_dir_fd=top)
                    pending.append(f"{prefix}{moved}")
            finally:
                if inner != top:
                    os.close(inner)
                    os.rmdir(inside, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=around)


def _entered(at: int, name: str) -> int:
    """A descriptor of a folder, which its owner may list and change from now on, whatever its mode was."""
    reading = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(name, reading, dir_fd=at)
    except PermissionError:
        held = _open_folder(name, at)
        try:
            os.chmod(f"/proc/self/fd/{held}", 0o700)
            folder = os.open(".", reading, dir_fd=held)
        finally:
            os.close(held)
    if stat.S_IMODE(os.fstat(folder).st_mode) & 0o700 != 0o700:
        os.fchmod(folder, 0o700)
    return folder


def _listed(folder: int) -> list[tuple[str, bool]]:
    """Names in a folder, and which are folders; what the folder itself says saves a look at each."""
    with os.scandir(folder) as items:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]


def size_of(folder: Path) -> int:
    """Bytes that a layer holds on disk. An entry without a block of its own counts as one, or empty files would use up the inodes unseen."""
    total = 0
    pending = [str(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                info = item.stat(follow_symlinks=False)
                total += max(info.st_blocks * 512, BLOCK_BYTES)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(item.path)
    return total
