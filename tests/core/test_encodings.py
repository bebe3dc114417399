"""A value is found in whatever encoding it comes, however it is cut; nothing else is taken out."""

from __future__ import annotations

import base64
import html
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from html.entities import html5
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.core.encodings.escapes import open_escape
from cleanroom.core.encodings.forms import PIECE
from cleanroom.core.redaction import REPLACEMENT, Redactor


def is_one(value: str) -> bool:
    """Whether all of it is looked for.

    Not so are line breaks of a long value, and an end that is the beginning of an escape.
    """
    raw = value.encode()
    if value.strip() != value or open_escape(raw) < len(raw):
        return False
    return "\n" not in value or len(raw) <= PIECE


# No small letter: those are for the text around, which therefore is the beginning of no value.
MARKS = "\"'\\/+ü€&=%\n😀é "
SECRETS = st.text(f"ABCDEFXYZ0123456789{MARKS}", min_size=6, max_size=70).filter(is_one)
AROUND = st.text("ghijklm.", max_size=12)

NAMES = {text: f"&{name}" for name, text in html5.items() if name.endswith(";") and len(text) == 1}


def escaped(letter: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(map(letter, text))


def utf16(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def each_byte(form: str) -> Callable[[str], str]:
    return lambda text: "".join(form.format(byte) for byte in text.encode())


ESCAPES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON with its characters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(json.dumps(text)[1:-1])[1:-1])[1:-1],
    "JSON in an address": lambda text: quote(json.dumps(text)[1:-1]),
    "each character as \\u": escaped(utf16),
    "each character as \\u{}": escaped(lambda c: f"\\u{{{ord(c):x}}}"),
    "each character as \\U": escaped(lambda c: f"\\U{ord(c):08X}"),
    "each byte as \\x": each_byte("\\x{:02x}"),
    "each byte as \\X": each_byte("\\x{:02X}"),
    "each byte as octal": each_byte("\\{:03o}"),
    "each byte as %": each_byte("%{:02X}"),
    "each byte as lower %": each_byte("%{:02x}"),
    "part of an address": lambda text: quote(text, safe=""),
    "path of an address": quote,
    "field of a form": quote_plus,
    "an address in an address": lambda text: quote(quote(text, safe=""), safe=""),
    "XML": lambda text: html.escape(text),
    "XML in XML": lambda text: html.escape(html.escape(text)),
    "each character as decimal entity": escaped(lambda c: f"&#{ord(c)};"),
    "each character as long decimal entity": escaped(lambda c: f"&#{ord(c):08d};"),
    "each character as hexadecimal entity": escaped(lambda c: f"&#x{ord(c):x};"),
    "each character as upper hexadecimal entity": escaped(lambda c: f"&#X{ord(c):X};"),
    "each character by its name": escaped(lambda c: NAMES.get(c, c)),
    "ASCII of Python": lambda text: ascii(text)[1:-1],
    "bytes of Python": lambda text: repr(text.encode())[2:-1],
    "quoted for a shell": lambda text: shlex.quote(text + " ")[1:-2],
    "quoted for a shell the other way": lambda text: text.replace("'", "'\\''"),
    "escaped for a shell": escaped(lambda c: c if c.isalnum() or c == "\n" else f"\\{c}"),
}


def fed(redactor: Redactor, data: bytes, cuts: Iterable[int]) -> bytes:
    """What a stream shows of `data`, cut at these places."""
    stream, places = redactor.stream(), sorted({cut % (len(data) + 1) for cut in cuts})
    spans = zip([0, *places], [*places, len(data)], strict=True)
    return b"".join(stream.feed(data[start:end]) for start, end in spans) + stream.end()


EACH_BYTE = range(1 << 12)
SOME_CUTS = st.lists(st.integers(0, 1 << 12), max_size=20)
CUTS = st.one_of(SOME_CUTS, st.just(EACH_BYTE))


@settings(max_examples=400)
@given(SECRETS, st.sampled_from(sorted(ESCAPES)), AROUND, AROUND, CUTS)
def test_escapes_do_not_hide_a_value(secret, name, before, after, cuts):
    """Whatever escapes a value is printed with, wherever it is cut:
    only the text around is shown.
    """
    data = f"{before}{ESCAPES[name](secret)}{after}".encode()

    shown = fed(Redactor([secret]), data, cuts).decode()

    assert shown == f"{before}{REPLACEMENT}{after}"
    assert Redactor([secret]).text(data.decode()) == shown


def laid_out(code: str, columns: int, end: str) -> tuple[str, list[int]]:
    """`code` in lines, and where each of its characters is."""
    text, places = "", []
    for at, character in enumerate(code):
        if at and at % columns == 0:
            text += end
        places.append(len(text))
        text += character
    return text, places


