"""Bytes printed as hexadecimal digits, as `xxd`, `od` and `hexdump` print them too.

Their separators, line breaks, offsets and columns of text are read over. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom.core.encodings.needles import SHORTEST, Needles, Span
from cleanroom.core.encodings.reading import Reading, last_run, removed

HEX_DIGIT = rb"[0-9a-fA-F]"
_SHORTEST_HEX = 2 * SHORTEST
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")
DIGITS = rb"[0-9a-fA-F :,x-]{14}"  # before a line break among hexadecimal digits
OFFSET = rb"%b{6,16}:?[ \t]{1,4}" % HEX_DIGIT
_SEPARATOR = re.compile(
    # the column of text, and the offset of the next line
    rb" (?<=%(h)b{2} )[ \t]{1,64}[^\r\n]{1,18}\r?\n%(o)b"
    rb"|\n(?<=%(d)b\n)(?:%(o)b|[ \t]{0,16})(?:0x)?"
    rb"|\r\n(?<=%(d)b\r\n)(?:%(o)b|[ \t]{0,16})(?:0x)?"
    rb"|[ :,-](?<=%(h)b{2}[ :,-])[ \t]{0,2}(?:0x)?" % {b"h": HEX_DIGIT, b"d": DIGITS, b"o": OFFSET}
)
_DUMPED = re.compile(rb"\n%b%b{2}" % (OFFSET, HEX_DIGIT))  # a later line of a dump
_DUMP_LINE = re.compile(rb"%b%b{2}" % (OFFSET, HEX_DIGIT))
# Where one of the separators may begin that is not whole yet.
_OPEN_SEPARATOR = re.compile(
    rb"(?<=%(h)b{2})(?=(?:[ :,-][ \t]{0,2})?(?:\r?\n?[ \t]{0,16})?0?\Z)" % {b"h": HEX_DIGIT},
)
_SEPARATOR_BYTES = 24
_OPEN_COLUMN = re.compile(
    rb"(?<=%(h)b{2})(?=(?:[ \t]{2,64}[^\r\n]{0,18})?"
    rb"(?:\r?\n?|\r?\n%(h)b{1,16}:?[ \t]{0,4})\Z)" % {b"h": HEX_DIGIT}
)
_REST_OF_LINE = re.compile(rb"(?:[ \t]{0,2}%b{2}){0,64}(?:[ \t]{2,64}[^\r\n]{1,18})?" % HEX_DIGIT)
_REST_BYTES = 160  # a longer line is none of a dump
_DUMP_TAIL = 768  # bytes that hold the longest value in digits, whatever stands between them
_LOWER_DIGITS = b"0123456789abcdef"
_EACH_DIGIT = tuple(bytes((byte,)) for byte in b"0123456789abcdefABCDEF")
_NOWHERE = 1 << 60  # beyond every text


def hex_forms(part: bytes) -> set[bytes]:
    """The part's digits, also as words of two bytes, as a little-endian machine prints them."""
    forms = {part, _swapped(part), _swapped(part[1:])}
    return {digits for form in forms if len(digits := form.hex().encode()) >= _SHORTEST_HEX}


def _swapped(part: bytes) -> bytes:
    whole = len(part) & ~1
    pairs = zip(part[1:whole:2], part[0:whole:2], strict=True)
    return bytes(byte for pair in pairs for byte in pair)


def hex_spans(text: bytes, needles: Needles) -> list[Span]:
    """Where the needles (of `hex_forms`) stand; in a dump with the column of text beside the last
    digits.
    """
    if not needles.among(together(text)) and not _DUMPED.search(text):
        return []
    reading = Reading(text, _SEPARATOR, removed)
    spans = [reading.source_span(span) for span in needles.spans(reading.data.translate(_LOWER))]
    return [(start, _line_end(text, end)) for start, end in spans]


def together(text: bytes) -> bytes:
    """`text` without everything that may stand between digits, but for columns and offsets of
    dumps.
    """
    together = text.translate(_LOWER, b" \t\r\n:,-")
    return together.replace(b"0x", b"") if b"0x" in together else together


def _line_end(text: bytes, end: int) -> int:
    """The end of the dump's line in which digits end at `end`; `end` where it is no dump."""
    if not _DUMP_LINE.match(text, text.rfind(b"\n", 0, end) + 1):
        return end
    rest = re.split(rb"[\r\n]", text[end : end + _REST_BYTES], maxsplit=1)[0]
    return end + len(rest) if _REST_OF_LINE.fullmatch(rest) else end


def hex_open(text: bytes, needles: Needles, spans: Iterable[Span]) -> int:
    """The first position from which the rest of `text` could grow into a needle, or from which one
    of `spans`, those that were found, could grow longer. The length of `text` if there is none.
    """
    opened = min((start for start, end in spans if _line_is_open(text, end)), default=len(text))
    tail = text[-_DUMP_TAIL:]
    ends = {len(tail), *_places(_OPEN_SEPARATOR, tail, _SEPARATOR_BYTES)}
    if _DUMP_LINE.match(tail) or _DUMPED.search(tail):
        ends.update(_places(_OPEN_COLUMN, tail, _REST_BYTES))
    found = min(_open_digits(tail[:end], needles) for end in ends)
    return min(opened, len(text) - len(tail) + found) if found < len(tail) else opened


def _places(pattern: re.Pattern[bytes], tail: bytes, within: int) -> list[int]:
    return [match.start() for match in pattern.finditer(tail, max(0, len(tail) - within))]


def _line_is_open(text: bytes, end: int) -> bool:
    """Whether more of a dump's line may come."""
    in_dump = _DUMP_LINE.match(text, text.rfind(b"\n", 0, end) + 1)
    return bool(in_dump) and len(text) - end < _REST_BYTES and b"\n" not in text[end:]


def _open_digits(tail: bytes, needles: Needles) -> int:
    """The first position in `tail` from which its rest could grow into a needle.

    _NOWHERE if there is none.
    """
    if not tail.rstrip(b" \t\r\n:,-x").endswith(_EACH_DIGIT):
        return _NOWHERE
    reading = Reading(tail, _SEPARATOR, removed)
    digits = reading.data.translate(_LOWER)
    begins = last_run(digits, _LOWER_DIGITS)
    opened = begins + needles.open_end(digits[begins:])
    return reading.source_start(opened) if opened < len(digits) else _NOWHERE
