"""Files and links written to the project: under a temporary name first, then renamed into place.

Whoever looks at the path sees the old file or the whole new one.
A file has its owner and mode before it has its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.changes import permissions
from cleanroom.sandbox.filesystem.file_copy import copy_content, same_content
from cleanroom.sandbox.filesystem.host_state import HostState
from cleanroom.sandbox.filesystem.project_removal import ProjectRemoval, Totals
from cleanroom.sandbox.filesystem.project_tree import Owner, ProjectTree, Target, change_owner
from cleanroom.sandbox.filesystem.trees import ITSELF, NEW_FILE, Tree, open_file, proc_path

_LARGE_BYTES = 1 << 20
# The project's file system may have no hard links, or fs.protected_hardlinks may refuse this one.
_NO_HARD_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOENT)


class Project(NamedTuple):
    """One project that a run writes to."""

    folder: Folder
    host: HostState
    # user and group of new files, if the engine is root
    owner: Owner


class ProjectFiles:
    """Writes files and links of one layer to the project."""

    def __init__(self, ours: Tree, theirs: ProjectTree, project: Project, totals: Totals) -> None:
        self._ours, self._theirs, self._project = ours, theirs, project
        self._removal = ProjectRemoval(theirs, totals)
        self._totals = totals
        self._temporary = f".cleanroom-{os.urandom(6).hex()}"
        # inode in the layer -> path in the project of its first name
        self._first_names: dict[tuple[int, int], str] = {}

    def write_file(self, target: Target) -> None:
        """Copy the layer's file, or link it to a name of the same file that was written already.

        Raises:
            Conflict: somebody else changed the project's file.
            OSError: it could not be written.
        """
        inside, _, name = target.path.rpartition("/")
        reading, info = open_file(name, self._ours.enter(inside), force=True)
        first = self._first_names.get((info.st_dev, info.st_ino))
        try:
            before = target.before
            # A phase made two equal files one: they become one in the project too.
            joins = first is not None and before is not None and self._theirs.is_unmodified(before)
            if before is not None and not joins and self._is_same(target, before, reading, info):
                self._record(target.path, info, before)
                return
            self._theirs.require_unmodified(target)
            if first is None or not self._link_to(target, first):
                self._copy(target, reading, info)
            self._totals.files += 1
        finally:
            os.close(reading)

    def write_link(self, target: Target, text: str) -> None:
        """Make a symbolic link.

        Raises:
            Conflict: somebody else changed what the project has there.
            OSError: it could not be made.
        """
        before = target.before
        is_link = before is not None and stat.S_ISLNK(before.st_mode)
        if before is not None and is_link and os.readlink(target.name, dir_fd=target.at) == text:
            self._project.host.record(before)
            return
        self._theirs.require_unmodified(target)
        # symlink(2) replaces nothing (EEXIST), rename(2) does so in one step.
        os.symlink(text, self._temporary, dir_fd=target.at)
        held = os.open(self._temporary, ITSELF, dir_fd=target.at)
        try:
            if self._project.owner is not None:
                change_owner(held, self._project.owner)
            self._rename(target)
            self._project.host.record(os.fstat(held))
        except BaseException:
            self._discard(target)
            raise
        finally:
            os.close(held)
        self._totals.files += 1

    def _is_same(
        self,
        target: Target,
        before: os.stat_result,
        reading: int,
        info: os.stat_result,
    ) -> bool:
        """Whether the project has the same file already, by type, mode and bytes.

        A file that nobody else changed needs the same mtime too: a phase built it anew otherwise,
        and make(1) compares times.
        """
        if not stat.S_ISREG(before.st_mode) or before.st_size != info.st_size:
            return False
        if stat.S_IMODE(before.st_mode) != permissions(info):
            return False
        if self._theirs.is_unmodified(before) and before.st_mtime_ns != info.st_mtime_ns:
            return False
        # The file is the project's: one that may not be read is overwritten.
        try:
            theirs, _ = open_file(target.name, target.at)
        except OSError:
            return False
        try:
            return same_content(reading, theirs, info.st_size)
        finally:
            os.close(theirs)

    def _record(self, path: str, info: os.stat_result, now: os.stat_result) -> None:
        """The project has the layer's file `info` at this path, with the status `now`."""
        self._project.host.record(now)
        if info.st_nlink > 1:
            self._first_names[info.st_dev, info.st_ino] = path

    def _link_to(self, target: Target, first: str) -> bool:
        """Make one more name of a file that was written already; False if that is impossible."""
        try:
            held = self._project.folder.open(first, ITSELF)
        except OSError:
            return False
        try:
            info = os.fstat(held)
            if not self._project.host.is_own_write(info):
                return False
            if target.before is None or not os.path.samestat(info, target.before):
                # linkat(2): AT_SYMLINK_FOLLOW on /proc/self/fd needs no capability, AT_EMPTY_PATH
                # needs CAP_DAC_READ_SEARCH.
                source = proc_path(held)
                # EEXIST where the temporary name is taken: link(2) never replaces.
                os.link(source, self._temporary, dst_dir_fd=target.at, follow_symlinks=True)
                self._rename(target)
            self._project.host.record(os.fstat(held))
        except BaseException as error:
            self._discard(target)
            if isinstance(error, OSError) and error.errno in _NO_HARD_LINKS:
                return False
            raise
        finally:
            os.close(held)
        return True

    def _copy(self, target: Target, reading: int, info: os.stat_result) -> None:
        sink = os.open(self._temporary, NEW_FILE, 0o600, dir_fd=target.at)
        try:
            _require_room(sink, info)
            size = copy_content(reading, sink, info)
            # chown(2) may clear mode bits, and write(2) sets the mtime: in this order they stay.
            if self._project.owner is not None:
                os.fchown(sink, *self._project.owner)
            os.fchmod(sink, permissions(info))
            os.utime(sink, ns=(info.st_atime_ns, info.st_mtime_ns))
            self._rename(target)
            self._record(target.path, info, os.fstat(sink))
            self._totals.bytes += size
        except BaseException:
            self._discard(target)
            raise
        finally:
            os.close(sink)

    def _rename(self, target: Target) -> None:
        """Give the temporary file its name."""
        if target.is_folder:
            # rename(2): EISDIR over a folder.
            self._removal.clear(target)
        with self._theirs.recording_links(target):
            os.rename(self._temporary, target.name, src_dir_fd=target.at, dst_dir_fd=target.at)

    def _discard(self, target: Target) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._temporary, dir_fd=target.at)


def _require_room(sink: int, info: os.stat_result) -> None:
    """Refuse a large file that cannot fit: the journal and the reports share the disk.

    Raises:
        OSError: ENOSPC.
    """
    needed = info.st_blocks * 512
    # On one file system copy_file_range(2) may share the blocks.
    if needed < _LARGE_BYTES or os.fstat(sink).st_dev == info.st_dev:
        return
    room = os.fstatvfs(sink)
    if needed > room.f_bavail * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
