"""What processes write, on its way to the log file and to the bus:
redacted, in bounded pieces, decoded.
"""

from __future__ import annotations

import asyncio
import codecs
from pathlib import Path
from typing import Protocol

from cleanroom.backends.base import Stream
from cleanroom.core.bus import Bus, SpanContext
from cleanroom.model.events import Output, Subject

PIECE_BYTES = 32 << 10  # one event: large enough to be cheap, small enough for a line of a log
STREAM_BYTES = 1 << 20  # per stream in events; the whole is in the log file
PAUSE_SECONDS = 0.05  # what a person does not notice: small writes within it become one event


class LogSink(Protocol):
    """The run's log files."""

    def write(self, name: str, data: bytes) -> None: ...

    def path(self, name: str) -> Path: ...


class RedactingStream(Protocol):
    """Takes secrets out of a stream, also those that are split over pieces."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class Redacting(Protocol):
    """Knows the run's secrets."""

    def add(self, *values: str) -> None: ...

    def stream(self) -> RedactingStream: ...


class _Half:
    """One of the two streams."""

    def __init__(self, redactor: RedactingStream) -> None:
        self.redactor = redactor
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.waiting = bytearray()
        self.offset = 0  # bytes told so far
        self.cut = False


class OutputPump:
    """Takes the raw output of one subject.

    `feed` is cheap and never waits; call `end` when nothing more comes.
    """

    def __init__(
        self,
        bus: Bus,
        logs: LogSink,
        redactor: Redacting,
        *,
        subject: Subject,
        log: str,
        at: SpanContext,
    ) -> None:
        self._bus = bus
        self._logs = logs
        self._subject = subject
        self._log = log
        self._at = at
        self._halves: dict[Stream, _Half] = {
            "stdout": _Half(redactor.stream()),
            "stderr": _Half(redactor.stream()),
        }
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def feed(self, stream: Stream, data: bytes) -> None:
        """One piece as it came."""
        if self._ended:
            return  # a late piece of a process that outlived its command
        self._take(stream, self._halves[stream].redactor.feed(data))

    def end(self) -> None:
        """Tell what is held back."""
        for stream, half in self._halves.items():
            self._take(stream, half.redactor.end())
        self._ended = True
        self._flush(final=True)

    def _take(self, stream: Stream, clean: bytes) -> None:
        if not clean:
            return
        self._logs.write(self._log, clean)
        half = self._halves[stream]
        if half.cut:
            return
        half.waiting += clean
        if len(half.waiting) >= PIECE_BYTES:
            self._tell(stream, half, final=False)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._flush)

    def _flush(self, final: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream, half in self._halves.items():
            self._tell(stream, half, final=final)

    def _tell(self, stream: Stream, half: _Half, *, final: bool) -> None:
        while half.waiting and not half.cut:
            size = min(PIECE_BYTES, len(half.waiting), STREAM_BYTES - half.offset)
            piece, half.waiting = bytes(half.waiting[:size]), half.waiting[size:]
            half.cut = bool(half.waiting) and half.offset + size >= STREAM_BYTES
            self._publish(stream, half, half.decoder.decode(piece, half.cut), size)
        if half.cut:
            half.waiting.clear()
        elif final and (rest := half.decoder.decode(b"", True)):
            self._publish(stream, half, rest, 0)

    def _publish(self, stream: Stream, half: _Half, text: str, size: int) -> None:
        if text or half.cut:
            self._bus.publish(
                Output(
                    subject=self._subject,
                    stream=stream,
                    text=text,
                    offset=half.offset,
                    cut=half.cut,
                ),
                self._at,
            )
        half.offset += size
