"""Extensions that the project's own files create: migrations of the usual tools, and SQL files.

Nobody says which of these files a phase runs, so what they create is a hint and no requirement.
The files are hostile: no link is followed, no open waits, and what is looked at is bounded.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from operator import attrgetter
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.model.errors import BackendUnavailable
from cleanroom.services.base import Recipe
from cleanroom.services.extensions import (
    FOUND_MAX,
    CreatedExtension,
    created_extensions,
    migration_warning,
    superuser_warning,
    with_lines,
)
from cleanroom.services.programs import Programs, all_postgres, untrusted_extensions

# Of folders and files, the upper ones first; a large project has 50,000.
ENTRIES_MAX = 100_000
FILES_MAX = 5_000
# A dump of pg_dump creates its extensions at the beginning.
FILE_BYTES_MAX = 1 << 20
BYTES_MAX = 64 << 20

# Folders of what others wrote or tools made; those whose names begin with a dot are left out too.
OTHERS = frozenset(("__pycache__", "node_modules", "site-packages", "target", "vendor"))
# Folders in or below which programs are migrations; SQL files are looked at anywhere.
USUAL = frozenset(
    (
        "alembic",
        "changelog",
        "db",
        "flyway",
        "liquibase",
        "migrate",
        "migration",
        "migrations",
        "prisma",
        "versions",
    )
)
PROGRAMS = (
    *(".cjs", ".cs", ".ex", ".exs", ".go", ".java", ".js", ".kt", ".mjs"),
    *(".php", ".prisma", ".py", ".rb", ".ts", ".xml", ".yaml", ".yml"),
)

# Operations of Django and pgvector whose names say the extension.
_OPERATIONS = {
    "BloomExtension": "bloom",
    "BtreeGinExtension": "btree_gin",
    "BtreeGistExtension": "btree_gist",
    "CITextExtension": "citext",
    "CryptoExtension": "pgcrypto",
    "HStoreExtension": "hstore",
    "TrigramExtension": "pg_trgm",
    "UnaccentExtension": "unaccent",
    "VectorExtension": "vector",
}
# A name between quotes of either kind, also where the text around it is between the same ones.
_QUOTED = r"""\\?["'](?P<{}>[\w-]+)\\?["']"""
# What follows a name in the statement; prose about extensions goes on in another way.
_AFTER_NAME = r"""(?=\s*(?:[;"'`\\<]|$|\b(?:WITH|SCHEMA|VERSION|CASCADE)\b))"""
_CALLS = "CreateExtension|createExtension(?:IfNotExists)?|enable_extension|HasPostgresExtension"
# A line that is a comment, the statement in some text, and what tools have in its place. No part
# of it may be matched in two ways: the time would be the square of a hostile file's length.
_PROGRAM = re.compile(
    rf"""
      ^[^\S\n]*(?:\#|//|--|\*).*$
    | \b(?:CREATE\s+EXTENSION|create\s+extension)\s++(?i:IF\s+NOT\s+EXISTS\s++)?
        (?:{_QUOTED.format("quoted")}|(?P<bare>\w++)){_AFTER_NAME}
    | \b(?P<operation>{"|".join(_OPERATIONS)})\(
    | \b(?:{_CALLS})\b\s*+\(?\s*+(?:name\s*=\s*+)?
        (?::(?P<symbol>\w+)|{_QUOTED.format("argument")}|\[(?P<list>[^\[\]\n]*)\])
    | \bPostgresExtension:(?P<annotation>[\w-]+)
    """,
    re.VERBOSE | re.MULTILINE,
)
_LISTED = re.compile(r"""["']([\w-]+)["']""")
# `extensions = [vector, uuid_ossp(map: "uuid-ossp")]` of a Prisma schema
_PRISMA_LIST = re.compile(
    r"^[^\S\n]*extensions[^\S\n]*=[^\S\n]*\[(?P<list>[^\[\]]*+)\]", re.MULTILINE
)
_PRISMA_NAME = re.compile(r"(?P<name>\w+)\s*+(?:\((?P<options>[^()]*+)\))?")
_PRISMA_MAP = re.compile(r'\bmap:\s*+"(?P<name>[^"]*)"')


def migration_warnings(
    recipes: Sequence[Recipe],
    *,
    root: str,
    caller: Mapping[str, str],
    ignored: Callable[[Collection[str]], Collection[str]],
) -> tuple[str, ...]:
    """What is said of files of the project that create what a server lacks, or what its phases'
    role may not create. Blocks.

    Without a PostgreSQL whose extensions are known nothing is looked at.
    `ignored` says which of some files are no part of the project; it is asked about those only
    of which something would be said.
    """
    servers = [recipe for recipe in recipes if recipe.extensions is not None]
    if not servers:
        return ()
    created = created_in_project(root)
    untrusted = [_untrusted(recipe, created) for recipe in servers]
    said = {
        each.file
        for recipe, names in zip(servers, untrusted, strict=True)
        for each in created
        if each.name in names or each.name not in (recipe.extensions or ())
    }
    if not said:
        return ()
    unwanted = ignored(said)
    created = tuple(each for each in created if each.file not in unwanted)
    found = []
    for recipe, names in zip(servers, untrusted, strict=True):
        found.append(migration_warning(recipe, created, _others(recipe, root, caller)))
        found.append(superuser_warning(recipe, created, names))
    return tuple(filter(None, found))


def _untrusted(recipe: Recipe, created: Sequence[CreatedExtension]) -> Collection[str]:
    """The names of those that the phases' role may not create."""
    if recipe.superuser:
        return ()
    names = {each.name for each in created}
    return untrusted_extensions(recipe.server, recipe.version, names)


def _others(recipe: Recipe, root: str, caller: Mapping[str, str]) -> Iterator[Programs]:
    """The further servers of this machine, as far as they can be told."""
    with suppress(BackendUnavailable):
        for other in all_postgres(caller.get("PATH", ""), root=root):
            if other.server != recipe.server:
                yield other


def created_in_project(root: str) -> tuple[CreatedExtension, ...]:
    """The extensions that migrations and SQL files of a project create, by file and line. Blocks.

    What cannot be read, or lies beyond the bounds, is passed over.
    """
    found: list[CreatedExtension] = []
    left = BYTES_MAX
    try:
        project = Folder.at(Path(root))
    except OSError:
        return ()
    with project:
        for path, content in islice(_files(project), FILES_MAX):
            # Nearly all files say no such thing, and need not be decoded.
            if b"extension" in content.lower():
                found += created_in_file(path, content.decode(errors="replace"))
            left -= len(content)
            if left <= 0 or len(found) >= FOUND_MAX:
                break
    return tuple(sorted(found, key=attrgetter("file")))


def created_in_file(file: str, text: str) -> tuple[CreatedExtension, ...]:
    """The extensions that one file creates, in order. `file` is its name for people."""
    if file.endswith(".sql"):
        return created_extensions(file, text)
    if file.endswith(".prisma"):
        return with_lines(file, text, _of_prisma(text))
    return with_lines(
        file,
        text,
        ((name, match.end()) for match in _PROGRAM.finditer(text) for name in _names(match)),
    )


def _files(project: Folder) -> Iterator[tuple[str, bytes]]:
    """The files to look at, each with its beginning; the upper folders' first."""
    # folders, each with whether programs in it are migrations
    pending = deque([("", False)])
    left = ENTRIES_MAX
    while pending and left > 0:
        path, usual = pending.popleft()
        suffixes = (".sql", *PROGRAMS) if usual else (".sql", ".prisma")
        try:
            folder = project.folder(path)
        except OSError:
            continue
        with folder:
            folders, files = _listed(folder, left)
            left -= len(folders) + len(files) + 1
            for name in files:
                if name.endswith(suffixes):
                    yield path + name, _beginning(folder, name)
        pending.extend(
            (f"{path}{name}/", usual or name.lower() in USUAL)
            for name in folders
            if not name.startswith(".") and name not in OTHERS
        )


def _listed(folder: Folder, entries_max: int) -> tuple[list[str], list[str]]:
    """The names of the folders in a folder, and of all else."""
    folders: list[str] = []
    others: list[str] = []
    with suppress(OSError):
        descriptor = folder.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as items:
                for item in islice(items, entries_max):
                    is_folder = item.is_dir(follow_symlinks=False)
                    (folders if is_folder else others).append(item.name)
        finally:
            os.close(descriptor)
    return sorted(folders), sorted(others)


def _beginning(folder: Folder, name: str) -> bytes:
    """The beginning of a file; nothing of what is no file, or may not be read."""
    try:
        with folder.reading(name) as file:
            return file.read(FILE_BYTES_MAX)
    except OSError:
        return b""


def _names(match: re.Match[str]) -> list[str]:
    if operation := match["operation"]:
        return [_OPERATIONS[operation]]
    if bare := match["bare"]:
        # as PostgreSQL folds a name without quotes
        return [bare.lower()]
    if listed := match["list"]:
        return _LISTED.findall(listed)
    return list(filter(None, match.group("quoted", "symbol", "argument", "annotation")))


def _of_prisma(text: str) -> Iterator[tuple[str, int]]:
    for declared in _PRISMA_LIST.finditer(text):
        for match in _PRISMA_NAME.finditer(declared["list"]):
            mapped = _PRISMA_MAP.search(match["options"] or "")
            name = mapped["name"] if mapped else ""
            yield name or match["name"], declared.start("list") + match.start()
