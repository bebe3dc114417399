"""Digests of a phase's input and output files by content, and stamps of tools, programs and the
system: sizes, times and inodes, which change when those are replaced.

Everything blocks.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cleanroom.core import digests
from cleanroom.engine.phase_cache.input_patterns import (
    literal_folder,
    normalized,
    path_matcher,
)
from cleanroom.engine.phase_cache.keys import RESERVED, TOOL_CACHES, digest
from cleanroom.engine.phases.hidden_programs import words_of

# Package managers rewrite one of these with every program that they put on the machine.
_SYSTEM = (
    "/etc/os-release",
    "/var/lib/dpkg/status",
    "/lib/apk/db/installed",
    "/var/lib/rpm",
    "/usr/lib/sysimage/rpm",
    "/var/lib/pacman/local",
)
_BY_HAND = ("/usr/local", "/opt")  # where programs come without a package manager
_DOCUMENTATION = (
    "/share/doc",
    "/share/man",
)  # ten times as many files as programs, in a Rust toolchain


class NotComparable(Exception):
    """Two runs of the phase cannot be compared, so it runs. `str` is the reason as text."""


def input_digests(root: Path, patterns: Sequence[str], excluded: Sequence[str]) -> dict[str, str]:
    """Path -> digest of each file that a pattern covers, except for files that an `excluded`
    pattern covers, caches of tools, and reserved folders.

    Raises:
        NotComparable: a pattern covers nothing, a file cannot be read, or a link leads to a folder.
    """
    is_excluded = path_matcher(excluded)
    found: dict[str, str] = {}
    for pattern in patterns:
        files = dict(_covered(root, pattern, is_excluded))
        if not files:
            raise NotComparable(f"no file matches its input {pattern!r}")
        found |= files
    return found


def output_digests(
    root: Path, patterns: Sequence[str] | None, written_back: Iterable[str]
) -> dict[str, str]:
    """Path -> digest of each file that a pattern covers.

    Without patterns, of the paths that were written back; `absent` for deleted ones.

    Raises:
        NotComparable: as for `input_digests`.
    """
    if patterns is not None:
        return {
            path: found
            for pattern in patterns
            for path, found in _covered(root, pattern, path_matcher(()))
        }
    paths = [path for path in written_back if not _is_reserved(path)]
    return {path: seen for path in paths if (seen := _digest(root / path, path)) != "folder"}


def changed_output(root: Path, patterns: Sequence[str] | None, known: Mapping[str, str]) -> str:
    """The first output that differs from the `known` digests; empty where none does.

    Raises:
        NotComparable: as for `input_digests`.
    """
    now = output_digests(root, patterns, known)
    return next(
        (path for path in sorted(known.keys() | now.keys()) if known.get(path) != now.get(path)), ""
    )


def tool_stamps(folders: Iterable[str]) -> dict[str, str]:
    """Folder -> digest of names and stamps of all files in it."""
    return {folder: _stamps(folder) for folder in folders}


def system_stamp() -> str:
    """Digest of the machine's kind, its package database, and files installed by hand."""
    return digest(
        [
            platform.system(),
            platform.machine(),
            [_stamp(name) for name in _SYSTEM],
            [_stamps(folder) for folder in _BY_HAND],
        ]
    )


def program_stamps(commands: Sequence[str], path: str) -> dict[str, str]:
    """Program -> stamp, for programs on `path` that words of the commands name."""
    found = (shutil.which(word, path=path) for word in words_of("\n".join(commands)))
    return {program: _stamp(program) for program in found if program}


def _covered(
    root: Path, pattern: str, is_excluded: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    covers = path_matcher((pattern,))
    for path in _walk(root, literal_folder(pattern)):
        if covers(path) and not is_excluded(path):
            yield path, _digest(root / path, path)


def _walk(root: Path, start: str) -> Iterator[str]:
    """Files and links below `start`, or itself, relative to the root."""
    if _is_reserved(start):
        return
    place = root / start
    if start and not stat.S_ISDIR(_mode(place)):
        yield from (start,) if _mode(place) else ()
        return
    pending = [normalized(start)]
    while pending:
        folder = pending.pop()
        try:
            items = sorted(os.scandir(root / folder), key=lambda item: item.name)
        except OSError as error:
            raise NotComparable(f"{folder or '.'} cannot be read: {error.strerror}") from error
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            if _is_reserved(path):
                continue
            if item.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield path


def _is_reserved(path: str) -> bool:
    parts = path.split("/")
    return parts[0] in RESERVED or not set(TOOL_CACHES).isdisjoint(parts)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _digest(file: Path, path: str) -> str:
    """Of a file's content and whether it is a program; of a link's target too."""
    mode = _mode(file)
    try:
        if not mode:
            return "absent"
        if stat.S_ISDIR(mode):
            return "folder"
        if stat.S_ISLNK(mode):
            if file.is_dir():
                raise NotComparable(f"{path} is a link to a folder, whose content is not looked at")
            return digest(
                [str(file.readlink()), digests.of_file(file).hex() if file.is_file() else ""]
            )
        if not stat.S_ISREG(mode):
            raise NotComparable(f"{path} is neither a file, a folder nor a link")
        return digests.of_file(file).hex() + ("x" if mode & 0o111 else "")
    except OSError as error:
        raise NotComparable(f"{path} cannot be read: {error.strerror}") from error


def _stamps(folder: str) -> str:
    total = hashlib.sha256()
    pending = [folder]
    while pending:
        try:
            items = sorted(os.scandir(pending.pop()), key=lambda item: item.name)
        except OSError:
            continue  # a phase cannot use what the engine cannot list
        for item in items:
            if item.name in TOOL_CACHES or item.path.endswith(_DOCUMENTATION):
                continue
            if item.is_dir(follow_symlinks=False):
                pending.append(item.path)
            else:
                total.update(
                    f"{item.path}\0{_stamp(item.path)}\0".encode("utf-8", "surrogateescape")
                )
    return total.hexdigest()


def _stamp(path: str) -> str:
    """Size, time and inode of what is there, and of what a link leads to."""
    try:
        seen = os.lstat(path)
        followed = os.stat(path) if stat.S_ISLNK(seen.st_mode) else seen  # noqa: PTH116 -- 15,000 files: pathlib costs as much as the calls
    except OSError:
        return ""
    return (
        f"{seen.st_ino} {seen.st_mtime_ns} {followed.st_ino} {followed.st_size} "
        f"{followed.st_mtime_ns}"
    )
