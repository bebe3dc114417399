"""Git's ignore patterns, matched without git. Pure: no file is read here, no program started.

A pattern becomes one regular expression whose parts never give back what they took, so matching
takes a time bounded by the product of the lengths of pattern and path, whatever the pattern is.
Text is bytes, as for git: `?` is one byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

PATTERN_BYTES_MAX = 4096  # a path is no longer; what is beyond matches nothing
PATTERNS_MAX = 10_000  # of one file; the largest collections of templates have some hundreds

_END = rb"(?=/|\Z)"
_FOLDER = rb"[^/]++/"
_STAR, _STARS, _SLASH = b"*", b"**", b"/"
_SPACES = b" \t\n\r"
_PRINTED = range(0x20, 0x7F)
_LOWER, _UPPER, _DIGITS = (
    b"abcdefghijklmnopqrstuvwxyz",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"0123456789",
)
_ALNUM = _LOWER + _UPPER + _DIGITS
_CLASSES: dict[bytes, Iterable[int]] = {
    b"alnum": _ALNUM,
    b"alpha": _LOWER + _UPPER,
    b"blank": b" \t",
    b"cntrl": (*range(0x20), 0x7F),
    b"digit": _DIGITS,
    b"graph": _PRINTED[1:],
    b"lower": _LOWER,
    b"print": _PRINTED,
    b"punct": tuple(byte for byte in _PRINTED if byte not in _ALNUM + b" "),
    b"space": _SPACES,
    b"upper": _UPPER,
    b"xdigit": _DIGITS + b"abcdefABCDEF",
}


class Pattern(NamedTuple):
    """One line of an ignore file."""

    expression: re.Pattern[bytes]
    negated: bool
    folders_only: bool
    names_only: bool  # compared with the last component, however deep

    def matches(self, path: bytes, folder: bool) -> bool:
        """`path` is relative to the ignore file's folder."""
        if self.folders_only and not folder:
            return False
        text = path.rpartition(b"/")[2] if self.names_only else path
        return self.expression.fullmatch(text) is not None


def parse(content: bytes) -> tuple[Pattern, ...]:
    """The patterns of an ignore file, in its order; lines that are none are left out."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")[: 10 * PATTERNS_MAX]
    found = (_pattern(line.removesuffix(b"\r")) for line in lines)
    return tuple(pattern for pattern in found if pattern is not None)[:PATTERNS_MAX]


def verdict(patterns: Sequence[Pattern], path: bytes, folder: bool) -> bool | None:
    """Ignored or not, as the last pattern that matches says; None where none does."""
    for pattern in reversed(patterns):
        if pattern.matches(path, folder):
            return not pattern.negated
    return None


def _pattern(line: bytes) -> Pattern | None:
    text = _without_spaces(line)
    if not text or text.startswith(b"#") or len(text) > PATTERN_BYTES_MAX:
        return None
    negated = text.startswith(b"!")
    text = text[negated:]
    folders_only = text.endswith(b"/")
    text = text.removesuffix(b"/")
    names_only = b"/" not in text
    tokens = _tokens(text.removeprefix(b"/"), spanning=not names_only)
    if not tokens:
        return None
    return Pattern(re.compile(_expression(tokens), re.DOTALL), negated, folders_only, names_only)


def _without_spaces(line: bytes) -> bytes:
    """Without the spaces at its end, but for one that a backslash keeps."""
    end = at = 0
    while at < len(line):
        at += 2 if line[at : at + 1] == b"\\" else 1
        if line[at - 1 : at] != b" " or line[at - 2 : at - 1] == b"\\":
            end = at
    return line[:end]


def _tokens(text: bytes, *, spanning: bool) -> list[bytes] | None:
    """`*`, `**`, `/`, and for everything else the expression of one byte; None: it matches nothing.

    `spanning`: a `**` that is a whole component stands for any number of them.
    """
    tokens: list[bytes] = []
    at = 0
    while at < len(text):
        byte = text[at : at + 1]
        if byte == b"*":
            run = re.compile(rb"\*+").match(text, at)
            assert run is not None
            at = run.end()
            whole = tokens[-1:] in ([], [_SLASH]) and text[at : at + 1] in (b"", b"/")
            tokens.append(_STARS if spanning and whole and len(run[0]) > 1 else _STAR)
        elif byte == b"[":
            found = _set(text, at + 1)
            if found is None:
                return None
            expression, at = found
            tokens.append(expression)
        elif byte == b"?":
            tokens.append(b"[^/]")
            at += 1
        else:
            at += byte == b"\\"
            if at == len(text):
                return None
            tokens.append(re.escape(text[at : at + 1]))
            at += 1
    return tokens


def _set(text: bytes, at: int) -> tuple[bytes, int] | None:
    """The expression of the set that begins at `at`, and where it ends; None if it does not."""
    negated = text[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    begins, low = at, 0
    while at == begins or text[at : at + 1] != b"]":
        byte = text[at : at + 1]
        if byte == b"-" and low and text[at + 1 : at + 2] not in (b"", b"]"):
            at += 1 + (text[at + 1 : at + 2] == b"\\")
            members.update(range(low, text[at] + 1) if at < len(text) else ())
            low = 0
        elif byte == b"[" and (named := re.compile(rb"\[:([^\]]*):\]").match(text, at)):
            if named[1] not in _CLASSES:
                return None
            members.update(_CLASSES[named[1]])
            at, low = named.end() - 1, 0
        else:
            at += byte == b"\\"
            if at >= len(text):
                return None
            low = text[at]
            members.add(low)
        at += 1
        if at >= len(text):
            return None
    members ^= {0x2F} if negated != (0x2F in members) else set()
    listed = b"".join(b"\\x%02x" % member for member in sorted(members))
    if not listed:
        return rb"(?!)", at + 1
    return b"[" + b"^" * negated + listed + b"]", at + 1


def _expression(tokens: Sequence[bytes]) -> bytes:
    """What stands between two gaps is taken where it comes first.

    No later place has to be tried, since what follows can begin behind any later place too.
    """
    # Components that follow each other, divided where any number of others may stand.
    stretches: list[list[list[bytes]]] = [[]]
    for component in _split(tokens, _SLASH):
        if component != [_STARS]:
            stretches[-1].append(component)
        elif len(stretches) == 1 or stretches[-1]:
            stretches.append([])
    first, *rest = (b"/".join(map(_component, stretch)) for stretch in stretches)
    if not rest:
        return first
    *middle, last = rest
    made = first + b"/" if first else b""
    made += b"".join(b"(?>(?:" + _FOLDER + b")*?" + stretch + b"/)" for stretch in middle)
    return made + (b"(?:" + _FOLDER + b")*" + last if last else b".+")


def _component(tokens: Sequence[bytes]) -> bytes:
    first, *rest = (b"".join(piece) for piece in _split(tokens, _STAR))
    if not rest:
        return b"(?>" + first + _END + b")"
    *middle, last = rest
    made = first + b"".join(b"(?>[^/]*?" + piece + b")" for piece in middle if piece)
    return b"(?>" + made + b"[^/]*?" + last + _END + b")"


def _split(tokens: Sequence[bytes], at: bytes) -> list[list[bytes]]:
    parts: list[list[bytes]] = [[]]
    for token in tokens:
        if token == at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts
