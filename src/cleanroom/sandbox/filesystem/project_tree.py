"""The folders of a project on the host, and which of them are as they were when a run began."""

from __future__ import annotations

import errno
import os
import stat

from cleanroom.sandbox.filesystem.host_state import HostState
from cleanroom.sandbox.filesystem.trees import CHANGE, Tree, entries, open_folder, proc_path

Owner = tuple[int, int] | None


class ProjectTree(Tree):
    """The project's folders, with what is known of them. Missing ones are made."""

    def __init__(self, top: int, host: HostState, owner: Owner) -> None:
        super().__init__(top, CHANGE)
        self._host = host
        self._owner = owner
        self._moved: list[bool] = []  # for each folder that is open

    @property
    def is_moved(self) -> bool:
        """May the open folder, or one above it, be another than when the run began?"""
        return self._moved[-1]

    def make(self, name: str, at: int) -> int:
        """Make a folder and hold it.

        Raises:
            OSError: what mkdir(2) says, or EEXIST: somebody put another in its place at once.
        """
        os.mkdir(name, 0o777, dir_fd=at)
        folder = open_folder(name, at)
        try:
            if self._owner is not None:
                give(folder, self._owner)
            self._host.made(os.fstat(folder))
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _open(self, name: str, at: int) -> int:
        try:
            return open_folder(name, at)
        except FileNotFoundError:
            return self.make(name, at)

    def _entered(self, folder: int) -> None:
        above = bool(self._moved) and self._moved[-1]
        self._moved.append(self._host.is_moved(os.fstat(folder)) or above)

    def _left(self, folder: int) -> None:
        self._host.leave(os.fstat(folder))
        self._moved.pop()


def give(held: int, owner: tuple[int, int]) -> None:
    """Hand over what we made, and nothing that somebody put in its place meanwhile.

    Raises:
        OSError: EEXIST where it is another's.
    """
    info = os.fstat(held)
    is_empty = not stat.S_ISDIR(info.st_mode) or not entries(held)
    if info.st_uid != os.geteuid() or stat.S_ISREG(info.st_mode) or not is_empty:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.chown(proc_path(held), *owner)
