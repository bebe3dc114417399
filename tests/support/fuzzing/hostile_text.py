"""Hostile pieces and the changes that are made to kept inputs.

Everything draws from a `random.Random`, which Hypothesis can give as well.

So one set of generators serves the tests (few inputs, always the same) and the campaign of
`scripts/fuzz.py` (many, by seed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

# What must not reach a terminal, a page or a CI runner as it is.
TEXTS = (
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x1b]8;;http://a.example\x1b\\link",
    "\x9b31m",
    "\x07\x08\x7f",
    "\r overwritten",
    "line\nforged: passed",
    "\u202etxt.exe",
    "\u2066\u2069",
    "\u200bzero",
    "\u061c",
    "\u2028\u2029",
    "\ufeff",
    "\U000e0041",
    "\xad",
    "::error::forged",
    "##[error]forged",
    "::stop-commands::x",
    "</system-out><script>alert(1)</script>",
    "]]>",
    "<!--",
    "|x|",
    "```",
    "[a](javascript:x)",
    "@someone",
    "[[ATTACHMENT|/etc/passwd]]",
    "\u0430dmin",
    "\uff54est",
    "e\u0301",
    "🚀",
    "\U0001d56c" * 20,
    "../../etc/passwd",
    "/etc/passwd",
    "~root",
    "$(id)",
    "`id`",
    "%s%n",
    "{0}",
    "x" * 300,
    "",
    " ",
    ".",
    "..",
    "a/b",
    "-rf",
    "--help",
    "con\\x",
    "\\u0000",
    "\\ud800",
    "(" * 50 + "a+" * 50,
    "(a+)+$",
    "[" * 40,
    "*" * 60,
    "**/" * 40,
    "{a,b}" * 20,
)
NUMBERS = (
    "0",
    "-0",
    "1",
    "-1",
    "007",
    "1_000",
    "0x7fffffff",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "1" + "0" * 400,
    "9" * 5000,
    "1.5",
    "-1.5",
    "1e308",
    "1e309",
    "-1e309",
    "1e-400",
    "5e-324",
    "inf",
    "-inf",
    "nan",
    "0.1e1",
    "1979-05-27",
    "9999-12-31T23:59:60Z",
    "0001-01-01T00:00:00+23:59",
    "07:32:00.999999999",
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    "-Infinity",
)
SPLINTERS = (
    b"\x00",
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\n",
    b"\x1b[31m",
    "\u202e".encode(),
    b'"',
    b"'",
    b"\\",
    b'"""',
    b"'''",
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"{",
    b"}",
    b"=",
    b",",
    b".",
    b":",
    b"#",
    b"\t",
    b" ",
    b"\x85",
    b"\x7f",
    b"[" * 300,
    b'{"a":' * 300,
    b"a." * 150,
    b"\\u0000",
    b"\\ud800",
    b"\\U0010ffff",
)


def one(random: Random, of: Sequence[str]) -> str:
    return of[random.randrange(len(of))]


def sometimes(random: Random, one_in: int) -> bool:
    return random.randrange(one_in) == 0


def text(random: Random, usual: Sequence[str], one_in: int = 6) -> str:
    """Mostly one of the `usual` words."""
    return one(random, TEXTS) if sometimes(random, one_in) else one(random, usual)


def mutated(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """`data` after one to six changes; pieces come from `others` (inputs of the same kind) and
    `words` (what means something there).
    """
    for _ in range(random.randrange(1, 7)):
        data = _CHANGES[random.randrange(len(_CHANGES))](random, data, others, words)
    return data


def _span(random: Random, data: bytes) -> tuple[int, int]:
    begin = random.randrange(len(data) + 1)
    return begin, min(len(data), begin + random.randrange(1, 2 + min(len(data), 64)))


def _flip(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return (
        data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]
        if at < len(data)
        else data
    )


def _drop(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    return data[:begin] + data[end:]


def _double(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    return data[:end] + data[begin:end] * random.randrange(1, 4) + data[end:]


def _insert(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    pool = (words, SPLINTERS)[random.randrange(2)] or SPLINTERS
    return data[:at] + pool[random.randrange(len(pool))] + data[at:]


def _replace(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(random, data)
    piece = one(random, NUMBERS) if sometimes(random, 2) else one(random, TEXTS)
    return data[:begin] + piece.encode() + data[end:]


def _splice(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    if not others:
        return data
    other = others[random.randrange(len(others))]
    begin, end = _span(random, other)
    at = random.randrange(len(data) + 1)
    return data[:at] + other[begin:end] + data[at:]


def _lines(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Drop, double or swap whole lines."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(3):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def _cut(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


_CHANGES: tuple[Callable[[Random, bytes, Sequence[bytes], Sequence[bytes]], bytes], ...] = (
    _flip,
    _flip,
    _drop,
    _double,
    _insert,
    _insert,
    _replace,
    _replace,
    _splice,
    _lines,
    _lines,
    _cut,
)
