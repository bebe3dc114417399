"""The forms in which programs print a value, and how a text reads once they are undone.

Three kinds of reading, each of which tells where in the text every part of it stood:

- escapes undone: `\\n` `\\u0041` `\\x41` `\\101` `\\"` of JSON, languages and shells, `%41` of
  addresses, `&lt;` `&#65;` `&#x41;` of XML and HTML;
- base64 with its line breaks away;
- hexadecimal digits with their separators, line breaks, offsets and columns of text away, as `xxd`,
  `od` and `hexdump` print them.

Pure functions over bytes. The time of each is proportional to the text, whatever is in it: every
repetition in the expressions is bounded.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache, cached_property, lru_cache
from itertools import combinations

SHORTEST = 4  # a shorter value would take ordinary words and numbers out of every text
# A long value is many secrets of so many bytes; they overlap, so that nothing is left between two.
PIECE, STEP = 64, 48
LINE = 12  # from so many characters on a line is a secret of its own: `[default]` is none
_BESIDE = 24  # bytes by which a short line is told from others like it

Span = tuple[int, int]

_FRAME = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]+-----")  # around keys: no part of them
_SHORTEST_HEX = 2 * SHORTEST

_HEX = rb"[0-9a-fA-F]"
_CODE = rb"[A-Za-z0-9+/_-]"  # both alphabets of base64
_STANDARD = bytes.maketrans(b"-_", b"+/")
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")

_ESCAPES = (
    rb"\\(?:u[dD][89abAB]%(h)b{2}\\u[dD][c-fC-F]%(h)b{2}"
    rb"|u%(h)b{4}|u\{%(h)b{1,6}\}|U%(h)b{8}|x%(h)b{2}|[0-7]{1,3}"
    rb"|[abefnrtv]|[^0-9A-Za-z\n])" % {b"h": _HEX},
    rb"&(?:#[0-9]{1,9}|#[xX]%(h)b{1,8}|[A-Za-z][A-Za-z0-9]{1,31});" % {b"h": _HEX},
    rb"%%%(h)b{2}" % {b"h": _HEX},
)
_ESCAPE = re.compile(b"|".join(_ESCAPES))
# The beginning of one at the end of a text; each two backslashes before it are an escape.
_OPEN_ESCAPE = re.compile(
    rb"(?<!\\)(?:\\\\)*("
    rb"\\(?:u[dD][89abAB]%(h)b{2}(?:\\(?:u(?:[dD](?:[c-fC-F]%(h)b?)?)?)?)?"
    rb"|u%(h)b{0,3}|u\{%(h)b{0,6}|U%(h)b{0,7}|x%(h)b?|[0-7]{0,2})"
    rb"|&(?:#[0-9]{0,9}|#[xX]%(h)b{0,8}|[A-Za-z][A-Za-z0-9]{0,31})?"
    rb"|%%%(h)b?)\Z" % {b"h": _HEX}
)
_LONGEST_ESCAPE = 48
_LETTERS = dict(zip(b"abefnrtv", b"\a\b\x1b\f\n\r\t\v", strict=True))

# A line break is one of base64 only after a line long enough to have been wrapped.
_COLUMNS = 32
_CODES = {b"c": _CODE, b"n": _COLUMNS}
_WRAP = re.compile(
    rb"\n(?<=%(c)b{%(n)d}\n)[ \t]{0,16}"
    rb"|\r\n(?<=%(c)b{%(n)d}\r\n)[ \t]{0,16}" % _CODES
)
_WRAP_LF = re.compile(rb"\n(?<=%(c)b{%(n)d}\n)" % _CODES)  # begins with one byte, thus found faster
_WRAPPED = re.compile(rb"%(c)b{%(n)d}" % _CODES)
_WRAPPED_TAIL = 512  # bytes that hold the longest value in base64, its line breaks and indentation

_DIGITS = rb"[0-9a-fA-F :,x-]{14}"  # before a line break among hexadecimal digits
_OFFSET = rb"%b{6,16}:?[ \t]{1,4}" % _HEX
_SEPARATOR = re.compile(
    # the column of text, and the offset of the next line
    rb" (?<=%(h)b{2} )[ \t]{1,64}[^\r\n]{1,18}\r?\n%(o)b"
    rb"|\n(?<=%(d)b\n)(?:%(o)b|[ \t]{0,16})(?:0x)?"
    rb"|\r\n(?<=%(d)b\r\n)(?:%(o)b|[ \t]{0,16})(?:0x)?"
    rb"|[ :,-](?<=%(h)b{2}[ :,-])[ \t]{0,2}(?:0x)?" % {b"h": _HEX, b"d": _DIGITS, b"o": _OFFSET}
)
_DUMPED = re.compile(rb"\n%b%b{2}" % (_OFFSET, _HEX))  # a later line of a dump
_DUMP_LINE = re.compile(rb"%b%b{2}" % (_OFFSET, _HEX))
# In JSON: an escape other than of a quote or a line break, or a line break that counts above.
_TELLING = re.compile(
    rb'\\(?:[^n"]|n(?:(?<=%(c)b{%(n)d}\\n)|(?<=%(d)b\\n)|%(o)b%(h)b{2}))'
    % {b"c": _CODE, b"n": _COLUMNS, b"h": _HEX, b"d": _DIGITS, b"o": _OFFSET}
)
# Where one of the separators may begin that is not whole yet.
_OPEN_SEPARATOR = re.compile(
    rb"(?<=%(h)b{2})(?=(?:[ :,-][ \t]{0,2})?(?:\r?\n?[ \t]{0,16})?0?\Z)" % {b"h": _HEX},
)
_SEPARATOR_BYTES = 24
_OPEN_COLUMN = re.compile(
    rb"(?<=%(h)b{2})(?=(?:[ \t]{2,64}[^\r\n]{0,18})?"
    rb"(?:\r?\n?|\r?\n%(h)b{1,16}:?[ \t]{0,4})\Z)" % {b"h": _HEX}
)
_REST_OF_LINE = re.compile(rb"(?:[ \t]{0,2}%b{2}){0,64}(?:[ \t]{2,64}[^\r\n]{1,18})?" % _HEX)
_REST_BYTES = 160  # a longer line is none of a dump
_DUMP_TAIL = 768  # bytes that hold the longest value in digits, whatever stands between them


# --- values


def parts(value: bytes) -> list[bytes]:
    """What is a secret of its own: the value, of a long one its pieces, and its long lines."""
    value = value.strip()
    found = [value] if len(value) <= PIECE else []
    for text in dict.fromkeys((value, unescaped(value))):
        if b"\n" in text or b"\r" in text:
            found += _lines(text)
        else:
            found += _pieces(text)
    return list(dict.fromkeys(found))


def _lines(text: bytes) -> list[bytes]:
    """Long lines by themselves; short ones only with what is before them, or after the first."""
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
    """Short lines with a bit of what stands beside them."""
    found = text[start - _BESIDE : end] if start >= _BESIDE else text[: max(end, _BESIDE)]
    return _pieces(found.strip())


def _pieces(value: bytes) -> list[bytes]:
    if len(value) <= PIECE:
        return [value]
    starts = range(0, len(value) - PIECE, STEP)
    return [value[start : start + PIECE] for start in starts] + [value[-PIECE:]]


def plain_forms(part: bytes) -> set[bytes]:
    """How a part reads where it is not encoded, or once escapes are undone."""
    readable = part.decode("utf-8", "replace")
    forms = {part, readable.encode(), b"".join(map(_narrow, readable)), part.replace(b" ", b"+")}
    if has_escapes(part):
        forms.add(part[: open_escape(part)])  # the rest may have become an escape with what follows
        # What looks like an escape in the part itself is undone too where the part was escaped by
        # another kind.
        forms |= {kind.sub(_meaning, form) for form in tuple(forms) for kind in _kinds()}
        forms.add(unescaped(unescaped(part)))
    forms.add(part.replace(b"\n", b"\r\n"))
    # inside the single quotes of a shell
    forms |= {part.replace(b"'", quoted) for quoted in (b"'\\''", b"'\"'\"'")}
    return {form for form in forms if len(form) >= SHORTEST and not form.isspace()}


@cache
def _kinds() -> list[re.Pattern[bytes]]:
    """An expression for every choice of kinds of escapes."""
    chosen = [kinds for count in (1, 2, 3) for kinds in combinations(_ESCAPES, count)]
    return [re.compile(b"|".join(kinds)) for kinds in chosen]


def _narrow(character: str) -> bytes:
    """What `\\xe9` stands for where a text, and not bytes, was escaped."""
    code = ord(character)
    return bytes((code,)) if code < 256 else character.encode("utf-8", "replace")


def base64_forms(part: bytes) -> set[bytes]:
    """The part at each of base64's alignments: only the characters that it alone decides.

    The first and the last of the others are its neighbours' too.
    """
    forms = set()
    for offset in range(3):
        skipped, whole = (0, 2, 3)[offset], (offset + len(part)) * 8 // 6
        forms.add(base64.b64encode(b"\0" * offset + part)[skipped:whole])
    return {form for form in forms if len(form) >= SHORTEST}


def hex_forms(part: bytes) -> set[bytes]:
    """The part's digits, and as the words of two bytes that a little-endian machine prints."""
    forms = {part, _swapped(part), _swapped(part[1:])}
    return {digits for form in forms if len(digits := form.hex().encode()) >= _SHORTEST_HEX}


