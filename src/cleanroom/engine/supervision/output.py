"""The output of processes, on its way to the log file and to the bus: redacted, in bounded pieces,
decoded.
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
STREAM_BYTES = 1 << 20  # per stream in events; the log file has all of it
PAUSE_SECONDS = 0.05  # too short for a person to notice: small writes within it are one event


class LogSink(Protocol):
    """The run's log files."""

    def write(self, name: str, data: bytes) -> None: ...

    def path(self, name: str) -> Path: ...


class RedactingStream(Protocol):
    """Removes secrets from a stream, also those that are split over pieces."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class Redacting(Protocol):
    """Makes texts and streams without the run's secrets."""

    def add(self, *values: str) -> None: ...

    def text(self, text: str) -> str: ...

    def stream(self) -> RedactingStream: ...


class _StreamState:
    """The state of one of the two streams."""

    def __init__(self, redactor: RedactingStream) -> None:
        self.redactor = redactor
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.waiting = bytearray()
        self.offset = 0  # bytes published so far
        self.cut = False


class OutputPump:
    """Receives the raw output of one subject.

    `feed` is cheap and never waits; call `end` after the last piece.
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
        self._streams: dict[Stream, _StreamState] = {
            "stdout": _StreamState(redactor.stream()),
            "stderr": _StreamState(redactor.stream()),
        }
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def feed(self, stream: Stream, data: bytes) -> None:
        """Receive one piece of output."""
        if self._ended:
            return  # a late piece of a process that outlived its command
        self._take(stream, self._streams[stream].redactor.feed(data))

    def end(self) -> None:
        """Publish the rest, and ignore later pieces."""
        for stream, state in self._streams.items():
            self._take(stream, state.redactor.end())
        self._ended = True
        self._flush(final=True)

    def _take(self, stream: Stream, clean: bytes) -> None:
        if not clean:
            return
        self._logs.write(self._log, clean)
        state = self._streams[stream]
        if state.cut:
            return
        state.waiting += clean
        if len(state.waiting) >= PIECE_BYTES:
            self._publish_pieces(stream, state, final=False)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._flush)

    def _flush(self, final: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for stream, state in self._streams.items():
            self._publish_pieces(stream, state, final=final)

    def _publish_pieces(self, stream: Stream, state: _StreamState, *, final: bool) -> None:
        while state.waiting and not state.cut:
            size = min(PIECE_BYTES, len(state.waiting), STREAM_BYTES - state.offset)
            piece, state.waiting = bytes(state.waiting[:size]), state.waiting[size:]
            state.cut = bool(state.waiting) and state.offset + size >= STREAM_BYTES
            self._publish(stream, state, state.decoder.decode(piece, state.cut), size)
        if state.cut:
            state.waiting.clear()
        elif final and (rest := state.decoder.decode(b"", True)):
            self._publish(stream, state, rest, 0)

    def _publish(self, stream: Stream, state: _StreamState, text: str, size: int) -> None:
        if text or state.cut:
            self._bus.publish(
                Output(
                    subject=self._subject,
                    stream=stream,
                    text=text,
                    offset=state.offset,
                    cut=state.cut,
                ),
                self._at,
            )
        state.offset += size
