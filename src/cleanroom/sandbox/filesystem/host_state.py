"""What of a project on the host is known: as it was when a run began, or as the run itself left it.

Nothing is remembered of the beginning but when it was: what has not been changed since then, which
the kernel tells of each file and folder (its ctime), is as it was. What we write is remembered by
inode, since one file may have several names, and each write to one changes the ctime of all.
"""

from __future__ import annotations

import os
import stat
import time

_TICK_NS = 10_000_000  # the kernel dates a change by the last tick of its clock
_SLEWED_NS = 100_000_000  # a clock that is kept right is moved by less than this during a run


class HostState:
    """Judges by `os.stat_result`; asks the file system for nothing."""

    def __init__(self, began_ns: int) -> None:
        """`began_ns`: the wall clock's time at the beginning of the run."""
        self._since_ns = self._began_ns = began_ns
        self._clocks_ns = time.time_ns(), time.monotonic_ns()
        self._own_ns: list[tuple[int, int]] = []
        self._left: dict[tuple[int, int], int] = {}  # inode -> its ctime when we were done with it
        self._theirs: set[tuple[int, int]] = set()  # folders that somebody put there, or chmod'ed

    def look_at_clock(self) -> None:
        """Notice a wall clock that was set back, which dates changes before the beginning."""
        wall_ns, steady_ns = time.time_ns(), time.monotonic_ns()
        gone = wall_ns - self._clocks_ns[0], steady_ns - self._clocks_ns[1]
        self._since_ns = min(self._since_ns, beginning(self._began_ns, *gone))

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        """What changed between these moments of the wall clock was the run itself."""
        self._own_ns.append((began_ns - _TICK_NS, ended_ns))

    def is_known(self, info: os.stat_result) -> bool:
        """Is it as it was, or as we left it?"""
        return info.st_ctime_ns <= self._since_ns or self.is_ours(info)

    def is_ours(self, info: os.stat_result) -> bool:
        """Is it as we left it?"""
        changed_ns = info.st_ctime_ns
        if self._left.get((info.st_dev, info.st_ino)) == changed_ns:
            return True
        return any(began <= changed_ns <= ended for began, ended in self._own_ns)

    def is_moved(self, folder: os.stat_result) -> bool:
        """May it be another folder than at the beginning, or have another mode?

        Whoever adds or removes an entry sets its mtime and its ctime alike; a rename and a chmod
        set the ctime alone. Once it is so judged that stays, whatever is added later.
        """
        key = folder.st_dev, folder.st_ino
        if not self.is_known(folder) and folder.st_ctime_ns != folder.st_mtime_ns:
            self._theirs.add(key)
        return key in self._theirs

    def made(self, folder: os.stat_result) -> None:
        """We made this folder just now."""
        self._theirs.discard((folder.st_dev, folder.st_ino))
        self.leave(folder)

    def leave(self, info: os.stat_result) -> None:
        """We are done with this file or folder, which was known before."""
        key = info.st_dev, info.st_ino
        if key not in self._theirs or not stat.S_ISDIR(info.st_mode):
            self._left[key] = info.st_ctime_ns


def beginning(began_ns: int, wall_gone_ns: int, steady_gone_ns: int) -> int:
    """When the run began, on the wall clock as it goes now: earlier, where that was set back."""
    moved = wall_gone_ns - steady_gone_ns
    return began_ns + moved if moved < -_SLEWED_NS else began_ns
