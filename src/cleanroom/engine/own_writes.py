"""What a run itself writes into the project, told to the command that watches the project.

The watching process makes a file without a name, and the run's process adds a line per path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple


class Stamp(NamedTuple):
    """What tells one state of a file or link from another."""

    mode: int
    inode: int
    size: int
    modified_ns: int


class OwnWrites(NamedTuple):
    """What one run wrote."""

    # absolute path -> its state right after; None: removed
    stamps: dict[str, Stamp | None]
    # a phase ran on the host or in the project itself, and may have written anything
    anything: bool = False


_DESCRIPTOR: ContextVar[int] = ContextVar("own_writes", default=-1)
_ANYTHING = "*"


def tell_to(descriptor: int) -> None:
    """Let this process's runs tell what they write."""
    _DESCRIPTOR.set(descriptor)


def tell_written(root: str, paths: Iterable[str]) -> None:
    """Tell that these paths below `root` were written, if somebody listens."""
    if _DESCRIPTOR.get() < 0:
        return
    top = os.path.realpath(root)
    lines = [json.dumps([place := os.path.join(top, path), stamp(place)]) for path in paths]
    _tell(lines)


def tell_anything() -> None:
    """Tell that a command on the host, or one that writes to the project itself, may have written
    anything, if somebody listens.
    """
    if _DESCRIPTOR.get() >= 0:
        _tell([json.dumps([_ANYTHING, None])])


def read(descriptor: int) -> OwnWrites:
    """What was told."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), encoding="ascii") as file:
        rows = [json.loads(line) for line in file]
    stamps = {path: Stamp(*found) if found else None for path, found in rows}
    return OwnWrites(stamps, anything=_ANYTHING in stamps)


def stamp(path: str) -> Stamp | None:
    """The state of what is there; None for nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return Stamp(found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns)


def _tell(lines: list[str]) -> None:
    content = "".join(f"{line}\n" for line in lines).encode("ascii")
    while content:
        content = content[os.write(_DESCRIPTOR.get(), content) :]
