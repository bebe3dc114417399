"""Escapes of JSON, languages and shells, of addresses, and of XML and HTML, undone.

`\\n` `\\u0041` `\\x41` `\\101` `\\"`; `%41`; `&lt;` `&#65;` `&#x41;`. Pure.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cleanroom.core.encodings.hex_digits import HEX_DIGIT
from cleanroom.core.encodings.reading import Reading

# One expression for each kind: with backslashes, of XML and HTML, of addresses.
ESCAPES = (
    rb"\\(?:u[dD][89abAB]%(h)b{2}\\u[dD][c-fC-F]%(h)b{2}"
    rb"|u%(h)b{4}|u\{%(h)b{1,6}\}|U%(h)b{8}|x%(h)b{2}|[0-7]{1,3}"
    rb"|[abefnrtv]|[^0-9A-Za-z\n])" % {b"h": HEX_DIGIT},
    rb"&(?:#[0-9]{1,9}|#[xX]%(h)b{1,8}|[A-Za-z][A-Za-z0-9]{1,31});" % {b"h": HEX_DIGIT},
    rb"%%%(h)b{2}" % {b"h": HEX_DIGIT},
)
_ESCAPE = re.compile(b"|".join(ESCAPES))
# The beginning of an escape at the end of a text; each two backslashes before it are an escape.
_OPEN_ESCAPE = re.compile(
    rb"(?<!\\)(?:\\\\)*("
    rb"\\(?:u[dD][89abAB]%(h)b{2}(?:\\(?:u(?:[dD](?:[c-fC-F]%(h)b?)?)?)?)?"
    rb"|u%(h)b{0,3}|u\{%(h)b{0,6}|U%(h)b{0,7}|x%(h)b?|[0-7]{0,2})"
    rb"|&(?:#[0-9]{0,9}|#[xX]%(h)b{0,8}|[A-Za-z][A-Za-z0-9]{0,31})?"
    rb"|%%%(h)b?)\Z" % {b"h": HEX_DIGIT}
)
_LONGEST_ESCAPE = 48  # bytes, with the backslashes before it that are searched
_LETTERS = dict(zip(b"abefnrtv", b"\a\b\x1b\f\n\r\t\v", strict=True))


def has_escapes(text: bytes) -> bool:
    """Whether there may be escapes: three searches for one byte, which take hardly any time."""
    return b"\\" in text or b"%" in text or b"&" in text


def unescaped(text: bytes) -> bytes:
    """`text` with its escapes undone once."""
    return _ESCAPE.sub(escape_meaning, text) if has_escapes(text) else text


def escapes_undone(text: bytes) -> Reading:
    """`text` with its escapes undone once, and the positions that it came from."""
    return Reading(text, _ESCAPE, escape_meaning)


def open_escape(text: bytes) -> int:
    """The start of an incomplete escape at the end of `text`; its length if there is none."""
    tail = text[-_LONGEST_ESCAPE:]
    found = _OPEN_ESCAPE.search(tail) if has_escapes(tail) else None
    return len(text) - len(tail) + found.start(1) if found else len(text)


def escape_meaning(match: re.Match[bytes]) -> bytes:
    """The bytes that a matched escape stands for."""
    return _escaped(match[0])


@lru_cache(4096)
def _escaped(token: bytes) -> bytes:
    """The bytes that one escape stands for; the token itself if it is no escape after all."""
    if token.startswith(b"%"):
        return bytes.fromhex(token[1:].decode())
    if token.startswith(b"&"):
        return _entity(token)
    letter, rest = token[1:2], token[2:].strip(b"{}")
    if letter in (b"u", b"U"):
        return _character(token, rest, 16) if b"\\" not in rest else _surrogates(rest)
    if letter == b"x":
        return bytes.fromhex(rest.decode())
    if letter.isdigit():
        return bytes((int(token[1:], 8) & 0xFF,))
    return bytes((_LETTERS.get(letter[0], letter[0]),))


def _entity(token: bytes) -> bytes:
    name = token[1:-1]
    if name.startswith((b"#x", b"#X")):
        return _character(token, name[2:], 16)
    if name.startswith(b"#"):
        return _character(token, name[1:], 10)
    from html.entities import html5

    known = html5.get(f"{name.decode()};")
    return known.encode() if known else token


def _character(token: bytes, digits: bytes, base: int) -> bytes:
    number = int(digits, base)
    return chr(number).encode("utf-8", "surrogatepass") if number < 0x110000 else token


def _surrogates(rest: bytes) -> bytes:
    high, low = int(rest[:4], 16), int(rest[-4:], 16)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).encode()
