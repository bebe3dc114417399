"""What the fetch step reports while it works: files and bytes, as lines that people read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

PAUSE_SECONDS = 2.0
_MIB = 1 << 20


class _Line(msgspec.Struct, frozen=True):
    """A line of `inside/download.py`."""

    n: int
    bytes: int = 0
    done: int = -1
    failed: str = ""
    kind: str = ""
    away: str = ""


class Progress:
    """Counts files and bytes of one set, and writes a line now and then."""

    def __init__(self, write: Callable[[bytes], None], subject: str) -> None:
        self._write = write
        self._subject = subject
        self._last = time.monotonic()
        self.fetched = 0
        self.missing = 0
        self.bytes = 0

    def expect(self, files: int, missing: int) -> None:
        """So many files belong to the set, and so many of them are to be fetched."""
        self.missing += missing
        # What came before were documents of registries.
        self.fetched = self.bytes = 0
        if missing:
            self._say(f"fetching {missing} of {files} files")

    def log(self, data: bytes) -> None:
        """Output of a tool."""
        self._write(data)

    def reader(self, names: Sequence[str]) -> DownloadReader:
        """The reader of a downloader's output."""
        return DownloadReader(self, names)

    def led(self, name: str, host: str) -> None:
        """Say that a file comes from another host than the one that was asked."""
        self._say(f"{name} is led to {host}")

    def update(self, slowest: str) -> None:
        """Write a line, if the last one was some time ago."""
        if time.monotonic() - self._last < PAUSE_SECONDS:
            return
        counted = f"{self.fetched} of {self.missing} files, {self.bytes / _MIB:.1f} MiB"
        self._say(f"{counted}; waiting for {slowest}" if slowest else counted)

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        self._write(f"{self._subject}: {text}\n".encode())


class DownloadReader:
    """Reads the lines of one downloader. What it says came from inside: nothing is believed but
    how to tell people about it; the files are verified.
    """

    def __init__(self, progress: Progress, names: Sequence[str]) -> None:
        self._progress = progress
        self._names = names
        self._rest = b""
        self._sizes: dict[int, int] = {}
        self._open = set(range(len(names)))
        self.failure: tuple[int, str, str] | None = None
        # files whose addresses led to hosts that the environment does not reach -> where to
        self.away: dict[int, str] = {}
        self.tail = ""

    def feed(self, data: bytes) -> None:
        """Take a piece of output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-65536:]  # more than an address that may be followed
        for line in lines:
            self._take(line)

    def _take(self, text: bytes) -> None:
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.MsgspecError:
            self.tail = text.decode(errors="replace")[-400:]
            return
        if not 0 <= line.n < len(self._names):
            return
        if line.failed:
            self.failure = self.failure or (line.n, line.failed[:400], line.kind)
            return
        if line.away:
            self.away[line.n] = line.away
            return
        size = max(line.bytes, line.done)
        self._progress.bytes += size - self._sizes.get(line.n, 0)
        self._sizes[line.n] = size
        if line.done >= 0:
            self._open.discard(line.n)
            self._progress.fetched += 1
        self._progress.update(self._slowest())

    def _slowest(self) -> str:
        """A file that is on its way, while few are."""
        return self._names[min(self._open)] if 0 < len(self._open) <= 3 else ""
