# ruff: noqa: PTH101, PTH102, PTH115, PTH116, PTH211 - a Path for each of a thousand files would be a third of the time
"""Copying a tree fast: shared blocks where the file system can (FICLONE), else inside the kernel; modes kept, links not followed."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path

from cleanroom.errors import ServiceFailed

FICLONE = 0x40049409  # _IOW(0x94, 9, int), the same on every Linux
CANNOT = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
CHUNK_BYTES = 1 << 30  # asked of the kernel at once; it does less where it wants to


def measure(folder: Path) -> tuple[int, int]:
    """Entries below `folder`, and the bytes of its regular files. (0, 0) where it is missing.

    Raises:
        ServiceFailed: something in it is neither file nor folder nor symbolic link.
    """
    entries = size = 0
    pending = [str(folder)] if folder.is_dir() else []
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(entry.path)
                elif stat.S_ISREG(mode):
                    size += entry.stat(follow_symlinks=False).st_size
                elif not stat.S_ISLNK(mode):
                    raise ServiceFailed(
                        "CR-SERVICE-012", f"{entry.path}: a template holds files, folders and links only, found {stat.filemode(mode)}"
                    )
    return entries, size


def copy_tree(source: Path, destination: Path) -> None:
    """Copy what is in `source` to `destination`, which is empty or not there yet. As root, owners are kept as well."""
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    copier = _Copier()
    copier.folder(str(source), str(destination))


class _Copier:
    """Remembers that the file system cannot share blocks, so that it is asked once and not a thousand times."""

    def __init__(self) -> None:
        self.clones = sys.platform == "linux"
        self.user = os.geteuid()

    def folder(self, source: str, destination: str) -> None:
        with os.scandir(source) as entries:
            for entry in entries:
                target = os.path.join(destination, entry.name)
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), target)
                elif entry.is_dir(follow_symlinks=False):
                    os.mkdir(target, 0o700)
                    self.folder(entry.path, target)
                else:
                    self.file(entry.path, target)
        self.attributes(os.stat(source), destination, 0o700)

    def file(self, source: str, destination: str) -> None:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            status = os.fstat(reading)
            writing = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if status.st_size:
                    self.content(reading, writing, status.st_size)
                self.attributes(status, writing, 0o600)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def content(self, reading: int, writing: int, size: int) -> None:
        if self.clones:
            try:
                fcntl.ioctl(writing, FICLONE, reading)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
                self.clones = False
            else:
                return
        pump = _in_kernel if sys.platform == "linux" else _through
        left = size
        while left and (done := pump(reading, writing, left)):
            left -= done

    def attributes(self, status: os.stat_result, destination: str | int, made_with: int) -> None:
        """Two system calls that most of a thousand files do not need."""
        if self.user == 0 and status.st_uid != 0:
            os.chown(destination, status.st_uid, status.st_gid)
        if stat.S_IMODE(status.st_mode) != made_with:
            os.chmod(destination, stat.S_IMODE(status.st_mode))


def _in_kernel(reading: int, writing: int, left: int) -> int:
    return os.sendfile(writing, reading, None, min(left, CHUNK_BYTES))


def _through(reading: int, writing: int, left: int) -> int:
    """One piece by way of this process, where the kernel cannot do it."""
    return os.write(writing, os.read(reading, min(left, 1 << 20)))
