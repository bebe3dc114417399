"""The journal: a write-ahead log of resources, by which a later process removes what is left.

One JSON object a line: {"op": "make" | "gone", "kind": ..., "name": ..., ...}.
`make` is written before the resource exists, `gone` after it was seen to be gone; resources that
are made and not gone are left.
The first line, `open`, names the owner by pid and start time, because pids are used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom.core.beneath import Folder

NAME = "journal.jsonl"
# A run of thousands of phases writes a thousandth of it.
BYTES_MAX = 64 << 20


class Resource(NamedTuple):
    """A resource of a run: a folder, a control group, a container, a process (named PID:START)."""

    kind: str
    name: str


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The second field is a program's name of its own choice, with spaces and parentheses; the
    # fields after it begin with the third, the state. The 22nd is the start time
    # (proc_pid_stat(5)).
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def process_name(pid: int) -> str:
    """The name of a process in the journal."""
    return f"{pid}:{start_time(pid)}"


def alive(name: str) -> bool:
    """Whether the recorded process still runs: its pid may be another process's by now."""
    pid, _, started = name.partition(":")
    return started != "0" and start_time(int(pid)) == int(started)


def lock(descriptor: int) -> None:
    """Lock a file for as long as a process has this descriptor or a copy of it.

    flock(2): a process in another pid namespace sees the lock too.
    """
    # On a file system without locks the pid has to do.
    with contextlib.suppress(OSError):
        # The lock is one of the open file: forked copies share it, and the last one closed ends
        # it.
        fcntl.flock(descriptor, fcntl.LOCK_SH)


@contextmanager
def try_lock(folder: Folder, name: str) -> Iterator[bool]:
    """Lock this file until the block ends; the value is False if another process has locked it.

    True where there is no such file.
    """
    try:
        # flock(2) needs no right to write. Without O_NONBLOCK a FIFO in its place would block.
        descriptor = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield True
        return
    try:
        yield _lock_exclusively(descriptor)
    finally:
        os.close(descriptor)


def locked(folder: Folder, name: str) -> bool:
    """Whether a living process has locked this file."""
    with try_lock(folder, name) as free:
        return not free


def _lock_exclusively(descriptor: int) -> bool:
    try:
        # EWOULDBLOCK while anybody has a shared lock.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks.
        pass
    return True


class Journal:
    """Appends each line with one write(2), so that the lines of two writers do not mix."""

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor of a file that is open for appending."""
        self.descriptor = descriptor

    @classmethod
    def at(cls, folder: Folder, name: str = NAME) -> Journal:
        """Open the journal in a folder that is open, and create it where there is none.

        Raises:
            OSError: it cannot be opened, or is no file of ours.
        """
        return cls(folder.open_own(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def open(self, run_id: str) -> None:
        """Begin the journal of a run that this process carries out."""
        lock(self.descriptor)
        self._write(op="open", run_id=run_id, owner=process_name(os.getpid()))

    def make(self, kind: str, name: str) -> Resource:
        """Record that a resource will be made. Call this before making it."""
        self._write(op="make", kind=kind, name=name)
        return Resource(kind, name)

    def gone(self, resource: Resource) -> None:
        """Record that a resource was seen to be gone."""
        self._write(op="gone", kind=resource.kind, name=resource.name)

    def close(self) -> None:
        """Record that every resource is accounted for, and stop writing."""
        self._write(op="close")
        os.close(self.descriptor)

    def _write(self, **record: Any) -> None:
        # O_APPEND: the kernel seeks to the end and writes in one step (open(2)).
        os.write(self.descriptor, json.dumps(record, separators=(",", ":")).encode() + b"\n")


class Record(NamedTuple):
    """A journal as read.

    `left` has the newest resource first: the order of removal.
    `held`: some process on this machine has locked it.
    """

    run_id: str
    owner: str
    closed: bool
    made: int
    left: tuple[Resource, ...]
    held: bool

    @property
    def owner_lives(self) -> bool:
        return self.held or (bool(self.owner) and alive(self.owner))


def read(folder: Folder, name: str = NAME) -> Record:
    """Read the journal in a folder.

    A torn last line is ignored: a crash left it, and its resource was not made yet.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    run_id = owner = ""
    closed, made = False, 0
    left: dict[Resource, None] = {}
    for record in _lines(folder, name):
        match record.get("op"):
            case "open":
                run_id, owner = str(record.get("run_id", "")), str(record.get("owner", ""))
            case "make":
                made += 1
                left[Resource(str(record["kind"]), str(record["name"]))] = None
            case "gone":
                left.pop(Resource(str(record["kind"]), str(record["name"])), None)
            case "close":
                closed = True
    return Record(run_id, owner, closed, made, tuple(reversed(left)), locked(folder, name))


def _lines(folder: Folder, name: str) -> Iterator[dict[str, Any]]:
    with folder.reading(name) as file:
        written = file.read(BYTES_MAX)
    for line in written.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record
