"""Bytes printed in base64, in both alphabets, with the line breaks of wrapped text. Pure."""

from __future__ import annotations

import base64
import re

from cleanroom.core.encodings.needles import SHORTEST, Needles, Span
from cleanroom.core.encodings.reading import Reading, last_run, removed

CODE = rb"[A-Za-z0-9+/_-]"  # both alphabets of base64
STANDARD = bytes.maketrans(b"-_", b"+/")
# A line break belongs to base64 only after a line that is long enough to have been wrapped.
COLUMNS = 32
_CODES = {b"c": CODE, b"n": COLUMNS}
_WRAP = re.compile(
    rb"\n(?<=%(c)b{%(n)d}\n)[ \t]{0,16}"
    rb"|\r\n(?<=%(c)b{%(n)d}\r\n)[ \t]{0,16}" % _CODES
)
_WRAP_LF = re.compile(rb"\n(?<=%(c)b{%(n)d}\n)" % _CODES)  # begins with one byte, thus found faster
_WRAPPED = re.compile(rb"%(c)b{%(n)d}" % _CODES)
_WRAPPED_TAIL = 512  # bytes that hold the longest value in base64, its line breaks and indentation
_CODE_BYTES = bytes(byte for byte in range(128) if re.fullmatch(CODE, bytes((byte,))))
_EACH_CODE = tuple(bytes((byte,)) for byte in _CODE_BYTES)


def base64_forms(part: bytes) -> set[bytes]:
    """The part encoded at each of base64's three alignments, without the characters at both ends
    that depend on its neighbours too.
    """
    forms = set()
    for offset in range(3):
        skipped, whole = (0, 2, 3)[offset], (offset + len(part)) * 8 // 6
        forms.add(base64.b64encode(b"\0" * offset + part)[skipped:whole])
    return {form for form in forms if len(form) >= SHORTEST}


def base64_spans(text: bytes, needles: Needles) -> list[Span]:
    """Where the needles (of `base64_forms`) stand in `text`."""
    if not _WRAP_LF.search(text) and b"\r\n" not in text:
        return needles.spans(text.translate(STANDARD))
    reading = Reading(text, _WRAP, removed)
    return [reading.source_span(span) for span in needles.spans(reading.data.translate(STANDARD))]


def base64_open(text: bytes, needles: Needles) -> int:
    """The first position from which the rest of `text` could grow into a needle.

    The length of `text` if there is none.
    """
    tail = text[-_WRAPPED_TAIL:]
    line = tail.rstrip(b" \t\r\n")
    inside = len(line) == len(tail) or _WRAPPED.match(line[-COLUMNS:])
    if not inside or not line.endswith(_EACH_CODE):
        return len(text)
    reading = Reading(tail.removesuffix(b"\r"), _WRAP, removed)
    begins = last_run(reading.data, _CODE_BYTES)
    opened = begins + needles.open_end(reading.data[begins:].translate(STANDARD))
    if opened == len(reading.data):
        return len(text)
    return len(text) - len(tail) + reading.source_start(opened)