def _swapped(part: bytes) -> bytes:
    whole = len(part) & ~1
    pairs = zip(part[1:whole:2], part[0:whole:2], strict=True)
    return bytes(byte for pair in pairs for byte in pair)


# --- searching


class Needles:
    """Words, and where they stand in a text."""

    def __init__(self) -> None:
        self._words: dict[bytes, None] = {}
        self._firsts: set[int] = set()
        # Two bytes -> the words in which they stand before the last.
        self._by_pair: dict[bytes, list[bytes]] = {}

    def add(self, words: Iterable[bytes]) -> None:
        """Search for these too."""
        for word in words:
            if word not in self._words:
                self._words[word] = None
                self._firsts.add(word[0])
                for pair in {word[at : at + 2] for at in range(len(word) - 2)}:
                    self._by_pair.setdefault(pair, []).append(word)

    def among(self, text: bytes) -> bool:
        """Whether any stands there."""
        return any(word in text for word in self._words)

    def spans(self, text: bytes) -> list[Span]:
        """Where they stand, overlapping ones too."""
        found = []
        for word in self._words:
            at = text.find(word)
            while at >= 0:
                found.append((at, at + len(word)))
                at = text.find(word, at + 1)
        return found

    def open_end(self, text: bytes) -> int:
        """The first place from which the rest of `text` is the beginning of a longer word.

        The length of `text` if there is none.
        """
        size = len(text)
        first = size - 1 if text and text[-1] in self._firsts else size
        for word in self._by_pair.get(text[-2:], ()):
            at = text.find(word[:2], max(0, size - len(word) + 1))
            while 0 <= at < first:
                if word.startswith(text[at:]):
                    first = at
                at = text.find(word[:2], at + 1)
        return first


