"""The events of a run for a reader that came late: first what is recorded, then what comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread

from cleanroom.core.bus import Subscription
from cleanroom.engine.records import EVENTS, read_events, read_run
from cleanroom.model.events import Envelope

# The reporter writes what it gets at once; a reader of a slow disk asks again that often.
POLL_SECONDS = 0.02


def recorded(project: Path, run_id: str) -> AsyncIterator[Envelope]:
    """The recorded events of a run.

    Raises:
        UsageError: there is no such run.
        ProjectError: the record cannot be read.
    """
    envelopes = read_run(project, run_id)

    async def iterate() -> AsyncIterator[Envelope]:
        for envelope in envelopes:
            yield envelope

    return iterate()


async def replayed(folder: Path | None, last: int, inbox: Subscription) -> AsyncIterator[Envelope]:
    """The events up to number `last` from the run's folder, then those of `inbox`.

    Nothing is recorded where `folder` is None.
    Where the record ends too early, because it could not be written, so does the replay.

    Raises:
        ProjectError: the record cannot be read.
        SubscriberLagged: `inbox` lost events.
    """
    seen = 0
    while folder is not None and seen < last:
        ended = inbox.closed
        for envelope in await anyio.to_thread.run_sync(_read, folder / EVENTS):
            if seen < envelope.seq <= last:
                seen = envelope.seq
                yield envelope
        if ended:
            break
        if seen < last:
            await anyio.sleep(POLL_SECONDS)
    while batch := await inbox.batch():
        for envelope in batch:
            yield envelope


def _read(file: Path) -> list[Envelope]:
    return read_events(file) if file.exists() else []
