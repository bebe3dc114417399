"""A git index, as far as it is read and made here: versions 2 to 4, with SHA-1. Values only.

The layout is that of git's `gitformat-index(5)`.
An index is hostile: a few of its bytes may stand for a long path, in version 4.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = struct.Struct(">4sII")
# times, device, inode, mode, owner, size and object id, then flags
_FIXED_BYTES = 60
_DIGEST_BYTES = 20
_EXTENDED = 0x4000
_SKIP_WORKTREE = 0x4000
_NAME_BITS = 0x0FFF
# No file has a longer path (PATH_MAX).
_PATH_BYTES_MAX = 4096
# Of all paths in it, which is a hundred bytes for each of two million files.
_PATHS_BYTES_MAX = 256 << 20


class _Entry(NamedTuple):
    fixed: bytes
    flags: int
    more_flags: int
    path: bytes


def paths(index: bytes) -> list[bytes]:
    """The paths in an index, as far as it can be read."""
    found = []
    try:
        for entry, _ in _entries(index):
            found.append(entry.path)
    except (IndexError, ValueError, struct.error):
        pass
    return found


def has_inside(index: bytes, inside: bytes) -> bool:
    """Whether a path in an index begins with `inside`, as far as it can be read."""
    try:
        return any(entry.path.startswith(inside) for entry, _ in _entries(index))
    except (IndexError, ValueError, struct.error):
        return False


class Stamp(NamedTuple):
    """How a file of the worktree was when git looked at it last."""

    path: bytes
    # seconds and nanoseconds
    changed: tuple[int, int]
    modified: tuple[int, int]
    # the lower 32 bits
    inode: int
    size: int


def stamps(index: bytes) -> Iterator[Stamp]:
    """How the tracked files were, as far as the index can be read."""
    try:
        for entry, _ in _entries(index):
            words = struct.unpack_from(">10I", entry.fixed)
            yield Stamp(entry.path, words[0:2], words[2:4], words[5], words[9])
    except (IndexError, ValueError, struct.error):
        return


def narrowed(index: bytes, inside: bytes) -> bytes:
    """The same index, in which git looks for no file outside of the folder `inside`.

    Empty where it cannot be read, or has more than entries in it that matters.
    """
    pieces: list[bytes] = []
    at = _HEADER.size
    try:
        for entry, end in _entries(index):
            at = end
            pieces.append(_written(entry, skip=not entry.path.startswith(inside)))
        if not _has_only_optional(index, at):
            return b""
    except (IndexError, ValueError, struct.error):
        return b""
    body = _HEADER.pack(b"DIRC", 3, len(pieces)) + b"".join(pieces)
    # A digest that git made for itself to find broken disks, and no secret.
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _entries(index: bytes) -> Iterator[tuple[_Entry, int]]:
    """The entries of an index, each with where it ends.

    Raises:
        ValueError, IndexError, struct.error: it is broken or of another version.
    """
    if not index:
        return
    signature, version, count = _HEADER.unpack_from(index)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("no index that is known here")
    at, path, room = _HEADER.size, b"", _PATHS_BYTES_MAX
    for _ in range(count):
        (flags,) = struct.unpack_from(">H", index, at + _FIXED_BYTES)
        start, more = at + _FIXED_BYTES + 2, 0
        if flags & _EXTENDED:
            (more,) = struct.unpack_from(">H", index, start)
            start += 2
        if version == 4:
            dropped, start = _number(index, start)
            if dropped > len(path):
                raise ValueError("less than nothing is left of the path before")
            path = path[: len(path) - dropped]
        else:
            path = b""
        end = index.index(b"\0", start)
        if len(path) + end - start > _PATH_BYTES_MAX:
            raise ValueError("no file has a path this long")
        path += index[start:end]
        room -= len(path)
        if room < 0:
            raise ValueError("more paths than any repository has")
        following = end + 1 if version == 4 else at + ((end - at + 8) & ~7)
        yield _Entry(index[at : at + _FIXED_BYTES], flags, more, path), following
        at = following


def _written(entry: _Entry, *, skip: bool) -> bytes:
    more = entry.more_flags | (_SKIP_WORKTREE if skip else 0)
    flags = entry.flags & ~(_EXTENDED | _NAME_BITS) | min(len(entry.path), _NAME_BITS)
    written = entry.fixed + struct.pack(">H", flags | (_EXTENDED if more else 0))
    if more:
        written += struct.pack(">H", more)
    written += entry.path
    # One to eight bytes, so that its length is a multiple of eight.
    return written + bytes(8 - len(written) % 8)


def _has_only_optional(index: bytes, at: int) -> bool:
    """Whether all extensions may be left out: the first letter of those is a capital."""
    while at + 8 + _DIGEST_BYTES <= len(index):
        name, size = struct.unpack_from(">4sI", index, at)
        if not name[:1].isupper():
            return False
        at += 8 + size
    return True


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number as git's packs write offsets, and where it ends; none above a path's length.

    Raises:
        ValueError, IndexError: it is larger, or cut off.
    """
    value = data[at] & 0x7F
    while data[at] & 0x80:
        if value > _PATH_BYTES_MAX:
            raise ValueError("no path is this long")
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
    return value, at + 1
