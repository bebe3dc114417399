"""Delivery of spans, metrics and log records to a collector, in a thread of its own:
a bad collector costs the run nothing.

What cannot be delivered in the time that the run's end allows is given up, and reported once.
It is in the run's files: `trace --push` sends it later.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from cleanroom.core.redaction import Redactor
from cleanroom.evidence.tracing.settings import Destination, Signal
from cleanroom.model.errors import CleanroomError

if TYPE_CHECKING:
    from cleanroom.evidence.tracing.logs import LogLine
    from cleanroom.evidence.tracing.metrics import Point
    from cleanroom.evidence.tracing.span import Source, SpanData

    # a span, or a metric's point or a log line with its source
    Item = SpanData | tuple[Source, Point] | tuple[Source, LogLine]

BATCH_ITEMS = 512  # OpenTelemetry's own default
# collectors take 4 MiB in one request by default; our estimate is larger than what goes over the
# wire
BATCH_BYTES = 3 << 20
# For what is left when the run ends: the promise to people is 1 s,
# of which loading the exporter costs some on a busy machine.
END_SECONDS = 0.8
PAUSE_SECONDS = 2.0  # after a failure, before the same batch is tried again during the run
_TOO_LARGE = "larger than it takes"
_PHRASES = (
    (_TOO_LARGE, r"code: 413|larger than max"),
    ("refused", r"[Cc]onnection refused"),
    ("its certificate is not trusted", r"certificate verify failed|CERTIFICATE_VERIFY_FAILED"),
    ("the host is not known", r"[Nn]ame or service not known|[Nn]ame resolution|getaddrinfo"),
    ("no answer in time", r"[Tt]imed out|DEADLINE_EXCEEDED"),
    ("status {0}", r"code: (?:StatusCode\.)?(\d{3}|[A-Z_]+)"),
    ("status {0}", r"Transient error (?:StatusCode\.)?([A-Z][\w ]+) encountered"),
    # What an exporter says when it gives up, whatever it met.
    ("no answer in time", r"due to timeout, max retries or shutdown"),
)
# two runs of one program at once: the interpreter's own locks let one see a module that is half
# there
_LOADING = threading.Lock()
_NOT_TRIED = "the run ended before the exporter was loaded"
_NOT_TAKEN = ("status 404", "status 501", "status UNIMPLEMENTED")


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a delivery.

    `counts` are items per signal that the collector took; `lost` those that it did not.
    """

    endpoint: str
    counts: dict[str, int] = {}
    lost: dict[str, int] = {}
    # signals that this collector does not take at all, as Jaeger only takes traces
    unwanted: tuple[str, ...] = ()
    why: str = ""  # one phrase, where something was lost
    hint: str = ""

    @property
    def complete(self) -> bool:
        return not self.lost

    def has(self, signal: Signal) -> bool:
        """Whether the collector has all of this signal, or takes none of it."""
        return signal in self.unwanted or (signal in self.counts and signal not in self.lost)