# --- readings


Meaning = Callable[[re.Match[bytes]], bytes]


class Reading:
    """A text with every match of an expression replaced by what it stands for, and the way back."""

    def __init__(self, source: bytes, pattern: re.Pattern[bytes], meaning: Meaning) -> None:
        self._source, self._pattern, self._meaning = source, pattern, meaning
        self.data = pattern.sub(meaning, source)

    def back(self, span: Span) -> Span:
        """Where in the source a part of `data` stood."""
        return self.start(span[0]), self._end(span[1])

    def start(self, at: int) -> int:
        """Where in the source the byte at this place began."""
        starts, origins = self._places
        piece = bisect_right(starts, at) - 1
        return origins[piece] if piece % 2 else origins[piece] + at - starts[piece]

    def _end(self, at: int) -> int:
        starts, origins = self._places
        piece = bisect_right(starts, at - 1) - 1
        return origins[piece + 1] if piece % 2 else origins[piece] + at - starts[piece]

    @cached_property
    def _places(self) -> tuple[list[int], list[int]]:
        """Where pieces begin in `data` and in the source: in turn one as it was, one replaced."""
        starts, origins, done = [0], [0], 0
        for match in self._pattern.finditer(self._source):
            starts.append(starts[-1] + match.start() - done)
            origins.append(match.start())
            starts.append(starts[-1] + len(self._meaning(match)))
            origins.append(match.end())
            done = match.end()
        return starts, origins


def has_escapes(text: bytes) -> bool:
    """Whether there may be any: three searches for one byte take no time."""
    return b"\\" in text or b"%" in text or b"&" in text


def unescaped(text: bytes) -> bytes:
    """`text` with its escapes undone once."""
    return _ESCAPE.sub(_meaning, text) if has_escapes(text) else text


def escapes_undone(text: bytes) -> Reading:
    """The same with the way back."""
    return Reading(text, _ESCAPE, _meaning)


def open_escape(text: bytes) -> int:
    """Where an escape begins that is not whole yet; the length of `text` if there is none."""
    tail = text[-_LONGEST_ESCAPE:]
    found = _OPEN_ESCAPE.search(tail) if has_escapes(tail) else None
    return len(text) - len(tail) + found.start(1) if found else len(text)


