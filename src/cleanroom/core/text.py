"""Characters that a reader does not see, or that change what a reader sees:
written out wherever text of others is shown.

Pure.

They are the controls (but for tab and line end), the line separators, the controls of direction,
whatever has no width and could make two names look the same, the tags, lone surrogates,
and what XML 1.0 does not take.
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


def written_out(text: str) -> str:
    """`text` with every such character as its escape; line ends and tabs stay."""
    return _UNFIT.sub(_escape, text)


def written_out_on_one_line(text: str) -> str:
    """The same, and line ends are escapes too."""
    return _UNFIT_IN_LINE.sub(_escape, text)


def json_written_out(data: bytes) -> bytes:
    """Encoded JSON with every such character as JSON's own escape:
    the same value, and harmless on a terminal.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    return _UNFIT.sub(_json_escape, data.decode()).encode()


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
