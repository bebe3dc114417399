"""Which shared libraries an ELF program loads, and in which folders: read from its file.

`ldd` says the same by running a loader on it, which a program out of a workspace is not given. Only
what a bundled installation has in folders of its own is looked for; what comes from the system's
folders every environment sees anyway. Pure but for reading files.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3  # p_type
_NEEDED, _STRINGS, _RPATH, _RUNPATH = 1, 5, 15, 29  # d_tag
_CONFIGURATION = "/etc/ld.so.conf"
_LIBRARIES_MOST = 1000  # an installation has tens
_FILE_MOST = 1 << 28
_DYNAMIC_MOST = 1 << 16  # bytes: thousands of entries, where tens are usual


class _Object(NamedTuple):
    """What one program or library says of itself."""

    needed: tuple[str, ...]
    folders: tuple[str, ...]  # where they are looked for first
    loader: str


def library_folders(program: Path) -> list[Path]:
    """Folders of the loader and the libraries that `program` loads from outside the system's cache.

    Links are resolved, each folder is there once. Empty for what is no ELF file of this machine's
    word size.
    """
    found: dict[Path, None] = {}
    done: set[str] = set()
    # Each object with the folders that those before it look in, which count for it too.
    todo: list[tuple[str, tuple[str, ...]]] = [(os.path.realpath(program), ())]
    while todo and len(done) < _LIBRARIES_MOST:
        path, inherited = todo.pop()
        if path in done:
            continue
        done.add(path)
        described = _described(path)
        if described is None:
            continue
        folders = (*described.folders, *inherited)
        if described.loader:
            found[Path(os.path.realpath(described.loader)).parent] = None
        for name in described.needed:
            if library := _first(name, (*folders, *_configured())):
                found[Path(library).parent] = None
                todo.append((library, folders))
    return list(found)


def _first(name: str, folders: tuple[str, ...]) -> str:
    """The library's file, links resolved; "" where none of the folders has it."""
    places = (Path(folder, name) for folder in folders)
    readable = (place for place in places if os.access(place, os.R_OK) and place.is_file())
    return next(map(os.path.realpath, readable), "")


def _described(path: str) -> _Object | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_MOST)
        return _parsed(data, os.path.dirname(path))
    except (OSError, struct.error, IndexError, ValueError):
        return None


def _parsed(data: bytes, origin: str) -> _Object | None:
    """Of a 64-bit file; None for any other one."""
    if data[:5] != b"\x7fELF\2":
        return None
    order = "<" if data[5] == 1 else ">"
    segments = list(_segments(data, order))
    loader = next((_text(data, at) for kind, at, _, _ in segments if kind == _INTERPRETER), "")
    dynamic = next(((at, size) for kind, at, _, size in segments if kind == _DYNAMIC), None)
    if dynamic is None:
        return _Object((), (), loader)
    at, size = dynamic
    size = min(size, _DYNAMIC_MOST)
    tags = list(struct.iter_unpack(f"{order}QQ", data[at : at + size - size % 16]))
    address = next(value for tag, value in tags if tag == _STRINGS)
    strings = next(
        address - virtual + start
        for kind, start, virtual, size in segments
        # An address of the running program, of which the file holds this much of a segment.
        if kind == _LOAD and virtual <= address < virtual + size
    )
    needed = tuple(_text(data, strings + value) for tag, value in tags if tag == _NEEDED)
    listed = [_text(data, strings + value) for tag, value in tags if tag in (_RPATH, _RUNPATH)]
    folders = [folder for text in listed for folder in text.split(":") if folder]
    return _Object(needed, tuple(_placed(folder, origin) for folder in folders), loader)


def _segments(data: bytes, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Type, place in the file, address and size of each."""
    (start,) = struct.unpack_from(f"{order}Q", data, 32)
    step, count = struct.unpack_from(f"{order}HH", data, 54)
    for number in range(count):
        place = start + number * step
        kind, _, at, address, _, size = struct.unpack_from(f"{order}IIQQQQ", data, place)
        yield kind, at, address, size


def _text(data: bytes, at: int) -> str:
    return os.fsdecode(data[at : data.index(b"\0", at)])


def _placed(folder: str, origin: str) -> str:
    return re.sub(r"\$(\{ORIGIN\}|ORIGIN\b)", lambda _: origin, folder)


def _configured(path: str = _CONFIGURATION, depth: int = 3) -> tuple[str, ...]:
    """The folders that the machine's dynamic linker is told of."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found: list[str] = []
    for line in (line.partition("#")[0].strip() for line in lines):
        if line.startswith("include ") and depth:
            for other in sorted(Path("/").glob(line.split(None, 1)[1].lstrip("/"))):
                found += _configured(str(other), depth - 1)
        elif line.startswith("/"):
            found.append(line)
    return tuple(found)
