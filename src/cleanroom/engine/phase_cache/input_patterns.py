"""Patterns of `cache.inputs` and `outputs`: which paths they cover, and where to look for those."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from cleanroom.core.patterns import readings


def path_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function that tells whether one of the patterns covers a path, or a folder above it.

    `*` and `?` match `/` too, so that a pattern never covers less than a reader may think;
    `**/` matches no folder as well, and square brackets are also themselves.
    The time it takes is bounded by the lengths of path and pattern, whatever the pattern is.
    """
    read = [reading for pattern in patterns for reading in readings(pattern)]
    expression = re.compile(
        "|".join(f"(?:{_expression(pattern)})(?:/.*)?" for pattern in read) or r"(?!)", re.DOTALL
    )
    return lambda path: expression.fullmatch(path) is not None


def literal_folder(pattern: str) -> str:
    """The folder that everything the pattern covers lies in; empty for the root."""
    before = re.split(r"[*?\[]", normalized(pattern), maxsplit=1)
    return before[0].rpartition("/")[0] if len(before) > 1 else before[0]


def normalized(pattern: str) -> str:
    """Without `./`, doubled and trailing slashes; empty for the project itself."""
    return "/".join(part for part in pattern.split("/") if part not in ("", "."))


def _expression(pattern: str) -> str:
    """The pattern as a regular expression.

    Each piece between two gaps is an atomic group, so that it matches at its first place and no
    later one is tried: whatever follows can begin at any later place too.
    """
    first, *rest = _pieces(normalized(pattern) or "*")
    expression = first[1]
    for number, (gap, piece) in enumerate(rest, 1):
        expression += f"(?>{gap}{piece})" if number < len(rest) else gap + piece
    return expression


_ANYTHING, _FOLDERS = ".*?", "(?:.*?/)??"


def _pieces(text: str) -> list[tuple[str, str]]:
    """The pattern as pieces of a fixed length, each with the gap before it."""
    pieces = [("", "")]
    while text:
        if wild := re.match(r"(?:\*\*/|\*)+", text):
            # Folders may be left out only where a folder begins:
            # elsewhere anything may stand, which covers more.
            begins = (pieces[-1][1] or "/").endswith("/")
            folders = begins and not wild[0].replace("**/", "")
            pieces.append((_FOLDERS if folders else _ANYTHING, ""))
            text = text[wild.end() :]
            continue
        gap, piece = pieces.pop()
        single, text = _single(text)
        pieces.append((gap, piece + single))
    return pieces


def _single(text: str) -> tuple[str, str]:
    """The expression of one character of the pattern, and the rest of the pattern."""
    if text[0] == "[" and (found := re.match(r"\[(!?)([^\]]+)\]", text)):
        characters = re.escape(found[2]).replace(r"\-", "-")
        return f"[{'^' if found[1] else ''}{characters}]", text[found.end() :]
    return "." if text[0] == "?" else re.escape(text[0]), text[1:]
