"""Text that can be shown: nothing that came from a project or its processes may move the cursor, colour our lines or forge them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Complete colour sequences go silently; every other control character is shown as what it is. Besides C0 and C1 these are the characters that
# break lines or reorder text (line and paragraph separators, the bidirectional controls), and lone surrogates.
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def safe(text: str) -> str:
    """`text` on one line, with every control character but the tab written out."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(_written, _COLOUR.sub("", text))


def _written(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def overwritten(line: str) -> str:
    """What a terminal would show of a line that returns to its start, as progress bars do."""
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def clip(text: str, width: int) -> str:
    """`text` in at most `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def table(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Rows in aligned columns, without trailing blanks."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows]
