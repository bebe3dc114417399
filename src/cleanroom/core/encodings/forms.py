"""The parts of a value that are secrets of their own, and how each reads where it is printed.

Pure.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations

from cleanroom.core.encodings.escapes import (
    ESCAPES,
    escape_meaning,
    has_escapes,
    open_escape,
    unescaped,
)
from cleanroom.core.encodings.needles import SHORTEST

# A long value is cut into secrets of PIECE bytes, STEP bytes apart: they overlap, so that no bytes
# are left between two of them.
PIECE, STEP = 64, 48
LINE = 12  # characters from which on a line is a secret of its own: `[default]` is none
_BESIDE = 24  # bytes beside a short line that make it distinct
_FRAME = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]+-----")  # around keys: no part of them


def parts(value: bytes) -> list[bytes]:
    """The parts of a value that are secrets of their own: a short value as a whole, the pieces of a
    long one, and its long lines.
    """
    value = value.strip()
    found = [value] if len(value) <= PIECE else []
    for text in dict.fromkeys((value, unescaped(value))):
        if b"\n" in text or b"\r" in text:
            found += _lines(text)
        else:
            found += _pieces(text)
    return list(dict.fromkeys(found))


def _lines(text: bytes) -> list[bytes]:
    """Long lines by themselves; short lines with the text before them, or after the first."""
    found, at, short = [], 0, -1
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        alone = len(bare) >= LINE
        if alone and not _FRAME.fullmatch(bare):
            found += _pieces(bare)
        if alone and short >= 0:
            found += _seam(text, short, at)
            short = -1
        elif not alone and short < 0 and bare:
            short = at
        at += len(line)
    return found + (_seam(text, short, at) if short >= 0 else [])


def _seam(text: bytes, start: int, end: int) -> list[bytes]:
    """Short lines with some of the text beside them."""
    found = text[start - _BESIDE : end] if start >= _BESIDE else text[: max(end, _BESIDE)]
    return _pieces(found.strip())


def _pieces(value: bytes) -> list[bytes]:
    if len(value) <= PIECE:
        return [value]
    starts = range(0, len(value) - PIECE, STEP)
    return [value[start : start + PIECE] for start in starts] + [value[-PIECE:]]


def plain_forms(part: bytes) -> set[bytes]:
    """The forms of a part where it is printed without an encoding, or once escapes are undone."""
    readable = part.decode("utf-8", "replace")
    forms = {part, readable.encode(), b"".join(map(_narrow, readable)), part.replace(b" ", b"+")}
    if has_escapes(part):
        forms.add(part[: open_escape(part)])  # the rest may have become an escape with what follows
        # An escape in the part itself is undone too where the part was escaped by another kind.
        forms |= {kind.sub(escape_meaning, form) for form in tuple(forms) for kind in _kinds()}
        forms.add(unescaped(unescaped(part)))
    forms.add(part.replace(b"\n", b"\r\n"))
    # inside the single quotes of a shell
    forms |= {part.replace(b"'", quoted) for quoted in (b"'\\''", b"'\"'\"'")}
    return {form for form in forms if len(form) >= SHORTEST and not form.isspace()}


@cache
def _kinds() -> list[re.Pattern[bytes]]:
    """An expression for every choice of kinds of escapes."""
    chosen = [kinds for count in (1, 2, 3) for kinds in combinations(ESCAPES, count)]
    return [re.compile(b"|".join(kinds)) for kinds in chosen]


def _narrow(character: str) -> bytes:
    """The bytes of `\\xe9` where a text was escaped, and not its bytes."""
    code = ord(character)
    return bytes((code,)) if code < 256 else character.encode("utf-8", "replace")
