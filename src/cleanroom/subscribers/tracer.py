"""Writes the run's trace file at its end, and has a collector told meanwhile where one is named. What spans, metrics and log records are is `tracing`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio.to_thread
import msgspec

from cleanroom import tracing
from cleanroom.artifacts import open_to_read, write_atomic
from cleanroom.bus import Subscription
from cleanroom.events import Envelope, Event, Metric
from cleanroom.tracing import logs, metrics
from cleanroom.tracing.deliver import BATCH_ITEMS, END_SECONDS, Delivered, Delivery
from cleanroom.tracing.settings import Settings, read_settings
from cleanroom.tracing.span import Source, SpanData

TRACE_FILE = "trace.otlp.json"
DELIVERED_FILE = "delivered.json"  # beside it, once a collector has taken all of it
_DELIVERED_BYTES = 64 << 10
READS: tuple[type[Event], ...] = (*tracing.KINDS, Metric)  # samples are never spans
PUSH_SECONDS = 30.0  # for a person who asked for it and waits
LIMIT = 200_000  # as the event log's: a trace with a gap would show a wrong tree


class Tracer:
    """One run's tracer. `run` it until the bus closes; then `delivered` says what became of what was sent, None where nothing was to be sent."""

    def __init__(self, folder: Path, settings: Settings, *, sampled: bool) -> None:
        self.path = folder / TRACE_FILE
        self.delivered: Delivered | None = None
        self._trace = tracing.Trace(settings)
        self._lines: list[logs.LogLine] = []
        self._metrics = metrics.Metrics()
        wanted = settings.destinations if sampled else {}
        self._delivery = Delivery(wanted) if wanted else None

    @classmethod
    def of(cls, folder: Path, caller: Mapping[str, str], *, sampled: bool) -> Tracer:
        """As the caller's environment has it. A trace that is not sampled is written all the same, and not sent."""
        return cls(folder, read_settings(caller), sampled=sampled)

    async def run(self, inbox: Subscription) -> None:
        """Collect until the bus closes, write, and deliver what is left for a bounded time.

        Raises:
            SubscriberLagged: events were lost to it.
            ArtifactError: the file cannot be written.
        """
        try:
            while batch := await inbox.batch():
                for envelope in batch:
                    self._take(envelope)
            await anyio.to_thread.run_sync(self._write)
        finally:
            if self._delivery is not None:
                self.delivered = await anyio.to_thread.run_sync(self._deliver_rest, self._delivery)

    def _take(self, envelope: Envelope) -> None:
        self._trace.add(envelope)
        if self._delivery is None:
            return
        self._metrics.add(envelope)
        if len(self._lines) < logs.RECORDS_MAX and (line := logs.log_line(envelope)):
            self._lines.append(line)
        if self._trace.ready >= BATCH_ITEMS:
            self._delivery.put("traces", self._trace.take())

    def _write(self) -> None:
        write_atomic(self.path, tracing.otlp_json(self._trace.spans()))

    def _deliver_rest(self, delivery: Delivery) -> Delivered:
        delivery.put("traces", self._trace.take())
        return _finish(delivery, self.path.parent, self._trace.source(), self._metrics.points(), self._lines, END_SECONDS)


def push(folder: Path, spans: Sequence[SpanData], envelopes: Sequence[Envelope], settings: Settings) -> tuple[Delivered, bool]:
    """Send a recorded run, unless that collector has it already: what became of it, and whether it was there. Blocks, for a bounded time."""
    told = recall(folder)
    if told is not None and told.endpoint == settings.destinations[next(iter(settings.destinations))].shown:
        return told, True
    trace, points = tracing.Trace(settings), metrics.Metrics()
    for envelope in envelopes:
        trace.add(envelope)
        points.add(envelope)
    lines = [line for envelope in envelopes if (line := logs.log_line(envelope))][: logs.RECORDS_MAX]
    delivery = Delivery(settings.destinations)
    delivery.put("traces", spans)
    return _finish(delivery, folder, trace.source(), points.points(), lines, PUSH_SECONDS), False


def _finish(
    delivery: Delivery, folder: Path, source: Source, points: Sequence[metrics.Point], lines: Sequence[logs.LogLine], seconds: float
) -> Delivered:
    """Deliver what is left, and write down beside the trace where all of it is."""
    shared = metrics.shared(source)
    delivery.put("metrics", [(shared, point) for point in points])
    delivery.put("logs", [(source, line) for line in lines])
    delivered = delivery.finish(seconds)
    if delivered.complete and delivered.counts:
        write_atomic(folder / DELIVERED_FILE, msgspec.json.encode(delivered))
    return delivered


def recall(folder: Path) -> Delivered | None:
    """What was delivered of the run in this folder; None where nothing is known."""
    try:
        with open_to_read(folder / DELIVERED_FILE) as file:
            return msgspec.json.decode(file.read(_DELIVERED_BYTES), type=Delivered)
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return None