class Delivery:
    """A thread that delivers what `put` gives it.

    `finish` ends it within its time, whatever the collector does.
    """

    def __init__(self, destinations: dict[Signal, Destination]) -> None:
        assert destinations, "nothing to deliver to"
        self._destinations = destinations
        self._waiting: deque[tuple[Signal, Sequence[Item]]] = deque()
        self._counts: dict[str, int] = {}
        self._refused: dict[str, int] = {}  # too large to be taken even alone
        self._changed = threading.Condition()
        self._deadline: float | None = None  # monotonic; set when the run has ended
        # whether for the end -> signal -> the SDK's
        self._exporters: dict[bool, dict[Signal, Any]] = {False: {}, True: {}}
        self._unwanted: set[Signal] = set()
        self._errors: deque[str] = deque(maxlen=8)
        self._error: CleanroomError | None = None
        self._tried = False  # whether anything was sent at all: before that the exporter is loaded
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._thread.start()

    def put(self, signal: Signal, items: Sequence[Item]) -> None:
        """Have these delivered. Never waits."""
        if not items or signal not in self._destinations or signal in self._unwanted:
            return
        with self._changed:
            self._waiting.extend((signal, batch) for batch in batches(items))
            self._changed.notify()

    def finish(self, seconds: float = END_SECONDS) -> Delivered:
        """Deliver what is left, for at most so long. Blocks; call it in a thread."""
        with self._changed:
            self._deadline = time.monotonic() + seconds
            self._changed.notify()
            exporters = list(self._exporters[False].values())
        for exporter in exporters:
            exporter.shutdown()  # ends a pause between its own tries; a request under way goes on
        self._thread.join(seconds)
        return self._result()

    def _result(self) -> Delivered:
        with self._changed:
            waiting, counts, lost = list(self._waiting), dict(self._counts), dict(self._refused)
        for signal, batch in waiting:
            lost[signal] = lost.get(signal, 0) + len(batch)
        why = self._reason(waiting=bool(waiting)) if lost or self._error else ""
        endpoint = next(iter(self._destinations.values())).shown
        return Delivered(
            endpoint=endpoint,
            counts=counts,
            lost=lost,
            unwanted=tuple(sorted(self._unwanted)),
            why=why,
            hint=self._error.hint if self._error else "",
        )

    # --- in the thread

    def _work(self) -> None:
        with _captured_logs(self._errors):
            _load(self._destinations)
            while (item := self._next()) is not None:
                ending = self._deadline is not None
                try:
                    self._errors.clear()
                    taken = self._send(*item, ending)
                except CleanroomError as error:  # no exporter: it will not come by waiting
                    self._error = error
                    return
                # An exporter may raise anything; the run reports it and goes on.
                except Exception as error:
                    self._errors.append(f"{type(error).__name__}: {error}")
                    taken = False
                if taken:
                    self._remove_delivered(*item)
                elif item[0] != "traces" and phrase(self._errors) in _NOT_TAKEN:
                    self._drop_signal(item[0])
                elif phrase(self._errors) == _TOO_LARGE:
                    self._divide(*item)
                elif ending:
                    return  # another try would end the same way
                else:
                    self._pause()

    def _next(self) -> tuple[Signal, Sequence[Item]] | None:
        """The oldest batch, which stays in the queue until it was taken;
        None when all is delivered and the run has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
            return self._waiting[0] if self._waiting else None

    def _remove_delivered(self, signal: Signal, batch: Sequence[Item]) -> None:
        with self._changed:
            self._waiting.popleft()
            self._counts[signal] = self._counts.get(signal, 0) + len(batch)

    def _reason(self, *, waiting: bool) -> str:
        """The reason for what was lost: the collector's for items that still wait, else that they
        were too large.
        """
        if self._error:
            return str(self._error)
        if not self._tried:
            return _NOT_TRIED
        return (
            without_secrets(phrase(self._errors), self._destinations.values())
            if waiting
            else _TOO_LARGE
        )

    def _divide(self, signal: Signal, batch: Sequence[Item]) -> None:
        """Send a batch that is too large for this collector in halves.

        A single item that is too large is given up.
        """
        half = len(batch) // 2
        with self._changed:
            self._waiting.popleft()
            if half:
                self._waiting.extendleft(((signal, batch[half:]), (signal, batch[:half])))
            else:
                self._refused[signal] = self._refused.get(signal, 0) + 1

    def _drop_signal(self, signal: Signal) -> None:
        """The collector does not take this signal at all."""
        with self._changed:
            self._unwanted.add(signal)
            self._waiting = deque(item for item in self._waiting if item[0] != signal)

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._deadline is not None, PAUSE_SECONDS)

    def _send(self, signal: Signal, batch: Sequence[Item], ending: bool) -> bool:
        from cleanroom.evidence.tracing.sdk import converter

        exporter = self._exporter(signal, ending)
        self._tried = True
        result = exporter.export(converter(signal)(batch))
        return bool(result.name == "SUCCESS")

    def _exporter(self, signal: Signal, ending: bool) -> Any:
        """One for the run, and another for its end, which has less time and may not be what
        `finish` has shut down.
        """
        from cleanroom.evidence.tracing.sdk import exporter

        made = self._exporters[ending].get(signal)
        if made is None:
            to = self._destinations[signal]
            if ending:
                assert self._deadline is not None
                to = msgspec.structs.replace(
                    to,
                    timeout_seconds=min(
                        to.timeout_seconds, max(self._deadline - time.monotonic(), 0.05)
                    ),
                )
            made = self._exporters[ending][signal] = exporter(signal, to, self._errors.append)
        return made


def _load(destinations: dict[Signal, Destination]) -> None:
    """Import what sending needs while the run is under way:
    half a second on a busy machine, which its end does not have.
    """
    with _LOADING:
        from cleanroom.evidence.tracing.sdk import exporter_class

        for signal, to in destinations.items():
            with suppress(CleanroomError):  # raised again by `_send`, which reports it
                exporter_class(signal, to)


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in batches that a collector takes, limited by number and by size."""
    begin = weight = 0
    for index, item in enumerate(items):
        more = len(msgspec.json.encode(item))
        if index > begin and (index - begin >= BATCH_ITEMS or weight + more > BATCH_BYTES):
            yield items[begin:index]
            begin, weight = index, 0
        weight += more
    if begin < len(items):
        yield items[begin:]


def phrase(errors: Sequence[str]) -> str:
    """The exporters' messages, newest last, as the shortest text that tells what to mend."""
    for words, pattern in _PHRASES:
        for text in reversed(errors):
            if found := re.search(pattern, text):
                return words.format(*found.groups())
    return "no answer in time" if not errors else errors[-1][:200]


def without_secrets(words: str, destinations: Collection[Destination]) -> str:
    """An exporter's message without the secret parts of addresses and headers."""
    for to in destinations:
        words = words.replace(to.endpoint, to.shown)
    return Redactor(secret for to in destinations for secret in to.secrets).text(words)


@contextmanager
def _captured_logs(messages: deque[str]) -> Iterator[None]:
    """Collect the exporters' log messages of this thread, instead of having them printed.

    Each failure is reported once, by `phrase`.
    """
    from cleanroom.evidence.tracing.names import EXPORTER_LOGGERS

    thread = threading.get_ident()

    def capture(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True  # somebody else's exporter in the same program
        messages.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in EXPORTER_LOGGERS]
    for logger in loggers:
        # before the exporters' own, which leave out what was said a moment ago
        logger.filters.insert(0, capture)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(capture)
