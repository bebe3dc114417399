"""Bringing what a phase changed back to the project on the host.

What somebody else changed there since the run began is never overwritten: ours is put into the
run's `conflicts` folder instead. Everything is read and written through descriptors: by no link,
and whoever it shall belong to gets it before it has its name. Set-user-id bits do not come back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.changes import Entry, permissions, refuse_outward_links
from cleanroom.sandbox.filesystem.file_copy import copy_content, same_content
from cleanroom.sandbox.filesystem.host_state import HostState
from cleanroom.sandbox.filesystem.project_tree import ProjectTree, give
from cleanroom.sandbox.filesystem.saved_changes import DISK_ERRORS, SavedChanges
from cleanroom.sandbox.filesystem.trees import Tree, lstat_at, open_file, proc_path

CONFLICTS = "conflicts"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE_BYTES = 1 << 20
_NOTHING = contextlib.nullcontext()
_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# A project's folder may not be on a file system that has hard links, or not for everybody.
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOENT)


class Outcome(NamedTuple):
    """What became of the entries. Files count with links, each name of a file by itself."""

    files: int
    bytes: int
    # What the project has no more: whatever is no folder, and folders that held nothing else.
    deleted: int
    conflicts: tuple[str, ...]  # what somebody else changed
    unremoved: tuple[str, ...]  # deletions that did not come back for a conflict
    unkept: tuple[str, ...]  # conflicts of which nothing is kept: the layer has only a deletion
    refused: tuple[Entry, ...]
    failed: tuple[Entry, ...]  # the system did not let them be written


class ProjectWriter:
    """Brings layers' changes back to one project during one run."""

    def __init__(self, project: Folder, began_ns: int) -> None:
        """The folder stays the caller's, and has to stay open."""
        self.project = project
        self.host = HostState(began_ns)
        info = os.fstat(project.descriptor)
        # Whose the project's new files become.
        self.owner = (info.st_uid, info.st_gid) if os.geteuid() == 0 else None

    def apply(
        self,
        upper: Folder,
        found: Iterable[Entry],
        run: Folder,
        visible: Sequence[str] = (),
        conflicts: str = CONFLICTS,
    ) -> Outcome:
        """Apply entries, as `changes.find_changes` gave them, to the project.

        What conflicts is put into the folder `conflicts` of `run` instead. A link that would lead
        out once just these entries were there is refused; `visible` as for `changes.find_changes`.
        """
        self.host.look_at_clock()
        with (
            Tree(upper.descriptor) as ours,
            ProjectTree(self.project.descriptor, self.host, self.owner) as theirs,
            SavedChanges(run.descriptor) as saved,
        ):
            bringing = _Bringing(ours, theirs, saved, self, conflicts)
            for entry in refuse_outward_links(found, self.project, visible):
                bringing.carry(entry)
            return bringing.outcome()


class _Changed(Exception):
    """Somebody else changed these paths of the project meanwhile."""

    def __init__(self, *paths: str) -> None:
        super().__init__(*paths)
        self.paths = paths


class _Spot(NamedTuple):
    """Where something is to be: the folder that is open, the name, and what is there now."""

    path: str
    name: str
    at: int
    was: os.stat_result | None

    @property
    def is_folder(self) -> bool:
        return self.was is not None and stat.S_ISDIR(self.was.st_mode)


