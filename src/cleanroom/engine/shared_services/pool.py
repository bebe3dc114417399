"""A pool's status, and its end, for the command. Blocks; call it in a worker thread."""

from __future__ import annotations

import time
from pathlib import Path

from cleanroom.engine.shared_services import protocol
from cleanroom.engine.shared_services.discovery import discovery_key, find_server
from cleanroom.engine.shared_services.protocol import PoolStatus
from cleanroom.model.errors import ServiceFailed
from cleanroom.sandbox import channel

__all__ = ["PoolStatus", "pool_key", "pool_status", "stop_pool"]

ANSWER_SECONDS = 10.0
# A tenth of a second when measured, seconds in containers of a busy machine;
# the server waits 5 s for wardens that do not end.
END_SECONDS = 30.0


def pool_key(root: str, backend: str) -> str:
    """The discovery key of the project's pool on this backend."""
    return discovery_key(root, "pool", backend)


def pool_status(runs: str, root: str, backend: str) -> PoolStatus:
    """The project's pool on this backend; one without id where there is none.

    Raises:
        ServiceFailed: the pool does not answer.
    """
    if (found := find_server(runs, "pool", pool_key(root, backend))) is None:
        return PoolStatus()
    identity, end = found
    with end:
        end.settimeout(ANSWER_SECONDS)
        try:
            channel.send(end, protocol.encode(protocol.QueryStatus()))
            while (arrived := protocol.receive_message(end)) is not None:
                if isinstance(arrived[0], protocol.StatusReported):
                    return arrived[0].status
        except TimeoutError:
            raise ServiceFailed(
                "CR-SESSION-003", f"{identity}: the pool did not answer within {ANSWER_SECONDS:g} s"
            ) from None
        except OSError:
            pass
    return PoolStatus()  # it was just ending


def stop_pool(runs: str, root: str, backend: str) -> PoolStatus:
    """End the project's pool and wait until its folder is gone.

    Returns:
        The status before the end.

    Raises:
        ServiceFailed: it does not end.
    """
    before = pool_status(runs, root, backend)
    if not before.id or (found := find_server(runs, "pool", pool_key(root, backend))) is None:
        return before
    with found[1] as end:
        channel.send(end, protocol.encode(protocol.EndServer()))
    until = time.monotonic() + END_SECONDS
    while Path(runs, before.id).exists():
        if time.monotonic() > until:
            hint = f"kill {before.pid}, then `cleanroom-engine sweep`"
            raise ServiceFailed(
                "CR-SESSION-006", f"{before.id} did not end within {END_SECONDS:g} s", hint=hint
            )
        time.sleep(0.02)
    return before
