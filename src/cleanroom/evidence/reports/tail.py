"""The end of an output, in bounded memory."""

from __future__ import annotations

from collections import deque

LINES_MAX = 40  # what fits a screen; the whole is in the log file
COLUMNS_MAX = 400
_PIECES_MAX = 64  # a piece is a write of the process, often one line
_TEXT_MAX = 32 << 10


class Tail:
    """Takes pieces of text, gives the last lines."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._length = 0

    def add(self, text: str) -> None:
        """Append a piece of text; what is far from the end is dropped."""
        text = text[-_TEXT_MAX:]
        self._pieces.append(text)
        self._length += len(text)
        if len(self._pieces) > _PIECES_MAX or self._length > _TEXT_MAX:
            joined = "".join(self._pieces)[-_TEXT_MAX:]
            self._pieces = deque([joined])
            self._length = len(joined)

    def clear(self) -> None:
        self._pieces.clear()
        self._length = 0

    def lines(self) -> tuple[str, ...]:
        """The last lines, long ones cut; a line that returns to its start shows what a terminal
        would.
        """
        found = "".join(self._pieces).rstrip().split("\n") if self._pieces else []
        shown = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in found[-LINES_MAX:]]
        lines = tuple(
            line if len(line) <= COLUMNS_MAX else line[: COLUMNS_MAX - 1] + "…" for line in shown
        )
        return lines if any(lines) else ()
