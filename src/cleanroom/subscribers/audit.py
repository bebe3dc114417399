"""Keeps the audit log: every event is in its hash chain, on disk, before the run can end.

The log itself is `evidence/audit/log.py`'s; here is only the loop that feeds it.
"""

from __future__ import annotations

import anyio

from cleanroom.core.bus import Subscription
from cleanroom.evidence.audit.log import AuditLog
from cleanroom.model.events import Event, Metric, Output, Spans

# events waiting for the disk, about 100 MB at worst: a stall of seconds under a flood;
# more ends the run
LIMIT = 200_000
# what a killed engine may have sampled without having it on disk;
# whatever else happens goes there at once, and takes these with it
LINGER_SECONDS = 0.25


# A batch is three waits for the disk and the lock, a millisecond and more.
# Samples and what programs say come ten times a second and oftener, and are no decisions.
DEFERRABLE: frozenset[type[Event]] = frozenset((Metric, Output, Spans))


async def run(inbox: Subscription, log: AuditLog) -> None:
    """Write batches until the bus has closed, then close the log. `log` has been opened."""
    while batch := await inbox.batch(DEFERRABLE, LINGER_SECONDS):
        await anyio.to_thread.run_sync(log.append, batch)
    await anyio.to_thread.run_sync(log.close)