def _meaning(match: re.Match[bytes]) -> bytes:
    return _escaped(match[0])


@lru_cache(4096)
def _escaped(token: bytes) -> bytes:
    """What one escape stands for; itself, if it is none after all."""
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


def simple_json(text: bytes) -> bool:
    """Whether a text of JSON reads nearly as what it stands for.

    No escapes but of quotes, and of line breaks that end ordinary lines.
    """
    return b"%" not in text and b"&" not in text and not _TELLING.search(text)


def among_simple(text: bytes, in_base64: Needles, in_hex: Needles) -> bool:
    """Whether any may stand encoded in a `simple_json` text: at once, and too often."""
    return in_base64.among(text.translate(_STANDARD)) or in_hex.among(_together(text))


# --- base64


def base64_spans(text: bytes, needles: Needles) -> list[Span]:
    """Where they stand in base64."""
    if not _WRAP_LF.search(text) and b"\r\n" not in text:
        return needles.spans(text.translate(_STANDARD))
    reading = Reading(text, _WRAP, _nothing)
    return [reading.back(span) for span in needles.spans(reading.data.translate(_STANDARD))]


def base64_open(text: bytes, needles: Needles) -> int:
    """The first place from which the rest of `text` could grow into one of them in base64."""
    tail = text[-_WRAPPED_TAIL:]
    line = tail.rstrip(b" \t\r\n")
    inside = len(line) == len(tail) or _WRAPPED.match(line[-_COLUMNS:])
    if not inside or not line.endswith(_EACH_CODE):
        return len(text)
    reading = Reading(tail.removesuffix(b"\r"), _WRAP, _nothing)
    begins = _trailing(reading.data, _CODE_BYTES)
    opened = begins + needles.open_end(reading.data[begins:].translate(_STANDARD))
    if opened == len(reading.data):
        return len(text)
    return len(text) - len(tail) + reading.start(opened)


_CODE_BYTES = bytes(byte for byte in range(128) if re.fullmatch(_CODE, bytes((byte,))))
_EACH_CODE = tuple(bytes((byte,)) for byte in _CODE_BYTES)
_LOWER_DIGITS = b"0123456789abcdef"
_EACH_DIGIT = tuple(bytes((byte,)) for byte in b"0123456789abcdefABCDEF")


def _trailing(text: bytes, characters: bytes) -> int:
    """Where the last run of these characters begins."""
    return len(text.rstrip(characters))


def _nothing(match: re.Match[bytes]) -> bytes:
    return b""


# --- hexadecimal digits


def hex_spans(text: bytes, needles: Needles) -> list[Span]:
    """Where they stand in digits; in a dump with the text beside the last of them."""
    if not needles.among(_together(text)) and not _DUMPED.search(text):
        return []
    reading = Reading(text, _SEPARATOR, _nothing)
    spans = [reading.back(span) for span in needles.spans(reading.data.translate(_LOWER))]
    return [(start, _line_end(text, end)) for start, end in spans]


def _together(text: bytes) -> bytes:
    """`text` without whatever may stand between digits, but for what is between those of dumps."""
    together = text.translate(_LOWER, b" \t\r\n:,-")
    return together.replace(b"0x", b"") if b"0x" in together else together


def _line_end(text: bytes, end: int) -> int:
    """Where a dump's line ends, if the digits that end here stand in one."""
    if not _DUMP_LINE.match(text, text.rfind(b"\n", 0, end) + 1):
        return end
    rest = re.split(rb"[\r\n]", text[end : end + _REST_BYTES], maxsplit=1)[0]
    return end + len(rest) if _REST_OF_LINE.fullmatch(rest) else end


def hex_open(text: bytes, needles: Needles, spans: Iterable[Span]) -> int:
    """The first place from which the rest of `text` could grow into one of them in digits.

    Or one of `spans`, where they stand, into a longer one.
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
    """The place in `tail`; far beyond it if there is none."""
    if not tail.rstrip(b" \t\r\n:,-x").endswith(_EACH_DIGIT):
        return 1 << 60
    reading = Reading(tail, _SEPARATOR, _nothing)
    digits = reading.data.translate(_LOWER)
    begins = _trailing(digits, _LOWER_DIGITS)
    opened = begins + needles.open_end(digits[begins:])
    return reading.start(opened) if opened < len(digits) else 1 << 60
