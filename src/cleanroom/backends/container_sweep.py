"""Removing containers of dead runs: those that bear our label, were made on this machine since it was started, and whose engine process is gone.

A process number means something in its own pid namespace only, so what another namespace made is left to those who sweep there.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping

from cleanroom.backends.base import Left
from cleanroom.backends.container_engines import SOCKETS, find_socket
from cleanroom.backends.sweep import MINIMUM_AGE_SECONDS, SweepReport
from cleanroom.errors import BackendUnavailable
from cleanroom.sandbox import container_ends, journal
from cleanroom.sandbox.container_ends import Container


def dead(found: Container, *, boot_id: str, namespace: str, now_unix: float) -> bool:
    """Whether the run of a container is certainly over."""
    if now_unix - found.made_unix < MINIMUM_AGE_SECONDS:
        return False
    if found.boot_id != boot_id:
        return bool(found.boot_id)  # made before the machine was started, or by none of ours
    if found.namespace != namespace:
        return False
    try:
        return not journal.alive(found.owner)
    except ValueError:
        return False


def sweep_engine(socket: str) -> SweepReport:
    """Remove what dead runs left in the engine at `socket`. Blocks.

    Raises:
        OSError: it does not answer.
    """
    boot_id, namespace, now = container_ends.boot_id(), container_ends.pid_namespace(), time.time()
    removed: list[Left] = []
    left: list[Left] = []
    living: set[str] = set()
    for found in container_ends.labelled(socket):
        if not dead(found, boot_id=boot_id, namespace=namespace, now_unix=now):
            living.add(found.run_id)
            continue
        gone = container_ends.remove(socket, found.identity)
        (removed if gone else left).append(Left(kind="container", name=found.name, detail="" if gone else f"{socket} did not remove it"))
    return SweepReport(removed=tuple(removed), left=tuple(left), living=frozenset(living))


def sweep_engines(caller: Mapping[str, str]) -> SweepReport:
    """The same for every engine that is there, as root; nobody else can have made any."""
    removed: tuple[Left, ...] = ()
    left: tuple[Left, ...] = ()
    living: frozenset[str] = frozenset()
    for name in SOCKETS if os.geteuid() == 0 else ():
        with contextlib.suppress(BackendUnavailable, OSError):
            found = sweep_engine(find_socket(name, caller))
            removed, left, living = removed + found.removed, left + found.left, living | found.living
    return SweepReport(removed=removed, left=left, living=living)
