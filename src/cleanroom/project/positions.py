"""Positions of the keys and values of a TOML text.

`tomllib` keeps none.
This scanner runs over a text that `tomllib` has accepted, and validates nothing itself.
Syntax that it does not know ends the scan, and a path without a position has that of its nearest
ancestor.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

KeyPath = tuple[str | int, ...]

# No project nests deeper; the bound keeps hostile files from costing quadratic time or the
# interpreter's stack.
DEPTH_MAX = 100
# Longer paths get the position of their ancestor: no message names a key that deep.
_RECORDED_MAX = 12

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRING = re.compile(
    r'''"""(?:[^\\]|\\[\s\S])*?"""(?:"{0,2})|\'\'\'[\s\S]*?\'\'\'(?:'{0,2})|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\''''
)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:[^\s,\]}#]*|[^\s,\]}#]+")
_DEEP_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){%d,}+"""  # noqa: UP031 -- the braces of the pattern
    % DEPTH_MAX
)


class TooDeep(Exception):
    """Arrays or inline tables are nested deeper than DEPTH_MAX; `offset` is where."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class _Lost(Exception):
    """The scanner met syntax that it does not know."""


def deep_key(text: str) -> int | None:
    """The offset of a key with more than DEPTH_MAX dotted parts, None where there is none.

    `tomllib` takes quadratic time for such a key.
    """
    found = _DEEP_KEY.search(text)
    return found.start() if found else None


def deep_value(text: str) -> int | None:
    """The offset of a value that is nested deeper than DEPTH_MAX, None where there is none.

    `tomllib` need not have accepted the text.
    """
    try:
        Positions(text)
    except TooDeep as deep:
        return deep.offset
    return None


class Positions:
    """Offsets of keys and values by path, scanned once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._keys: dict[KeyPath, int] = {}
        self._values: dict[KeyPath, int] = {}
        self._elements: dict[KeyPath, int] = {}  # array of tables -> index of its newest element
        try:
            self._scan()
        except _Lost:
            pass  # the positions so far serve; the rest fall back to their ancestors

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def key(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of the key of `path`, or of its nearest ancestor that has a position."""
        return self._find(path, self._keys, self._values)

    def value(self, path: KeyPath) -> tuple[int, int]:
        """Line and column of the first character of the value of `path`."""
        return self._find(path, self._values, self._keys)

    def _find(
        self, path: KeyPath, first: dict[KeyPath, int], second: dict[KeyPath, int]
    ) -> tuple[int, int]:
        while path:
            offset = first.get(path, second.get(path))
            if offset is not None:
                return self.place(offset)
            path = path[:-1]
        return 1, 1

    def _scan(self) -> None:
        base: KeyPath = ()
        at = self._skip(0)
        while at < len(self._text):
            if self._text[at] == "[":
                base, at = self._header(at)
            else:
                at = self._pair(base, at, 0)
            at = self._skip(at)

    def _header(self, at: int) -> tuple[KeyPath, int]:
        start, double = at, self._text.startswith("[[", at)
        parts, at = self._dotted(at + (2 if double else 1))
        path: KeyPath = ()
        for part, _ in parts[:-1]:
            path = self._inside((*path, part))
            self._note(self._keys, path, start)
        path = (*path, parts[-1][0])
        self._note(self._keys, path, start)
        if double:
            self._elements[path] = self._elements.get(path, -1) + 1
            path = self._inside(path)
            self._note(self._keys, path, start)
        else:
            path = self._inside(path)
        closing = "]]" if double else "]"
        if not self._text.startswith(closing, at):
            raise _Lost
        return path, at + len(closing)

    def _inside(self, path: KeyPath) -> KeyPath:
        return (*path, self._elements[path]) if path in self._elements else path

    def _pair(self, base: KeyPath, at: int, depth: int) -> int:
        parts, at = self._dotted(at)
        path = base
        for part, offset in parts:
            path = (*path, part)
            self._note(self._keys, path, offset)
        if self._text[at : at + 1] != "=":
            raise _Lost
        at = self._match(_SPACE, at + 1)
        return self._value(path, at, depth)

    def _value(self, path: KeyPath, at: int, depth: int) -> int:
        if depth > DEPTH_MAX:
            raise TooDeep(at)
        self._note(self._values, path, at)
        opening = self._text[at : at + 1]
        if opening == "[":
            return self._array(path, at + 1, depth + 1)
        if opening == "{":
            return self._inline(path, at + 1, depth + 1)
        return self._match(_STRING if opening in ('"', "'") else _SCALAR, at)

    def _array(self, path: KeyPath, at: int, depth: int) -> int:
        index = 0
        at = self._skip(at)
        while self._text[at : at + 1] != "]":
            at = self._skip(
                self._value((*path, index) if len(path) <= _RECORDED_MAX else path, at, depth)
            )
            index += 1
            if self._text[at : at + 1] == ",":
                at = self._skip(at + 1)
            elif self._text[at : at + 1] != "]":
                raise _Lost
        return at + 1

    def _inline(self, path: KeyPath, at: int, depth: int) -> int:
        at = self._skip(at)
        while self._text[at : at + 1] != "}":
            at = self._skip(self._pair(path, at, depth))
            if self._text[at : at + 1] == ",":
                at = self._skip(at + 1)
            elif self._text[at : at + 1] != "}":
                raise _Lost
        return at + 1

    def _dotted(self, at: int) -> tuple[list[tuple[str, int]], int]:
        parts = []
        while True:
            at = self._match(_SPACE, at)
            found = _KEY.match(self._text, at)
            if not found:
                raise _Lost
            parts.append((_plain(found.group()), at))
            at = self._match(_SPACE, found.end())
            if self._text[at : at + 1] != ".":
                return parts, at
            at += 1

    def _note(self, places: dict[KeyPath, int], path: KeyPath, offset: int) -> None:
        if len(path) <= _RECORDED_MAX:
            places.setdefault(path, offset)

    def _skip(self, at: int) -> int:
        return self._match(_BLANK, at)

    def _match(self, pattern: re.Pattern[str], at: int) -> int:
        found = pattern.match(self._text, at)
        if not found:
            raise _Lost
        return found.end()


def _plain(key: str) -> str:
    """The key that a quoted or bare token stands for."""
    if key[0] == "'":
        return key[1:-1]
    if key[0] != '"':
        return key
    if "\\" not in key:
        return key[1:-1]
    try:
        return str(tomllib.loads("key = " + key)["key"])
    except tomllib.TOMLDecodeError:
        raise _Lost from None
