"""What callers of the library give, checked before anything is done with it.

A wrong argument is an error that says where, what was expected and what was found; never a bare
exception, and never a run that was carried out in another way than was asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cleanroom.model.errors import UsageError

_SHOWN = 80  # characters of a value


class Expected(NamedTuple):
    """What an argument has to be, in words and as a question;
    `known` are the words to choose from.
    """

    words: str
    holds: Callable[[Any], bool]
    known: tuple[str, ...] = ()


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_path(value: Any) -> bool:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _is_text(value) and value != ""


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _all_are(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A list, and not one text, which is a sequence of texts too."""
    return lambda value: isinstance(value, list | tuple) and all(map(holds, value))


def _are_variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, (*value.keys(), *value.values())))


TEXT = Expected("text", _is_text)
FLAG = Expected("True or False", lambda value: isinstance(value, bool))
WHOLE = Expected("a whole number", _is_whole)
COUNT = Expected("a whole number above 0", lambda value: _is_whole(value) and value > 0)
SECONDS = Expected("a number of seconds above 0", _is_positive)
PATH = Expected("a path, as text or pathlib.Path", _is_path)
TEXTS = Expected("a list of texts", _all_are(_is_text))
PATHS = Expected("a list of paths", _all_are(_is_path))
VARIABLES = Expected("a mapping from names to values, all text", _are_variables)


def one_of(known: Sequence[str]) -> Expected:
    """One of these words."""
    words = f"{', '.join(known[:-1])} or {known[-1]}"
    return Expected(words, lambda value: isinstance(value, str) and value in known, tuple(known))


def optional(expected: Expected) -> Expected:
    """That, or None."""
    holds = expected.holds
    words = f"{expected.words}, or None"
    return expected._replace(words=words, holds=lambda value: value is None or holds(value))


def check(place: str, value: Any, expected: Expected) -> None:
    """`place` names the argument, such as `cleanroom.open: policy`.

    Raises:
        UsageError: it is something else.
    """
    if not expected.holds(value):
        found = f"{place}: expected {expected.words}, found {_shown(value)}"
        raise UsageError("CR-USAGE-003", found, hint=_nearest(value, expected.known))


def check_all(place: str, given: Mapping[str, Any], expected: Mapping[str, Expected]) -> None:
    """Each of the named arguments.

    Raises:
        UsageError: one has a name that does not exist, or is something else than expected.
    """
    for name, value in given.items():
        if name not in expected:
            found = f"{place}: expected one of {', '.join(expected)}, found an argument {name!r}"
            raise UsageError("CR-USAGE-003", found, hint=_nearest(name, tuple(expected)))
        check(f"{place}: {name}", value, expected[name])


def _nearest(value: Any, known: Sequence[str]) -> str:
    if not isinstance(value, str):
        return ""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(value[:_SHOWN].lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}?" if close else ""


def _shown(value: Any) -> str:
    """Its kind too where that alone may be what is wrong; what a mapping holds may be secret."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with something else in it"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
