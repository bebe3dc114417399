"""What fills a prepared PostgreSQL: SQL files, compressed ones, dumps, and folders of them.

SQL is text of the recipe and is run by psql.
A dump in one of pg_dump's other formats stays where it is: its digest is part of the template's
key, and pg_restore reads it, without owners and grants, since those name roles of another server.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cleanroom.core.files import open_to_read
from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceSpec
from cleanroom.services.templates import digest

_CUSTOM, _GZIP, _TAR = b"PGDMP", b"\x1f\x8b", b"toc.dat\0"
_DUMP_FOLDER = "toc.dat"  # is in a dump of pg_dump's directory format
_SUFFIXES = (".sql", ".sql.gz", ".dump", ".backup", ".pgdump")
# Programs that the entry point of the usual images runs from such a folder.
_PROGRAMS = (".sh", ".py")
# An uncompressed script is held in memory, and written for each run.
SQL_BYTES_MAX = 256 << 20


class InitFile(msgspec.Struct, frozen=True):
    """One file of the project: SQL with the name that psql's errors show, or a dump with its path
    and digest.
    """

    name: str
    text: str = ""
    dump: str = ""
    digest: str = ""


def read_init(spec: ServiceSpec) -> tuple[tuple[str, InitFile], ...]:
    """The service's files, in order, each with its path.

    Raises:
        ProjectError: one is missing, unreadable, not UTF-8, or nothing that is run.
    """
    paths = [path for entry in spec.init for path in _files(spec, Path(entry))]
    return tuple(
        (str(path), _read(spec, path, f"{number}-{_plain(path.name)}"))
        for number, path in enumerate(paths, 1)
    )


def prepare_lines(
    init: Sequence[InitFile], private: str, login: str, pg_restore: str
) -> tuple[str, ...]:
    """The lines of the prepare script that run these files; `login` are the options of both."""
    restore = f"{shlex.quote(pg_restore)} --exit-on-error --no-owner --no-privileges -h {private}"
    return tuple(
        f"run {restore} {login} {shlex.quote(file.dump)}"
        if file.dump
        else f"run ask {login} -o /dev/null -f {private}/{file.name}"
        for file in init
    )


def _files(spec: ServiceSpec, path: Path) -> Iterator[Path]:
    """The file itself; of a folder the files that are run, by name."""
    if not path.is_dir() or (path / _DUMP_FOLDER).is_file():
        yield path
        return
    for inside in sorted(path.iterdir()):
        if inside.name.endswith(_PROGRAMS):
            raise _wrong(
                spec,
                f"expected SQL files and dumps in {path}, found the program {inside.name}",
                "name the files that are wanted; what a program does can be a phase of its own",
            )
        if inside.name.endswith(_SUFFIXES) or (inside / _DUMP_FOLDER).is_file():
            yield inside


def _read(spec: ServiceSpec, path: Path, name: str) -> InitFile:
    try:
        if path.is_dir():
            return InitFile(name, dump=str(path), digest=digest(path))
        with open_to_read(path) as file:
            start = file.read(8)
            file.seek(0)
            if start.startswith((_CUSTOM, _TAR)):
                found = hashlib.file_digest(file, "sha256").hexdigest()
                return InitFile(name, dump=str(path), digest=found)
            return InitFile(name.removesuffix(".gz"), _sql(spec, path, file.read(), start))
    except OSError as error:
        raise _wrong(
            spec,
            f"expected a readable SQL file, {path}: {error.strerror or error}",
            "paths are relative to the project",
        ) from error


def _sql(spec: ServiceSpec, path: Path, content: bytes, start: bytes) -> str:
    if start.startswith(_GZIP):
        content = _unpacked(spec, path, content)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _wrong(
            spec,
            f"expected UTF-8, {path} has byte {error.start} that is not",
            "save it as UTF-8",
        ) from error


def _unpacked(spec: ServiceSpec, path: Path, content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            text = file.read(SQL_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(
            spec, f"expected a whole gzip file, {path}: {error}", "pack it again"
        ) from error
    if len(text) > SQL_BYTES_MAX:
        raise _wrong(
            spec,
            f"expected at most {SQL_BYTES_MAX >> 20} MiB of SQL, {path} unpacks to more",
            "make it a dump of pg_dump --format=custom",
        )
    return text


def _plain(name: str) -> str:
    """`name` with every character replaced that a shell would need quoted."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _wrong(spec: ServiceSpec, message: str, hint: str) -> ProjectError:
    return ProjectError(
        "CR-SERVICE-004",
        f"cleanroom.services.{spec.name}.init: {message}",
        hint=hint,
        where=str(spec.origin or ""),
    )
