"""Text that can be shown: nothing that came from a project or its processes may move the cursor,
colour our lines or forge them.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cleanroom.core.text import written_out_on_one_line

# complete colour sequences go silently; whatever else is a control is shown as what it is
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def safe(text: str) -> str:
    """`text` on one line, with every control character but the tab written out."""
    if text.isascii() and text.isprintable():
        return text
    return written_out_on_one_line(_COLOUR.sub("", text))


def overwritten(line: str) -> str:
    """What a terminal would show of a line that returns to its start, as progress bars do."""
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def clip(text: str, width: int) -> str:
    """`text` in at most `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def table(rows: Sequence[tuple[str, ...]], indent: str = "") -> list[str]:
    """Rows in aligned columns, without trailing blanks."""
    widths = (
        [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    )
    return [
        (
            indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
