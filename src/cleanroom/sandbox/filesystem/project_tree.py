"""The project's folders on the host, and which of their entries are unmodified since the run began.

Every change to the project goes through an open folder: no link is followed on the way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from cleanroom.sandbox.filesystem.host_state import HostState
from cleanroom.sandbox.filesystem.trees import (
    CHANGE,
    ITSELF,
    Tree,
    entries,
    lstat_at,
    open_folder,
    proc_path,
)

Owner = tuple[int, int] | None
_UNLINKED = contextlib.nullcontext()


class Conflict(Exception):
    """Somebody else changed these paths of the project since the run began."""

    def __init__(self, *paths: str) -> None:
        super().__init__(*paths)
        self.paths = paths


class Target(NamedTuple):
    """A place in the project: its name in the open folder `at`, and its status before the write."""

    path: str
    name: str
    at: int
    before: os.stat_result | None

    @property
    def is_folder(self) -> bool:
        return self.before is not None and stat.S_ISDIR(self.before.st_mode)


class ProjectTree(Tree):
    """The project's folders with their host state; missing ones are made for `owner`."""

    def __init__(self, top: int, host: HostState, owner: Owner) -> None:
        super().__init__(top, CHANGE)
        self._host = host
        self._owner = owner
        # for each open folder: whether it, or one above it, was replaced
        self._replaced: list[bool] = []
        # of folders that were made: access and modification time that they get in the end
        self.times: dict[str, tuple[int, int]] = {}

    @property
    def is_replaced(self) -> bool:
        """Whether the open folder, or one above it, may be another than when the run began."""
        return self._replaced[-1]

    def target(self, path: str) -> Target:
        """Enter the parent folder of `path`, and make what is missing of it.

        Raises:
            Conflict: somebody put something that is no folder in the place of a parent.
            OSError: as `enter`.
        """
        inside, _, name = path.rpartition("/")
        try:
            at = self.enter(inside)
        except (NotADirectoryError, FileExistsError) as error:
            self._check_parents(inside)
            raise error
        return Target(path, name, at, lstat_at(name, at))

    def _check_parents(self, inside: str) -> None:
        """Raise Conflict for the outermost parent that somebody else made no folder."""
        above, _, name = inside.rpartition("/")
        try:
            at = self.enter(above)
        except NotADirectoryError:
            if not above:
                raise
            self._check_parents(above)
            return
        before = lstat_at(name, at)
        if before is not None and not self.is_unmodified(before):
            raise Conflict(inside)

    def is_unmodified(self, info: os.stat_result) -> bool:
        """Whether an entry of the open folder is as it was, or as the run left it."""
        if self.is_replaced:
            return self._host.is_own_write(info)
        return self._host.is_unmodified(info)

    def restore_modes(self) -> list[tuple[str, OSError]]:
        """As a tree does, after each new folder has its times: what is made in it sets them anew.

        make(1) takes a folder for a target, and a prerequisite, as it takes a file.
        """
        for path in sorted(self.times, reverse=True):
            times = self.times.pop(path)
            # The folder may have been removed, or replaced by somebody else.
            with contextlib.suppress(OSError):
                at = self.enter(path)
                if not self.is_replaced:
                    os.utime(proc_path(at), ns=times)
        return super().restore_modes()

    def require_unmodified(self, target: Target) -> None:
        """Refuse to overwrite what somebody else wrote.

        Raises:
            Conflict: a file or link there was changed.
        """
        if target.before is None or target.is_folder:
            return
        if not self.is_unmodified(target.before):
            raise Conflict(target.path)

    def recording_links(self, target: Target) -> contextlib.AbstractContextManager[None]:
        """While the name of an unmodified file is removed: its other names stay unmodified.

        unlink(2) and rename(2) over a name change the ctime that all names of the file show.
        """
        if target.before is None or target.is_folder or target.before.st_nlink < 2:
            return _UNLINKED
        return self._recording_links(target)

    @contextlib.contextmanager
    def _recording_links(self, target: Target) -> Iterator[None]:
        # The descriptor keeps the inode when its name is gone.
        held = os.open(target.name, ITSELF, dir_fd=target.at)
        try:
            yield
            self._host.record(os.fstat(held))
        finally:
            os.close(held)

    def make_folder(self, name: str, at: int) -> int:
        """Make a folder and open it.

        Raises:
            OSError: what mkdir(2) says, or EEXIST: somebody put another in its place at once.
        """
        # mkdir(2) returns no descriptor: somebody may put another folder there before it is opened.
        os.mkdir(name, 0o777, dir_fd=at)
        folder = open_folder(name, at)
        try:
            if self._owner is not None:
                change_owner(folder, self._owner)
            self._host.record_new_folder(os.fstat(folder))
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _open(self, name: str, at: int) -> int:
        try:
            return open_folder(name, at)
        except FileNotFoundError:
            return self.make_folder(name, at)

    def _opened(self, folder: int) -> None:
        above = bool(self._replaced) and self._replaced[-1]
        self._replaced.append(self._host.is_replaced(os.fstat(folder)) or above)

    def _closing(self, folder: int) -> None:
        self._host.record(os.fstat(folder))
        self._replaced.pop()


def change_owner(held: int, owner: tuple[int, int]) -> None:
    """Give a folder or link that the run just made to `owner` (user, group).

    Raises:
        OSError: EEXIST if somebody put something of their own in its place meanwhile.
    """
    info = os.fstat(held)
    is_empty = not stat.S_ISDIR(info.st_mode) or not entries(held)
    if info.st_uid != os.geteuid() or stat.S_ISREG(info.st_mode) or not is_empty:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    # fchown(2) fails with EBADF on O_PATH.
    os.chown(proc_path(held), *owner)