def without(text: str, places: list[int], first: int, last: int) -> str:
    """`text` with what lies between two of its places replaced."""
    return text[: places[first]] + REPLACEMENT + text[places[last - 1] + 1 :]


NO_DIGITS = st.text(f"GHIJKLXYZ{MARKS}", min_size=6, max_size=70).filter(is_one)
BESIDE = st.binary(max_size=150).map(lambda data: bytes(byte % 8 for byte in data))  # of no value
COLUMNS = st.sampled_from((64, 76, 48, 1 << 12))
ENDS = st.sampled_from(("\n", "\r\n", "\n    ", "\\n", "\\r\\n", "&#10;"))
ALPHABETS = st.sampled_from((base64.b64encode, base64.urlsafe_b64encode))


@settings(max_examples=300)
@given(SECRETS, BESIDE, BESIDE, COLUMNS, ENDS, ALPHABETS, CUTS)
def test_base64_does_not_hide_a_value(secret, before, after, columns, end, encode, cuts):
    """At each alignment and with any usual lines, all that the value alone decides is taken out."""
    raw = secret.encode()
    lines, places = laid_out(encode(before + raw + after).decode(), columns, end)
    first, last = -(-8 * len(before) // 6), 8 * (len(before) + len(raw)) // 6

    shown = fed(Redactor([secret]), f"{lines}\n".encode(), cuts).decode()

    assert shown == without(f"{lines}\n", places, first, last)
    assert Redactor([secret]).text(f"{lines}\n") == shown


WIDTHS = st.sampled_from((16, 32, 30, 1 << 12))
SEPARATORS = st.sampled_from(("", ":", " ", "-", ", ", ",0x", ", 0x"))


@settings(max_examples=300)
@given(NO_DIGITS, BESIDE, BESIDE, WIDTHS, ENDS, SEPARATORS, st.booleans(), CUTS)
def test_digits_do_not_hide_a_value(secret, before, after, width, end, between, upper, cuts):
    """In digits of either case, with usual separators and lines, the value alone is taken out."""
    raw = secret.encode()
    digits = [f"{byte:02X}" if upper else f"{byte:02x}" for byte in before + raw + after]
    line_break = f",{end}0x" if "0x" in between else between.rstrip() + end
    text, places = "", []
    for at, pair in enumerate(digits):
        if at:
            text += between if at % width else line_break
        places.append(len(text))
        text += pair

    shown = fed(Redactor([secret]), f"{text}\n".encode(), cuts).decode()

    first, last = places[len(before)], places[len(before) + len(raw) - 1] + 2
    assert shown == f"{text[:first]}{REPLACEMENT}{text[last:]}\n"


TOOLS = {
    "xxd": "xxd",
    "xxd of bytes": "xxd -g1",
    "xxd in capitals": "xxd -u",
    "plain xxd": "xxd -p",
    "xxd for C": "xxd -i",
    "od": "od -A x -t x1",
    "od with offsets in eights": "od -t x1",
    "od with text": "od -A x -t x1z",
    "od of words": "od -t x2",
    "hexdump": "hexdump",
    "hexdump with text": "hexdump -C",
    "base64": "base64",
    "base64 of 64 columns": "base64 -w 64",
    "openssl": "openssl base64",
}
HOW = {"whole": range(0), "in pieces": range(0, 1 << 13, 7), "in bytes": EACH_BYTE}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("offset", range(17))
def test_what_the_tools_of_a_system_print_shows_nothing(tool, offset, how):
    """Of a value wherever in the lines of a dump it begins nothing is left: no digits, no text."""
    command = TOOLS[tool].split()
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    secret = "Zq8/Vw+XkT2=RnB7yLpC4mHs9eJdU6tGaFx3"
    around = bytes(range(1, 8)) * 3
    data = around[:offset] + secret.encode() + around
    dump = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout

    shown = fed(Redactor([secret]), dump, HOW[how]).decode()

    assert REPLACEMENT in shown
    for at in range(len(secret) - 3):
        piece = secret[at : at + 4]
        assert piece not in shown
        assert piece.encode().hex() not in shown.lower().replace(" ", "")
        assert piece.encode().hex(" ") not in shown.lower()
    assert base64.b64encode(secret.encode()).decode()[4:12] not in shown


def line_of_a_key(number: int) -> str:
    return base64.b64encode(bytes((number * 37 + at * 101) % 256 for at in range(48))).decode()


LINES = [line_of_a_key(number) for number in range(20)]
FRAME = "-----BEGIN PRIVATE KEY-----"
KEY = "\n".join((FRAME, *LINES, "A1b2C3==", FRAME.replace("BEGIN", "END"), ""))
ACCOUNT = json.dumps({"type": "account", "private_key": KEY})

LINE_FORMS = {
    "plain": str,
    "digits": lambda line: line.encode().hex(),
    "base64": lambda line: base64.b64encode(line.encode()).decode()[:-3],
    "escaped": ESCAPES["each byte as %"],
}


@pytest.mark.parametrize("line", LINES[:3])
@pytest.mark.parametrize("form", LINE_FORMS)
def test_each_line_of_a_key_is_a_secret(line, form):
    """One line of a value is taken out by itself, in every encoding; the frame of a key is not."""
    shown = Redactor([KEY]).text(f"read: {LINE_FORMS[form](line)} <\n{FRAME}")

    assert shown == f"read: {REPLACEMENT} <\n{FRAME}"


VALUE_FORMS = {
    "plain": bytes,
    "digits": lambda data: data.hex().encode(),
    "digits with colons": lambda data: data.hex(":").encode(),
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "JSON": lambda data: json.dumps(data.decode()).encode(),
    "address": lambda data: quote(data.decode()).encode(),
    "other line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "the key alone": lambda data: KEY.encode(),
}


@pytest.mark.parametrize("value", [KEY, ACCOUNT], ids=["key", "JSON with a key"])
@pytest.mark.parametrize("form", VALUE_FORMS)
@pytest.mark.parametrize("how", ["whole", "in pieces"])
def test_a_long_value_is_gone_whole(value, form, how):
    """Of a value of many lines, however it is encoded, no eight characters of a line are left."""
    shown = fed(Redactor([value]), VALUE_FORMS[form](value.encode()), HOW[how])

    for line in KEY.splitlines()[1:-1]:
        for at in range(len(line) - 7):
            piece = line[at : at + 8].encode()
            assert piece not in shown
            assert piece.hex().encode() not in shown.replace(b":", b"")
            assert base64.b64encode(piece)[:8] not in shown.replace(b"\n", b"")


ODDMENTS = (
    *(b"\\", b"%", b"&", b"&#", b"\\u00", b"\\n"),
    *(b"\n", b"\r\n", b" ", b"  ", b":", b"0x", b"00000010: ", b"Q" * 32, b"41" * 8),
)
FRAGMENTS = st.one_of(st.binary(max_size=3), st.sampled_from(ODDMENTS))
FORMS = {
    **{name: lambda text, name=name: ESCAPES[name](text).encode() for name in ESCAPES},
    "base64": lambda text: base64.b64encode(text.encode()),
    "digits": lambda text: text.encode().hex().encode(),
}
PARTS = st.tuples(st.sampled_from(sorted(FORMS)), st.integers(0, 80), st.integers(0, 80))


@settings(max_examples=400)
@given(SECRETS, st.lists(st.one_of(FRAGMENTS, PARTS), max_size=12), SOME_CUTS)
def test_a_stream_shows_the_same_however_it_is_cut(secret, pieces, cuts):
    """Half values, half escapes and separators: a stream gives what the whole text gives."""
    data = b""
    for piece in pieces:
        if isinstance(piece, tuple):
            form, start, end = piece
            piece = FORMS[form](secret)[start:end]
        data += piece
    redactor = Redactor([secret])

    assert fed(redactor, data, cuts) == fed(redactor, data, [])


TEXTS = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=200).map(str.encode),
    st.lists(FRAGMENTS, max_size=30).map(b"".join),
)


@settings(max_examples=300)
@given(TEXTS, SOME_CUTS)
def test_what_holds_no_value_is_unchanged(data, cuts):
    """Any other bytes come out as they went in, and the same events are the same objects."""
    redactor = Redactor(["Zq8/Vw+XkT2=RnB7yLpC4mHs9eJdU6tGaFx3", KEY])

    assert fed(redactor, data, cuts) == data
    text = data.decode(errors="replace")
    assert redactor.text(text) is text


MONOTONES = (
    *(b"\\", b"%", b"&", b"&#", b"A", b"41", b"41 ", b"ab      ", b"Q" * 76 + b"\n"),
    *(b"&#0", b"%25", b"\\u005c", b"0000010: "),
)


@pytest.mark.parametrize("row", MONOTONES)
def test_no_output_makes_it_hold_back_ever_more(row):
    """What waits stays small, so that the time of a piece does not grow with what came before."""
    stream, shown = Redactor(["A" * 60, "B41 41", "&&&&"]).stream(), 0
    for _ in range(3_000):
        shown += len(stream.feed(row * 10))

    assert len(stream._kept) < 20_000
    assert shown
