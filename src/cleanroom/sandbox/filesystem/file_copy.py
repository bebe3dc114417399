"""Content of one regular file: copied with its holes, and compared, by descriptors."""

from __future__ import annotations

import errno
import os

_READ_BYTES = 1 << 20
# Holes that are still compared: read(2) of a sparse file takes as long as of a full one.
_COMPARED_HOLE_BYTES = 64 << 20


def copy_content(reading: int, sink: int, info: os.stat_result) -> int:
    """Copy a file with the status `info` into an empty one; returns the bytes of data copied.

    Raises:
        OSError: what read(2) and write(2) say, such as ENOSPC.
    """
    if info.st_blocks * 512 >= info.st_size:
        return _copy_range(reading, sink, info.st_size)
    copied = _copy_data(reading, sink, info.st_size)
    # After a hole at the end no write has made the file as long.
    os.ftruncate(sink, info.st_size)
    return copied


def same_content(one: int, other: int, size: int) -> bool:
    """Whether two files of `size` bytes are equal; False for large ones that are mostly holes.

    Raises:
        OSError: one of them cannot be read.
    """
    for file in (one, other):
        if os.fstat(file).st_blocks * 512 + _COMPARED_HOLE_BYTES < size:
            return False
    at = 0
    while at < size:
        piece = os.pread(one, _READ_BYTES, at)
        if not piece or piece != os.pread(other, len(piece), at):
            return False
        at += len(piece)
    return True


def _copy_data(reading: int, sink: int, size: int) -> int:
    """Copy the parts with data, by SEEK_DATA and SEEK_HOLE of lseek(2); not the file's length."""
    copied = at = 0
    while at < size:
        try:
            begin = os.lseek(reading, at, os.SEEK_DATA)
            end = os.lseek(reading, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # Only a hole follows.
                break
            # The file system reports no holes: everything counts as data.
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
            # It moves both offsets by what it copied, which may be less than asked for.
            moved = os.copy_file_range(reading, sink, length - done)
        except OSError as error:
            # EXDEV: two file systems, before 5.3, and of two types from 5.19 on.
            # The others: the kernel, the file system or this kind of file has no such call.
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            moved = 0
        if not moved:
            # copy_file_range(2) may return 0 on a full disk; write(2) fails with ENOSPC.
            piece = os.read(reading, min(_READ_BYTES, length - done))
            if not piece:
                break
            moved = os.write(sink, piece)
            # write(2) may take a part: the rest is read again.
            os.lseek(reading, moved - len(piece), os.SEEK_CUR)
        done += moved
    return done
