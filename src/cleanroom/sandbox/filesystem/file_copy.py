"""The bytes of one regular file: copied with its holes, and compared. Works on open descriptors."""

from __future__ import annotations

import errno
import os

_PIECE = 1 << 20
_UNCOMPARED_HOLES = 64 << 20  # a sparse giant takes as long to read as a full one


def copy_content(reading: int, sink: int, info: os.stat_result) -> int:
    """Copy all of a file, of which `info` tells, into an empty one; returns the bytes with data.

    Raises:
        OSError: what read(2) and write(2) say, such as ENOSPC.
    """
    if info.st_blocks * 512 >= info.st_size:
        return _copy_range(reading, sink, info.st_size)
    copied = _copy_data(reading, sink, info.st_size)
    os.ftruncate(sink, info.st_size)
    return copied


def same_content(one: int, other: int, size: int) -> bool:
    """Do two files hold the same bytes? False for giants that are mostly holes.

    Raises:
        OSError: one of them cannot be read.
    """
    for file in (one, other):
        if os.fstat(file).st_blocks * 512 + _UNCOMPARED_HOLES < size:
            return False
    at = 0
    while at < size:
        piece = os.pread(one, _PIECE, at)
        if not piece or piece != os.pread(other, len(piece), at):
            return False
        at += len(piece)
    return True


def _copy_data(reading: int, sink: int, size: int) -> int:
    """Copy the parts that hold data, without the end: a sparse giant stays sparse."""
    copied = at = 0
    while at < size:
        try:
            begin = os.lseek(reading, at, os.SEEK_DATA)
            end = os.lseek(reading, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                break
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
            moved = os.copy_file_range(reading, sink, length - done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            moved = 0
        if not moved:  # also what a full disk may answer: writing says so
            piece = os.read(reading, min(_PIECE, length - done))
            if not piece:
                break
            moved = os.write(sink, piece)
            os.lseek(reading, moved - len(piece), os.SEEK_CUR)
        done += moved
    return done
