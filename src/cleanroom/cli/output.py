"""Writing to the standard streams: bytes that always encode, lost output that is noticed,
colour where it is wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TextIO

from cleanroom.model.errors import CleanroomError, Exit

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}


# Signs of our own for streams that have no Unicode; whatever else does not encode is written as an
# escape.
_ASCII = str.maketrans({"·": "-", "…": "~", "✓": "+", "✗": "x"})

_LINES_AT_ONCE = 1000  # one write for a screenful, and a reader that goes away is noticed soon


class OutputLost(CleanroomError):
    """Standard output did not take a result.

    `reported` where the reader went away: no stream is left to show the error on.
    """

    exit = Exit.ENGINE

    def __init__(self, message: str, *, reported: bool = False) -> None:
        super().__init__(
            "CR-CLI-002",
            message,
            hint=(
                "give standard output somewhere to go: a terminal, a file with room, a pipe that "
                "is read"
            ),
        )
        self.reported = reported

    @classmethod
    def because(cls, error: OSError | ValueError) -> OutputLost:
        """The error for a failed write; ValueError is that of a closed stream."""
        return cls(f"standard output: {error}", reported=isinstance(error, BrokenPipeError))


class Output:
    """The two streams of one command.

    Standard error is written as well as can be; standard output must not lose anything.
    """

    def __init__(self, colour: str = "auto", environ: Mapping[str, str] = os.environ) -> None:
        self.lost: OutputLost | None = None
        self.colour_out = wants_colour(colour, sys.stdout, environ)
        self.colour_err = wants_colour(colour, sys.stderr, environ)
        self.unicode = not _ascii_locale(environ) and all(
            "utf" in (stream.encoding or "").lower() for stream in (sys.stdout, sys.stderr)
        )

    def out(self, text: str) -> None:
        """Write a piece of the result. After a failure the rest is dropped, and `check` raises."""
        self.raw(self._encode(text, sys.stdout))

    def raw(self, data: bytes) -> None:
        """Write bytes of the result, and flush them."""
        if self.lost is not None:
            return
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except (OSError, ValueError) as error:
            self.lost = OutputLost.because(error)

    def json(self, *values: object) -> None:
        """Write JSON values, each on one line."""
        import msgspec

        from cleanroom.core.text import json_written_out

        self.raw(b"".join(json_written_out(msgspec.json.encode(value)) + b"\n" for value in values))

    def err(self, text: str) -> None:
        """Write progress. A closed standard error is no reason to stop."""
        try:
            sys.stderr.flush()
            sys.stderr.buffer.write(self._encode(text, sys.stderr))
            sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass

    def check(self) -> None:
        """
        Raises:
            OutputLost: something of the result was not written.
        """
        if self.lost is not None:
            raise self.lost

    def with_signs(self, text: str) -> str:
        """`text` with our signs replaced where the streams have no Unicode."""
        return text if self.unicode else text.translate(_ASCII)

    def _encode(self, text: str, stream: TextIO) -> bytes:
        return self.with_signs(text).encode(stream.encoding or "utf-8", "backslashreplace")

    def paint(self, text: str, colour: str, *, err: bool = False) -> str:
        """`text` in colour where the stream wants it."""
        wanted = self.colour_err if err else self.colour_out
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if wanted else text

    def mark(self, name: str) -> str:
        """A sign for ok, warn or fail."""
        return {"ok": "✓", "warn": "!", "fail": "✗"}[name]


def _ascii_locale(environ: Mapping[str, str]) -> bool:
    """Whether the locale is C or POSIX.

    Python reads and writes UTF-8 there, but a terminal need not show it.
    """
    return next(
        (environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), ""
    ) in ("C", "POSIX")


def wants_colour(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream gets colour: the option decides, then NO_COLOR, then FORCE_COLOR, then
    whether it is a terminal with colour.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in ("", "0") or environ.get(
        "CLICOLOR_FORCE", "0"
    ) not in ("", "0"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb" and environ.get("CLICOLOR") != "0"


def write_lines(output: Output, lines: Iterable[str]) -> None:
    """Print lines as a command's whole result, as they come.

    Raises:
        OutputLost: they could not be written; no further line was asked for.
    """
    remaining = iter(lines)
    while piece := "".join(f"{line}\n" for line in islice(remaining, _LINES_AT_ONCE)):
        output.out(piece)
        output.check()


def write_objects(output: Output, values: Iterable[object]) -> None:
    """Print JSON values, one per line, as a command's whole result; as `write_lines` does.

    Raises:
        OutputLost: they could not be written; no further value was asked for.
    """
    remaining = iter(values)
    while piece := tuple(islice(remaining, _LINES_AT_ONCE)):
        output.json(*piece)
        output.check()


def write_object(output: Output, value: object) -> None:
    """Print one JSON object as a command's whole result.

    Raises:
        OutputLost: it could not be written.
    """
    output.json(value)
    output.check()
