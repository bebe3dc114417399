"""Ancestors of this process up to the nearest ggen, and waiting for the end of one of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import anyio

from cleanroom.sandbox.journal import alive, process_name

_GGEN = re.compile(r"ggen(-v?\d[\d.]*)?")  # also as its releases are called
POLL_SECONDS = 0.2  # how often to look where the kernel cannot tell
ANCESTORS_MAX = 64  # far more than any terminal, shell and build tool make


def ancestors_to_ggen(pid: int | None = None) -> tuple[str, ...]:
    """The ancestors of a process (this one) up to the nearest ggen, which is the last,
    as `journal.process_name` writes them; empty where none is ggen.

    A shell may stand between, or a wrapper. Blocks for some reads of /proc.
    """
    found: list[str] = []
    at = _parent(os.getpid() if pid is None else pid)
    while at and len(found) < ANCESTORS_MAX:
        found.append(process_name(at))
        if any(_GGEN.fullmatch(name) for name in _names(at)):
            return tuple(found)
        at = _parent(at)
    return ()


def started_by_ggen() -> bool:
    """True if an ancestor of this process is a ggen."""
    return bool(ancestors_to_ggen())


def starting_processes() -> tuple[str, ...]:
    """The processes without which nobody waits for this one:
    its parent, or all up to ggen, which may leave a shell behind when it ends.
    """
    parent = os.getppid()  # 0 for the first process of a container, whose parent cannot be seen
    return ancestors_to_ggen() or ((process_name(parent),) if parent else ())


async def wait_ended(process: str) -> None:
    """Wait for the end of a process, given as `journal.process_name` writes it."""
    try:
        descriptor = os.pidfd_open(int(process.partition(":")[0]))
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        while alive(process):  # noqa: ASYNC110 -- nothing tells
            await anyio.sleep(POLL_SECONDS)
        return
    try:
        if alive(process):  # else its number is somebody else's by now
            await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _parent(pid: int) -> int:
    """0 where there is none, or where it cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _names(pid: int) -> list[str]:
    """What a process calls itself, and what its program's file is called where this user may
    know.
    """
    found = []
    try:
        found.append(Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n"))
        found.append(Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)"))
    except OSError:
        pass
    return found
