"""Asking a pool how it is, and ending it. Blocks; call it in a worker thread.

{"op": "status"}   is answered by {"status": PoolStatus}
{"op": "end"}      ends the pool: its end of the connection closes, then its folder goes
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from cleanroom.engine.shared_services.discovery import discovery_key, find_server
from cleanroom.model.errors import ServiceFailed
from cleanroom.sandbox import channel

ANSWER_SECONDS = 10.0
# a tenth of a second when measured, seconds in containers of a busy machine;
# wardens that do not end are waited for 5 s
END_SECONDS = 30.0


class PooledService(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str
    ready: bool
    configuration: str  # runs with another one do not use it


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as it is now; without `id` there is none."""

    id: str = ""
    pid: int = 0
    started_unix_ns: int = 0
    idle_seconds: float = 0.0  # it ends when nobody has used it for so long; 0: never
    leases: int = 0  # runs that use it, and those gone whose databases and servers are not yet
    services: tuple[PooledService, ...] = ()


def pool_key(root: str, backend: str) -> str:
    return discovery_key(root, "pool", backend)


def pool_status(runs: str, root: str, backend: str) -> PoolStatus:
    """The project's pool on this backend."""
    if (found := find_server(runs, "pool", pool_key(root, backend))) is None:
        return PoolStatus()
    identity, end = found
    with end:
        end.settimeout(ANSWER_SECONDS)
        try:
            channel.send(end, {"op": "status"})
            while (arrived := channel.receive(end)) is not None:
                if "status" in arrived[0]:
                    return msgspec.convert(arrived[0]["status"], PoolStatus)
        except TimeoutError:
            raise ServiceFailed(
                "CR-SESSION-003", f"{identity}: the pool did not answer within {ANSWER_SECONDS:g} s"
            ) from None
        except OSError:
            pass
    return PoolStatus()  # it was just ending


def stop_pool(runs: str, root: str, backend: str) -> PoolStatus:
    """End the project's pool and wait until all of it is gone; how it was.

    Raises:
        ServiceFailed: it does not end.
    """
    was = pool_status(runs, root, backend)
    if not was.id or (found := find_server(runs, "pool", pool_key(root, backend))) is None:
        return was
    with found[1] as end:
        channel.send(end, {"op": "end"})
    until = time.monotonic() + END_SECONDS
    while Path(runs, was.id).exists():
        if time.monotonic() > until:
            hint = f"kill {was.pid}, then `cleanroom-engine sweep`"
            raise ServiceFailed(
                "CR-SESSION-006", f"{was.id} did not end within {END_SECONDS:g} s", hint=hint
            )
        time.sleep(0.02)
    return was
