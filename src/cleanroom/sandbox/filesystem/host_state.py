"""Host state: whether a path of the project is unmodified since the run began, or the run's own.

Of the beginning only the time is remembered: a file or folder whose ctime is older is unmodified.
What the run writes is remembered by inode, since a file may have several names,
and a write to one of them changes the ctime that all of them show.
"""

from __future__ import annotations

import os
import stat
import time

# The kernel dates a change by the last tick of its clock: CONFIG_HZ is 100 at least.
_TICK_NS = 10_000_000
# NTP slews a wall clock by less than this during a run.
_SLEWED_NS = 100_000_000


class HostState:
    """Judges by `os.stat_result`; asks the file system for nothing."""

    def __init__(self, began_ns: int) -> None:
        """`began_ns`: wall clock at the beginning of the run."""
        self._since_ns = self._began_ns = began_ns
        self._clocks_ns = time.time_ns(), time.monotonic_ns()
        self._own_intervals_ns: list[tuple[int, int]] = []
        # inode -> its ctime after the run's last write to it
        self._written: dict[tuple[int, int], int] = {}
        # folders that somebody else put there, or changed the mode of
        self._replaced: set[tuple[int, int]] = set()

    def detect_clock_step(self) -> None:
        """Notice a wall clock that was set back: it dates new changes before the beginning."""
        wall_ns, steady_ns = time.time_ns(), time.monotonic_ns()
        gone = wall_ns - self._clocks_ns[0], steady_ns - self._clocks_ns[1]
        self._since_ns = min(self._since_ns, beginning(self._began_ns, *gone))

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        """Count every change between these moments of the wall clock as the run's own."""
        self._own_intervals_ns.append((began_ns - _TICK_NS, ended_ns))

    def is_unmodified(self, info: os.stat_result) -> bool:
        """Whether a path is as it was when the run began, or as the run left it."""
        # The ctime is the kernel's: no call sets it to a time of choice; inode(7).
        return info.st_ctime_ns <= self._since_ns or self.is_own_write(info)

    def is_own_write(self, info: os.stat_result) -> bool:
        """Whether a path is as the run left it."""
        changed_ns = info.st_ctime_ns
        if self._written.get((info.st_dev, info.st_ino)) == changed_ns:
            return True
        return any(began <= changed_ns <= ended for began, ended in self._own_intervals_ns)

    def is_replaced(self, folder: os.stat_result) -> bool:
        """Whether a folder may be another one than at the beginning, or have another mode.

        Adding or removing an entry sets mtime and ctime alike; rename(2) of the folder and chmod(2)
        set the ctime alone.
        A folder once judged to be replaced stays so, whatever is added to it later.
        """
        key = folder.st_dev, folder.st_ino
        if not self.is_unmodified(folder) and folder.st_ctime_ns != folder.st_mtime_ns:
            self._replaced.add(key)
        return key in self._replaced

    def record_new_folder(self, folder: os.stat_result) -> None:
        """The run made this folder just now."""
        self._replaced.discard((folder.st_dev, folder.st_ino))
        self.record(folder)

    def record(self, info: os.stat_result) -> None:
        """The run is done with this file or folder, which was unmodified before."""
        key = info.st_dev, info.st_ino
        if key not in self._replaced or not stat.S_ISDIR(info.st_mode):
            self._written[key] = info.st_ctime_ns


def beginning(began_ns: int, wall_gone_ns: int, steady_gone_ns: int) -> int:
    """The beginning of the run on the wall clock as it goes now: earlier if it was set back."""
    step_ns = wall_gone_ns - steady_gone_ns
    return began_ns + step_ns if step_ns < -_SLEWED_NS else began_ns
