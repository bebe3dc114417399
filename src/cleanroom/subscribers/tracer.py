"""Writes the run's trace file at its end. What a span is made of is `tracing`'s."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread

from cleanroom import tracing
from cleanroom.artifacts import write_atomic
from cleanroom.bus import Subscription
from cleanroom.events import Started

TRACE_FILE = "trace.otlp.json"
READS = tracing.KINDS  # not Metric: samples are never spans
LIMIT = 200_000  # as the event log's: a trace with a gap would show a wrong tree


async def run(inbox: Subscription, path: Path) -> None:
    """Collect until the bus closes, then write.

    Raises:
        SubscriberLagged: events were lost to it.
        ArtifactError: the file cannot be written.
    """
    trace = tracing.Trace()
    async with anyio.create_task_group() as tasks:
        warm = False
        while batch := await inbox.batch():
            for envelope in batch:
                trace.add(envelope)
            if not warm and any(isinstance(e.event, Started) and e.event.subject.kind == "command" for e in batch):
                warm = True
                tasks.start_soon(anyio.to_thread.run_sync, tracing.load)  # now the engine only waits; at the end a person would
    await anyio.to_thread.run_sync(_write, trace, path)


def _write(trace: tracing.Trace, path: Path) -> None:
    write_atomic(path, tracing.otlp_json(trace.spans()))
