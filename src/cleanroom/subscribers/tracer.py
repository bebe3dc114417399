"""Writes the run's trace file at its end, and sends to a collector meanwhile where one is named.

`evidence.tracing` makes spans, metrics and log records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import anyio.to_thread
import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Subscription
from cleanroom.core.files import write_atomic
from cleanroom.evidence import tracing
from cleanroom.evidence.tracing import logs, metrics
from cleanroom.evidence.tracing.delivery import BATCH_ITEMS, END_SECONDS, Delivered, Delivery
from cleanroom.evidence.tracing.settings import Settings, Signal, read_settings
from cleanroom.evidence.tracing.span import Source, SpanData
from cleanroom.model.events import Envelope, Event, Metric

if TYPE_CHECKING:
    from cleanroom.evidence.tracing.delivery import Item

TRACE_FILE = "trace.otlp.json"
DELIVERED_FILE = "delivered.json"  # beside it, once a collector has taken something
COLLECTORS_MAX = 16  # that one run is remembered to have been sent to
_DELIVERED_BYTES = 64 << 10
READS: tuple[type[Event], ...] = (*tracing.KINDS, Metric)  # samples are never spans
PUSH_SECONDS = 30.0  # for a person who asked for it and waits
LIMIT = 200_000  # as the event log's: a trace with a gap would show a wrong tree


class Tracer:
    """One run's tracer.

    `run` it until the bus closes; then `delivered` tells what the collector has,
    None where none is named.
    """

    def __init__(self, folder: Folder, settings: Settings, *, sampled: bool) -> None:
        self.path = folder.path / TRACE_FILE
        self._folder = folder
        self.delivered: Delivered | None = None
        self._trace = tracing.Trace(settings)
        self._lines: list[logs.LogLine] = []
        self._metrics = metrics.Metrics()
        self._sampled = sampled
        self._delivery = Delivery(settings.destinations) if settings.destinations else None

    @classmethod
    def of(cls, folder: Folder, caller: Mapping[str, str], *, sampled: bool) -> Tracer:
        """A tracer with the settings of the caller's environment variables.

        Spans of a trace that is not sampled are written all the same, and not sent.
        """
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
                    self._add(envelope)
            await anyio.to_thread.run_sync(self._write)
        finally:
            if self._delivery is not None:
                self.delivered = await anyio.to_thread.run_sync(self._deliver_rest, self._delivery)

    def _add(self, envelope: Envelope) -> None:
        self._trace.add(envelope)
        if self._delivery is None:
            return
        self._metrics.add(envelope)
        if len(self._lines) < logs.RECORDS_MAX and (line := logs.log_line(envelope)):
            self._lines.append(line)
        if self._sampled and self._trace.ready >= BATCH_ITEMS:
            self._delivery.put("traces", self._trace.take())

    def _write(self) -> None:
        write_atomic(self._folder, TRACE_FILE, tracing.otlp_json(self._trace.spans()))

    def _deliver_rest(self, delivery: Delivery) -> Delivered:
        if self._sampled:
            delivery.put("traces", self._trace.take())
        return _finish(
            delivery,
            self._folder,
            _end_signals(self._trace.source(), self._metrics.points(), self._lines),
            END_SECONDS,
        )


def push(
    folder: Folder, spans: Sequence[SpanData], envelopes: Sequence[Envelope], settings: Settings
) -> tuple[Delivered, bool]:
    """Send a recorded run, except for the signals that this collector has already.

    Blocks, for a bounded time.

    Returns:
        What was delivered, and whether the collector had all of it before.
    """
    trace, points = tracing.Trace(settings), metrics.Metrics()
    for envelope in envelopes:
        trace.add(envelope)
        points.add(envelope)
    lines = [line for envelope in envelopes if (line := logs.log_line(envelope))][
        : logs.RECORDS_MAX
    ]
    items: dict[Signal, Sequence[Item]] = {
        "traces": spans,
        **_end_signals(trace.source(), points.points(), lines),
    }
    shown = settings.destinations[next(iter(settings.destinations))].shown
    earlier = next(
        (delivered for delivered in read_deliveries(folder) if delivered.endpoint == shown), None
    )
    missing = {
        signal: items[signal]
        for signal in settings.destinations
        if items[signal] and not (earlier and earlier.has(signal))
    }
    if earlier is not None and not missing:
        return earlier, True
    return _finish(Delivery(settings.destinations), folder, missing, PUSH_SECONDS), False


def _end_signals(
    source: Source, points: Sequence[metrics.Point], lines: Sequence[logs.LogLine]
) -> dict[Signal, Sequence[Item]]:
    """The two signals that wait for the run's end."""
    shared = metrics.shared(source)
    return {
        "metrics": [(shared, point) for point in points],
        "logs": [(source, line) for line in lines],
    }


def _finish(
    delivery: Delivery, folder: Folder, items: Mapping[Signal, Sequence[Item]], seconds: float
) -> Delivered:
    """Deliver these too, and write beside the trace which collector has which signals."""
    for signal, found in items.items():
        delivery.put(signal, found)
    delivered = delivery.finish(seconds)
    if delivered.counts:
        before = read_deliveries(folder)
        others = [each for each in before if each.endpoint != delivered.endpoint]
        earlier = next((each for each in before if each.endpoint == delivered.endpoint), delivered)
        complete = {
            signal: count for signal, count in earlier.counts.items() if signal not in earlier.lost
        }
        merged = msgspec.structs.replace(delivered, counts=complete | delivered.counts)
        write_atomic(
            folder, DELIVERED_FILE, msgspec.json.encode([*others, merged][-COLLECTORS_MAX:])
        )
    return delivered


def read_deliveries(folder: Folder) -> list[Delivered]:
    """What collectors have of the run in this folder, one row each, the newest last."""
    try:
        with folder.reading(DELIVERED_FILE) as file:
            return msgspec.json.decode(file.read(_DELIVERED_BYTES), type=list[Delivered])
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError):
        return []
