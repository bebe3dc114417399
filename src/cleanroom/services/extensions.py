"""Extensions that SQL files create, and whether a PostgreSQL server has them.

A file is read as the server's scanner would: comments, strings, function bodies and the rows of a
dump contain no statement.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

import msgspec

from cleanroom.model.errors import ServiceFailed
from cleanroom.services.base import Recipe
from cleanroom.services.programs import Programs

# What is passed over, then the statement itself. Each alternative begins with another character
# or word, so none is tried twice at one place; and what has no end goes on to the file's, so that
# no text is read again and again.
_SQL = re.compile(
    r"""
      --[^\n]*
    | /\*.*?(?:\*/|\Z)
    | \$(?P<tag>(?!\d)\w*)\$.*?(?:\$(?P=tag)\$|\Z)
    | \b[eE]'(?:[^'\\]|''|\\.)*+(?:'|\Z)
    | '(?:[^']|'')*+(?:'|\Z)
    | "[^"\n]*"
    | (?i:\bCOPY\b)(?:[^;']*(?i:\bFROM\s+STDIN\b)[^;]*+(?:;.*?(?:^\\\.$|\Z)|\Z)|[^;']*+)
    | (?i:\bCREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?)(?P<name>"[^"\n]+"|\w+)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
FOUND_MAX = 1000  # of the extensions that files create: a hostile file has half a million
PLACES_MAX = 10  # of the files that create what is missing
SHOWN_MAX = 60  # of the extensions that there are; a server with all of contrib has about 50


class CreatedExtension(msgspec.Struct, frozen=True):
    """One `CREATE EXTENSION` of a file."""

    name: str
    file: str
    line: int


def created_extensions(file: str, text: str) -> tuple[CreatedExtension, ...]:
    """The extensions that SQL creates, in order. `file` is its name for people."""
    return with_lines(
        file,
        text,
        (
            (_name(found["name"]), found.start("name"))
            for found in _SQL.finditer(text)
            if found["name"]
        ),
    )


def with_lines(
    file: str, text: str, found: Iterable[tuple[str, int]]
) -> tuple[CreatedExtension, ...]:
    """Names that were found in a text, each with its offset, in order; of a hostile text the
    first ones.
    """
    created: list[CreatedExtension] = []
    line, counted = 1, 0
    for name, at in islice(found, FOUND_MAX):
        line += text.count("\n", counted, at)
        counted = at
        created.append(CreatedExtension(name, file, line))
    return tuple(created)


def migration_warning(
    recipe: Recipe, created: Sequence[CreatedExtension], others: Iterable[Programs]
) -> str:
    """What is said of files that create extensions which the service's server lacks; "" where it
    has all, or where that is not known.

    `others` as in `missing_extensions`; they are asked for only where one is missing.
    """
    if recipe.extensions is None:
        return ""
    missing = [each for each in created if each.name not in recipe.extensions]
    if not missing:
        return ""
    return (
        f"service {recipe.name!r}: this server, PostgreSQL {recipe.version} ({recipe.server}), "
        f"lacks extensions that files of the project create: {_places(missing)}; "
        f"it has {_shown(recipe.extensions)}; "
        f"{_hint(recipe.name, {each.name for each in created}, others)}"
    )


def superuser_warning(
    recipe: Recipe, created: Sequence[CreatedExtension], untrusted: Collection[str]
) -> str:
    """What is said of files that create extensions which the phases' role may not create; ""
    where there are none.
    """
    refused = [each for each in created if each.name in untrusted]
    if not refused:
        return ""
    return (
        f"service {recipe.name!r}: files of the project create extensions that PostgreSQL lets "
        f"only a superuser create: {_places(refused)}; superuser = true under "
        f"[cleanroom.services.{recipe.name}] makes the phases' role one"
    )


def missing_extensions(
    service: str,
    asked: Sequence[CreatedExtension],
    programs: Programs,
    others: Iterable[Programs],
) -> ServiceFailed | None:
    """Why `programs` cannot run the files, where they create extensions that it lacks.

    `others` are further servers of this machine, one of which may have all of them.
    """
    if programs.extensions is None:
        return None
    missing = [each for each in asked if each.name not in programs.extensions]
    if not missing:
        return None
    wanted = "; ".join(f"{each.file}:{each.line}: {each.name}" for each in missing)
    return ServiceFailed(
        "CR-SERVICE-032",
        (
            f"service {service!r}: this server, PostgreSQL {programs.version} "
            f"({programs.source}: {programs.server}), lacks extensions that its init files create: "
            f"{wanted}; it has {_shown(programs.extensions)}"
        ),
        hint=_hint(service, {each.name for each in asked}, others),
        where=f"{missing[0].file}:{missing[0].line}",
    )


def _hint(service: str, asked: set[str], others: Iterable[Programs]) -> str:
    others = list(others)
    for other in others:
        if asked <= set(other.extensions or ()):
            major = other.version.partition(".")[0]
            return (
                f"PostgreSQL {other.version} in {other.server} has all of them: "
                f'version = "{major}" under [cleanroom.services.{service}] takes it'
            )
    parts = []
    for other in others:
        has = sorted(asked & set(other.extensions or ()))
        lacks = sorted(asked - set(other.extensions or ()))
        if has:
            parts.append(f"{other.version} in {other.server} has {_said(has)}, not {_said(lacks)}")
    parts.append(
        "Debian's and PostgreSQL's own packages have pgcrypto and uuid-ossp (postgresql-N), vector "
        "is postgresql-N-pgvector, PostGIS postgresql-N-postgis-3; CLEANROOM_POSTGRES_BIN or "
        "`version` chooses the server"
    )
    if asked & {"pgcrypto", "uuid-ossp"}:
        parts.append("gen_random_uuid() and sha256() need no extension")
    return "; ".join(parts)


def _places(created: Sequence[CreatedExtension]) -> str:
    shown = [f"{each.file}:{each.line}: {each.name}" for each in created[:PLACES_MAX]]
    if len(created) > PLACES_MAX:
        shown.append(f"and {len(created) - PLACES_MAX} more")
    return "; ".join(shown)


def _shown(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_MAX
    return ", ".join(names[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _said(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _name(written: str) -> str:
    """A quoted name as it is; any other in lower case."""
    return written[1:-1] if written.startswith('"') else written.lower()
