"""Text that people read: unfit characters escaped, numbers of bytes with a unit.

Pure.

Unfit are characters that a reader does not see, or that change what a reader sees:
controls (but for tab and line end), line separators, controls of direction, characters without
width that could make two names look the same, tags, lone surrogates, and characters that XML 1.0
does not take.
The joiners stay: writing systems and emoji need them.
"""

from __future__ import annotations

import re

_CLASS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f"
)
_UNFIT = re.compile(f"[{_CLASS}]")
_UNFIT_IN_LINE = re.compile(f"[\n{_CLASS}]")
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def written_out(text: str) -> str:
    """`text` with every unfit character as its escape; line ends and tabs stay."""
    return _UNFIT.sub(_escape, text)


def written_out_on_one_line(text: str) -> str:
    """`text` with every unfit character and every line end as its escape; tabs stay."""
    return _UNFIT_IN_LINE.sub(_escape, text)


def json_written_out(data: bytes) -> bytes:
    """Encoded JSON with every unfit character as JSON's own escape.

    It decodes to the same value, and is harmless on a terminal.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    return _UNFIT.sub(_json_escape, data.decode()).encode()


def format_size(count: float) -> str:
    """A number of bytes with a binary unit: 512 B, 1.5 MiB."""
    power = 0
    while count >= 1024 and power < len(_SIZE_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.1f} {_SIZE_UNITS[power]}" if power else f"{count:.0f} B"


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    if number < 0x10000:
        return f"\\u{number:04x}"
    return f"\\U{number:08x}"


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
