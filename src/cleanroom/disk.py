"""What is asked of the file system when evidence is written: each call on its own, in the order that a power cut demands.

The one seam for it: tests put another `Disk` in the place of `here`, let each call fail in turn, or cut the power after it. What is appended without
waiting for the disk (events, logs, journals) does not pass here: its readers take any beginning of it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_APPENDING = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Disk:
    """The machine's own. Every method raises OSError as the system does."""

    def create(self, path: Path, mode: int) -> int:
        """A descriptor to write a file that was not there."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def append(self, path: Path, mode: int) -> int:
        """A descriptor to read a file, and write at its end; made where it is not there, never through a link."""
        return os.open(path, _APPENDING, mode)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of the bytes, and say how many."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes are on disk, and whatever is needed to find them."""
        os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder are on disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def exchange(self, one: Path, other: Path) -> bool:
        """Swap two names in one step, where the kernel and the file system can."""
        try:
            call = ctypes.CDLL(None, use_errno=True).renameat2
        except (AttributeError, OSError):
            return False
        return int(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)) == 0

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which nobody may have yet."""
        target.hardlink_to(source)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


here = Disk()