class _Bringing:
    """One layer's changes on their way."""

    def __init__(
        self,
        ours: Tree,
        theirs: ProjectTree,
        saved: SavedChanges,
        writer: ProjectWriter,
        conflicts: str,
    ) -> None:
        self._ours, self._theirs, self._saved = ours, theirs, saved
        self._conflicts_folder = conflicts
        self._host, self._owner = writer.host, writer.owner
        self._project = writer.project
        self._passing = f".cleanroom-{os.urandom(6).hex()}"  # a new file's name until it is whole
        self._names: dict[tuple[int, int], str] = {}  # inode in the layer -> path in the project
        self._files = self._bytes = self._deleted = 0
        self._conflicts: dict[str, bool] = {}  # path -> is something kept of it?
        self._unremoved: list[str] = []
        self._refused: list[Entry] = []
        self._failed: list[Entry] = []

    def outcome(self) -> Outcome:
        """What became of it; gives folders their modes first."""
        for path, error in self._theirs.settle():
            self._unwritten(path, error)
        return Outcome(
            files=self._files,
            bytes=self._bytes,
            deleted=self._deleted,
            conflicts=tuple(self._conflicts),
            unremoved=tuple(self._unremoved),
            unkept=tuple(path for path, is_kept in self._conflicts.items() if not is_kept),
            refused=tuple(self._refused),
            failed=tuple(self._failed),
        )

    def carry(self, entry: Entry) -> None:
        """Apply one entry; whatever becomes of it is kept for the outcome."""
        if entry.kind == "refused":
            self._refused.append(entry)
            return
        try:
            try:
                self._apply(entry)
            except _Changed as changed:
                self._set_aside(entry, changed.paths)
        except OSError as error:
            self._unwritten(entry.path, error)

    def _set_aside(self, entry: Entry, changed: Sequence[str]) -> None:
        is_kept = entry.kind != "deleted"
        for path in changed:
            self._conflicts[path] = is_kept or self._conflicts.get(path, False)
        if is_kept:
            self._saved.save(f"{self._conflicts_folder}/{entry.path}", entry, self._ours)
        else:
            self._unremoved.append(entry.path)

    def _unwritten(self, path: str, error: OSError) -> None:
        unwritten = self._failed if error.errno in DISK_ERRORS else self._refused
        reason = os.strerror(error.errno or errno.EIO)
        unwritten.append(Entry(path, "refused", reason=reason))

    def _apply(self, entry: Entry) -> None:
        inside, _, name = entry.path.rpartition("/")
        try:
            at = self._theirs.enter(inside)
        except (NotADirectoryError, FileExistsError) as error:
            self._blame(inside)
            raise error
        spot = _Spot(entry.path, name, at, lstat_at(name, at))
        if entry.kind == "deleted":
            self._clear(spot)
        elif entry.kind == "directory":
            self._folder(spot)
        elif entry.kind == "file":
            self._file(spot)
        else:
            self._link(spot, entry.target)

    def _blame(self, inside: str) -> None:
        """Something that is no folder is on the way to `inside`: did somebody put it there?"""
        above, _, name = inside.rpartition("/")
        if above:
            try:
                at = self._theirs.enter(above)
            except NotADirectoryError:
                self._blame(above)
                return
        else:
            at = self._theirs.enter("")
        was = lstat_at(name, at)
        if was is not None and not self._is_known(was):
            raise _Changed(inside)

    # --- judging

    def _is_known(self, was: os.stat_result) -> bool:
        """Is what is in the open folder of the project as it was, or as we left it?"""
        return self._host.is_ours(was) if self._theirs.is_moved else self._host.is_known(was)

    def _require_known(self, spot: _Spot) -> None:
        if spot.was is not None and not spot.is_folder and not self._is_known(spot.was):
            raise _Changed(spot.path)

    # --- folders

    def _folder(self, spot: _Spot) -> None:
        inside, _, name = spot.path.rpartition("/")
        ours = os.stat(name, dir_fd=self._ours.enter(inside), follow_symlinks=False)
        if not stat.S_ISDIR(ours.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        wanted = permissions(ours)
        if spot.was is not None and spot.is_folder:
            mode = stat.S_IMODE(spot.was.st_mode)
            if mode & 0o777 == wanted:
                return
            if self._theirs.is_moved or self._host.is_moved(spot.was):
                raise _Changed(spot.path)
            if os.geteuid() not in (0, spot.was.st_uid):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        else:
            self._clear(spot)
            folder = self._theirs.make(spot.name, spot.at)
            mode = stat.S_IMODE(os.fstat(folder).st_mode)
            os.close(folder)
        self._theirs.modes[spot.path] = mode & ~0o777 | wanted

    def _clear(self, spot: _Spot) -> None:
        """Remove what is there.

        Raises:
            _Changed: there is something in it that somebody else changed; nothing is removed.
        """
        if spot.was is None:
            return
        if not spot.is_folder:
            self._require_known(spot)
            with self._other_names(spot):
                os.unlink(spot.name, dir_fd=spot.at)
            self._deleted += 1
            return
        going = [(spot.path, spot.was), *self._below(spot.path)]
        filled = _filled(going)
        for path, info in reversed(going):
            self._remove(path, info)
            if path not in filled:
                self._deleted += 1

    def _below(self, top: str) -> list[tuple[str, os.stat_result]]:
        """All below a folder, parents first.

        Raises:
            _Changed: all of it that somebody else put there or changed.
        """
        found: list[tuple[str, os.stat_result]] = []
        changed: list[str] = []
        pending = [top]
        while pending:
            inside = pending.pop()
            listed = self._theirs.entries(inside)
            if self._theirs.is_moved:
                changed.append(inside)
                continue
            for name, info in listed:
                path = f"{inside}/{name}"
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)
                elif not self._is_known(info):
                    changed.append(path)
                found.append((path, info))
        if changed:
            raise _Changed(*sorted(changed))
        return found

    def _remove(self, path: str, info: os.stat_result) -> None:
        inside, _, name = path.rpartition("/")
        at = self._theirs.enter(inside)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=at)
            self._theirs.forget(path)
            return
        with self._other_names(_Spot(path, name, at, info)):
            os.unlink(name, dir_fd=at)

    def _other_names(self, spot: _Spot) -> contextlib.AbstractContextManager[None]:
        """The name of a known file is about to go: its other names stay known."""
        if spot.was is None or spot.is_folder or spot.was.st_nlink < 2:
            return _NOTHING
        return self._known_by_others(spot)

    @contextlib.contextmanager
    def _known_by_others(self, spot: _Spot) -> Iterator[None]:
        held = os.open(spot.name, _ITSELF, dir_fd=spot.at)
        try:
            yield
            self._host.leave(os.fstat(held))
        finally:
            os.close(held)

    # --- files and links

    def _file(self, spot: _Spot) -> None:
        inside, _, name = spot.path.rpartition("/")
        reading, info = open_file(name, self._ours.enter(inside), force=True)
        first = self._names.get((info.st_dev, info.st_ino))
        try:
            was = spot.was
            # Two files that are alike become one, where a phase made them so.
            joins = first is not None and was is not None and self._is_known(was)
            if was is not None and not joins and self._is_same(spot, was, reading, info):
                self._is_there(spot.path, info, was)
                return
            self._require_known(spot)
            if first is None or not self._linked(spot, first):
                self._copied(spot, reading, info)
            self._files += 1
        finally:
            os.close(reading)

    def _is_same(
        self,
        spot: _Spot,
        was: os.stat_result,
        reading: int,
        info: os.stat_result,
    ) -> bool:
        """Has the project the very same file already, by type, mode and bytes?

        One that nobody else changed has to have its time too: else a phase rebuilt it, and what
        is made from it later goes by that.
        """
        if not stat.S_ISREG(was.st_mode) or was.st_size != info.st_size:
            return False
        if stat.S_IMODE(was.st_mode) != permissions(info):
            return False
        if self._is_known(was) and was.st_mtime_ns != info.st_mtime_ns:
            return False
        try:
            theirs, _ = open_file(spot.name, spot.at)
        except OSError:
            return False
        try:
            return same_content(reading, theirs, info.st_size)
        finally:
            os.close(theirs)

    def _is_there(self, path: str, info: os.stat_result, now: os.stat_result) -> None:
        """The project has the layer's file, of which `info` tells, at this path."""
        self._host.leave(now)
        if info.st_nlink > 1:
            self._names[info.st_dev, info.st_ino] = path

    def _linked(self, spot: _Spot, first: str) -> bool:
        """Make it one more name of a file that is there already; False where that cannot be."""
        try:
            held = self._project.open(first, _ITSELF)
        except OSError:
            return False
        try:
            info = os.fstat(held)
            if not self._host.is_ours(info):
                return False
            if spot.was is None or not os.path.samestat(info, spot.was):
                os.link(proc_path(held), self._passing, dst_dir_fd=spot.at, follow_symlinks=True)
                self._name(spot)
            self._host.leave(os.fstat(held))
        except BaseException as error:
            self._drop(spot)
            if isinstance(error, OSError) and error.errno in _NO_LINKS:
                return False
            raise
        finally:
            os.close(held)
        return True

    def _copied(self, spot: _Spot, reading: int, info: os.stat_result) -> None:
        sink = os.open(self._passing, _NEW_FILE, 0o600, dir_fd=spot.at)
        try:
            _require_room(sink, info)
            size = copy_content(reading, sink, info)
            if self._owner is not None:
                os.fchown(sink, *self._owner)
            os.fchmod(sink, permissions(info))
            os.utime(sink, ns=(info.st_atime_ns, info.st_mtime_ns))
            self._name(spot)
            self._is_there(spot.path, info, os.fstat(sink))
            self._bytes += size
        except BaseException:
            self._drop(spot)
            raise
        finally:
            os.close(sink)

    def _link(self, spot: _Spot, target: str) -> None:
        was = spot.was
        is_link = was is not None and stat.S_ISLNK(was.st_mode)
        if was is not None and is_link and os.readlink(spot.name, dir_fd=spot.at) == target:
            self._host.leave(was)
            return
        self._require_known(spot)
        os.symlink(target, self._passing, dir_fd=spot.at)
        held = os.open(self._passing, _ITSELF, dir_fd=spot.at)
        try:
            if self._owner is not None:
                give(held, self._owner)
            self._name(spot)
            self._host.leave(os.fstat(held))
        except BaseException:
            self._drop(spot)
            raise
        finally:
            os.close(held)
        self._files += 1

    def _name(self, spot: _Spot) -> None:
        """What has the passing name gets its own: whoever looks sees the old one or the new."""
        if spot.is_folder:
            self._clear(spot)
        with self._other_names(spot):
            os.rename(self._passing, spot.name, src_dir_fd=spot.at, dst_dir_fd=spot.at)

    def _drop(self, spot: _Spot) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._passing, dir_fd=spot.at)


def _filled(found: Sequence[tuple[str, os.stat_result]]) -> set[str]:
    """The folders among these in which there is something else than folders."""
    filled: set[str] = set()
    for path, info in found:
        folder = "" if stat.S_ISDIR(info.st_mode) else path.rpartition("/")[0]
        while folder and folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    return filled


def _require_room(sink: int, info: os.stat_result) -> None:
    """A large file that cannot fit does not fill the disk first, on which evidence is written too.

    Raises:
        OSError: ENOSPC.
    """
    needed = info.st_blocks * 512
    # On one file system a copy may share the blocks.
    if needed < _LARGE_BYTES or os.fstat(sink).st_dev == info.st_dev:
        return
    room = os.fstatvfs(sink)
    if needed > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
