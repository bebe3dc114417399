"""The file system calls that write evidence, in the order that survives a power cut.

Tests replace `here` by another `Disk`, in which each call fails in turn, or is the last before a
power cut.
Files that are appended without waiting for the disk (events, logs, journals) are not written by
it: their readers take any beginning of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

from cleanroom.core.beneath import Folder

_RENAME_EXCHANGE = 2
_APPENDING = os.O_RDWR | os.O_CREAT | os.O_APPEND


class Disk:
    """The machine's own. Files are named in a folder that is held open.

    Every method raises OSError as the system does.
    """

    def create(self, folder: Folder, name: str, mode: int) -> int:
        """A descriptor to write a file that was not there."""
        return folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)

    def append(self, folder: Folder, name: str, mode: int) -> int:
        """A descriptor to read a file of ours, and write at its end; made where it is not there."""
        return folder.open_own(name, _APPENDING, mode)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of the bytes, and return how many."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes are on disk, and whatever is needed to find them."""
        os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)

    def sync_folder(self, folder: Folder) -> None:
        """Wait until the names in a folder are on disk."""
        descriptor = folder.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, folder: Folder, source: str, target: str) -> None:
        held = folder.descriptor
        os.replace(source, target, src_dir_fd=held, dst_dir_fd=held)

    def exchange(self, folder: Folder, one: str, other: str) -> bool:
        """Swap two names in one step, where the kernel and the file system can."""
        try:
            call = ctypes.CDLL(None, use_errno=True).renameat2
        except (AttributeError, OSError):
            return False
        held, names = folder.descriptor, (os.fsencode(one), os.fsencode(other))
        return int(call(held, names[0], held, names[1], _RENAME_EXCHANGE)) == 0

    def link(self, folder: Folder, source: str, target: str) -> None:
        """Give a file a second name, which nobody may have yet."""
        held = folder.descriptor
        os.link(source, target, src_dir_fd=held, dst_dir_fd=held, follow_symlinks=False)

    def remove(self, folder: Folder, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder.descriptor)


here = Disk()
