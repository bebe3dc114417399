"""The journal: what was made, written before it is made,
so that whoever comes after a crash knows what to remove.

One JSON object a line: {"op": "make" | "gone", "kind": ..., "name": ..., ...}.
`make` is written before the thing exists, `gone` after it was seen to be gone;
what is made and not gone is what is left.
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
BYTES_MAX = 64 << 20  # a run of thousands of phases writes a thousandth of it


class Resource(NamedTuple):
    """Something that was made: a folder, a cgroup, a process (named PID:START)."""

    kind: str
    name: str


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def process_name(pid: int) -> str:
    """The name under which a process is recorded."""
    return f"{pid}:{start_time(pid)}"


def alive(name: str) -> bool:
    """Does the recorded process still live? A pid that a stranger has now does not count."""
    pid, _, started = name.partition(":")
    return started != "0" and start_time(int(pid)) == int(started)


def hold(descriptor: int) -> None:
    """Mark a file as held for as long as somebody has this descriptor or a copy of it:
    also a reader in another pid namespace can tell.
    """
    with contextlib.suppress(OSError):  # a file system without locks: then the pid is all there is
        fcntl.flock(descriptor, fcntl.LOCK_SH)


@contextmanager
def seized(folder: Folder, name: str) -> Iterator[bool]:
    """Whether no living process holds this file; if so it is held for others' eyes until the block
    ends.

    True where there is no such file.
    """
    try:
        descriptor = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield True
        return
    try:
        yield _free(descriptor)
    finally:
        os.close(descriptor)


def held(folder: Folder, name: str) -> bool:
    """Does a living process hold this file?"""
    with seized(folder, name) as free:
        return not free


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


class Journal:
    """Appends whole lines with one write each, so that two writers cannot mix theirs."""

    def __init__(self, descriptor: int) -> None:
        """Takes over the descriptor of a file that is open for appending."""
        self.descriptor = descriptor

    @classmethod
    def at(cls, folder: Folder, name: str = NAME) -> Journal:
        """The journal in a folder that is held, made where it is not there.

        Raises:
            OSError: it cannot be opened, or something else stands in its place.
        """
        return cls(folder.open_own(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def open(self, run_id: str) -> None:
        """Begin the journal of a run that this process carries out."""
        hold(self.descriptor)
        self._write(op="open", run_id=run_id, owner=process_name(os.getpid()))

    def make(self, kind: str, name: str) -> Resource:
        """Say that a thing will be made. Call it before making it."""
        self._write(op="make", kind=kind, name=name)
        return Resource(kind, name)

    def gone(self, thing: Resource) -> None:
        """Say that a thing was seen to be gone."""
        self._write(op="gone", kind=thing.kind, name=thing.name)

    def close(self) -> None:
        """Say that everything is accounted for, and stop writing."""
        self._write(op="close")
        os.close(self.descriptor)

    def _write(self, **record: Any) -> None:
        os.write(self.descriptor, json.dumps(record, separators=(",", ":")).encode() + b"\n")


class Record(NamedTuple):
    """A journal as read back."""

    run_id: str
    owner: str
    closed: bool
    made: int
    left: tuple[Resource, ...]  # newest first: the order in which they are removed
    held: bool  # by a process that is somewhere on this machine

    @property
    def owner_lives(self) -> bool:
        return self.held or (bool(self.owner) and alive(self.owner))


def read(folder: Folder, name: str = NAME) -> Record:
    """Read the journal in a folder.

    A torn last line is what a crash leaves and is ignored: what it announced was not made yet.
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
    return Record(run_id, owner, closed, made, tuple(reversed(left)), held(folder, name))


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
