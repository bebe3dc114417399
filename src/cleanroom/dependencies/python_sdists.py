"""Source archives of Python packages: what they need to be built. Read here, and never run."""

from __future__ import annotations

import bz2
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import anyio.to_thread
import msgspec

from cleanroom.dependencies.model import Problem
from cleanroom.dependencies.python_projects import ProjectNeeds, build_needs
from cleanroom.dependencies.session import Session
from cleanroom.model.errors import ProjectError

_READ_MAX = 1 << 20  # of a file
_UNPACKED_MAX = 2 << 30  # of an archive
_ENTRIES_MAX = 200_000
_NAMES = ("pyproject.toml", "setup.py")


class UnreadableArchive(Exception):
    """What is no source archive, or one that has no end."""


def read_build_needs(path: Path, file: str) -> ProjectNeeds:
    """What the archive's own files ask for; `file` is its name, which says of what kind it is.

    Raises:
        UnreadableArchive: nobody can tell what it asks for.
    """
    read = _of_zip if file.endswith(".zip") else _of_tar
    try:
        # As an unpacker has it: of two files with one name the later one.
        return build_needs(dict(read(path, file)))
    except UnreadableArchive:
        raise
    except (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, ProjectError),
        *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    ) as error:
        raise UnreadableArchive(str(error)) from error


async def noted_build_needs(session: Session, named: str, file: str, path: Path) -> ProjectNeeds:
    """What a source archive asks for to be built; what is not fetched is noted."""
    try:
        needs = await anyio.to_thread.run_sync(read_build_needs, path, file)
    except UnreadableArchive as error:
        why = f"what builds it is not to be read in {file}: {error}"
        session.note(Problem(entry=named, why=why[:300]))
        return ProjectNeeds()
    for one in needs.problems:
        session.note(msgspec.structs.replace(one, entry=f"{named}: {one.entry}"))
    for request in needs.git:
        why = "a package without a wheel asks for it; only the project's own are fetched"
        session.note(Problem(entry=request.text[:100], why=why))
    return needs


def _of_tar(path: Path, file: str) -> Iterator[tuple[str, bytes]]:
    opened = bz2.open if file.endswith(".bz2") else gzip.open
    with opened(path) as unpacked:
        bounded = cast("IO[bytes]", _Bounded(unpacked))
        yield from _members(bounded)


def _members(unpacked: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=unpacked, mode="r:") as archive:
        for number, member in enumerate(archive):
            if number > _ENTRIES_MAX:
                raise UnreadableArchive("it has more files than source archives have")
            name = _own_file(member.name)
            if name is None or not member.isreg():
                continue
            stream = archive.extractfile(member)
            assert stream is not None, "a regular file has content"
            yield name, _limited(stream.read(_READ_MAX + 1))


class _Bounded:
    """What is unpacked, as far as an archive of packages goes: its headers may say any size."""

    def __init__(self, stream: gzip.GzipFile | bz2.BZ2File) -> None:
        self._stream = stream
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _READ_MAX + tarfile.RECORDSIZE:
            raise UnreadableArchive("a header of it is larger than such headers are")
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        if offset > _UNPACKED_MAX:
            raise UnreadableArchive("it is larger than source archives are")
        return self._stream.seek(offset)


def _of_zip(path: Path, _file: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _own_file(member.filename)
            if name is not None and not stat.S_ISLNK(member.external_attr >> 16):
                with archive.open(member) as stream:
                    yield name, _limited(stream.read(_READ_MAX + 1))


def _limited(content: bytes) -> bytes:
    if len(content) > _READ_MAX:
        raise UnreadableArchive("a file that says how it is built is larger than such files are")
    return content


def _own_file(path: str) -> str | None:
    """The name of a file that says how a package is built; it lies in the archive's one folder."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parts[1] if len(parts) == 2 and parts[1] in _NAMES else None
