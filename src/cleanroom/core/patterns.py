"""Declared names: each is a name, or a pattern of names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(name: str, declared: str) -> bool:
    """Whether `declared` covers `name`, in one of its readings."""
    return any(fnmatchcase(name, reading) for reading in readings(declared))


def any_matches(names: Iterable[str], declared: str) -> bool:
    """Whether `declared` covers one of `names`."""
    return any(matches(name, declared) for name in names)


def readings(declared: str) -> tuple[str, ...]:
    """The patterns that `declared` can stand for: with square brackets as a set of characters, and
    with square brackets as themselves.

    IPv6 addresses are written with them, and so are the route files of web frameworks.
    `*` and `?` need no second reading: each fits itself.
    """
    return (declared, declared.replace("[", "[[]")) if "[" in declared else (declared,)
