"""The audit log: every event of every run of a project in one hash chain,
on disk before the run can end.

Owns writing; the format and its check are in `chain.py`.
The log is lossless: falling behind ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import file_digest
from io import BufferedReader
from typing import Any

import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.clock import Clock
from cleanroom.core.files import misplaced, write_atomic
from cleanroom.core.locks import locked
from cleanroom.evidence.audit.batch import Batch
from cleanroom.evidence.audit.chain import (
    HEAD_NAME,
    LINE_LIMIT_BYTES,
    LOG_NAME,
    Head,
    Problem,
    Verification,
    encode_head,
    lines,
    read_head,
    read_link,
    read_opening,
    verify,
)
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import Envelope

__all__ = ["AuditLog", "Genesis", "Head", "Problem", "Verification", "records", "verify"]

DEPTH_LIMIT = 16  # of a record's body: the deepest real one has four levels
LOCK_NAME = "audit.lock"
# a batch holds the lock for milliseconds: who waits longer has a stuck disk or a stopped process
# before it
LOCK_SECONDS = 30.0


class Genesis(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's first record binds its events to. Digests are SHA-256 in hex."""

    plan_sha256: str
    policy_sha256: str
    engine_version: str


class AuditLog:
    """One run's writer to the log in `folder`.

    Engines that run at once take turns, a batch each; every method blocks on the disk.
    """

    def __init__(self, folder: Folder, run_id: str, genesis: Genesis, clock: Clock) -> None:
        self.folder = folder
        self.run_id = run_id
        self.genesis = genesis
        self.head = Head()
        self._clock = clock
        self._count = 0

    def open(self) -> None:
        """Repair the tail that a killed engine left, then write the run's genesis record.

        Raises:
            ArtifactError: the log does not match its head, or cannot be written;
                nothing was changed.
        """
        with self._locked_batch() as batch:
            batch.add_log_record(
                "genesis", self._clock.wall_ns(), msgspec.structs.asdict(self.genesis)
            )

    def append(self, envelopes: Sequence[Envelope]) -> None:
        """Add these events, and a checkpoint behind each end of a phase.

        They are on disk when this returns.

        Raises:
            ArtifactError: as for `open`.
        """
        with self._locked_batch() as batch:
            batch.add_events(envelopes)

    def close(self) -> Head:
        """Write the run's last checkpoint and the number of its records.

        Returns:
            The head that reports quote.

        Raises:
            ArtifactError: as for `open`.
        """
        with self._locked_batch() as batch:
            now = self._clock.wall_ns()
            batch.add_log_record("checkpoint", now, {"count": batch.count})
            batch.add_log_record("close", now, {"count": batch.count})
        return self.head

    @contextmanager
    def _locked_batch(self) -> Iterator[Batch]:
        """A batch that continues the log, written when the block ends, under the lock.

        Another engine may have continued the log since the last batch.
        """
        place = self.folder.path
        try:
            with (
                locked(self.folder, LOCK_NAME, seconds=LOCK_SECONDS),
                open_log(self.folder) as file,
            ):
                known, lost = resume(self.folder, file, self.head)
                batch = Batch(self.run_id, known, self._count)
                if lost is not None:
                    batch.add_log_record("recovered", self._clock.wall_ns(), lost)
                yield batch
                self.head = batch.write(file.fileno())
                write_atomic(self.folder, HEAD_NAME, encode_head(self.head))
                self._count = batch.count
        except TimeoutError as error:
            hint = (
                "another engine of this project is stopped in the middle of a write; continue or "
                "end it"
            )
            raise ArtifactError(
                "CR-AUDIT-002", f"audit log of {place} was locked for {LOCK_SECONDS:g} s", hint=hint
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            if is_misplaced(error):
                raise misplaced(place / str(error.filename or LOG_NAME), reason) from error
            raise ArtifactError(
                "CR-AUDIT-003",
                f"cannot write the audit log in {place}: {reason}",
                hint="check space and owner",
            ) from error


def records(folder: Folder, run_id: str | None = None) -> Iterator[dict[str, Any]]:
    """The log's records, oldest first, of one run or all. Lines that are no records are left out.

    Raises:
        OSError: the log cannot be read.
    """
    with folder.reading(LOG_NAME) as file:
        for line, _ in lines(file):
            record = _record(line) if read_link(line) is not None else None
            if record is not None and run_id in (None, record["run_id"]):
                yield record


class _RecordShape(msgspec.Struct):
    """The fields that a record of any version has."""

    seq: int
    run_id: str
    time: str
    kind: str
    subject: dict[str, str]
    body: dict[str, Any]


_record_decoder = msgspec.json.Decoder(_RecordShape)


def _record(line: bytes) -> dict[str, Any] | None:
    """A sealed line as an object.

    None where it is no record: anybody can seal a line.
    """
    try:
        body = _record_decoder.decode(line).body
        return None if _is_deep(body, DEPTH_LIMIT) else msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_deep(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested deeper than so many levels."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return any(levels == 0 or _is_deep(each, levels - 1) for each in value)


@contextmanager
def open_log(folder: Folder) -> Iterator[BufferedReader]:
    """The log, open for appending, never through a link. Its head is there before it is."""
    if not _exists(folder, HEAD_NAME) and not _exists(folder, LOG_NAME):
        write_atomic(folder, HEAD_NAME, encode_head(Head()))
    with os.fdopen(disk.here.append(folder, LOG_NAME, 0o644), "rb") as file:
        yield file


def _exists(folder: Folder, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def resume(
    folder: Folder, file: BufferedReader, known: Head
) -> tuple[Head, dict[str, str | int] | None]:
    """The head to continue from, and the body of a `recovered` record where a tail was cut off.

    Only the record that the head names and what lies beyond are read,
    so a start takes no longer when the log is large; `verify` reads all.

    Raises:
        ArtifactError: the log is not what its head says.
    """
    head: Head | None = None
    with suppress(FileNotFoundError):
        head = read_head(folder)
    base = base_of(file)
    size = os.fstat(file.fileno()).st_size + base
    if head is None:
        raise mismatch(folder, f"{HEAD_NAME} is missing or was changed")
    if size < head.bytes:
        raise mismatch(folder, f"{LOG_NAME} has {size} bytes where its head says {head.bytes}")
    if head == known and size == head.bytes:
        return head, None
    if not _ends_with(file, head, base):
        raise mismatch(
            folder,
            f"no record {head.seq} with the head's hash ends at byte {head.bytes} of {LOG_NAME}",
        )
    advanced = _advance(file, head, base)
    if advanced.bytes == size:
        return advanced, None
    file.seek(advanced.bytes - base)
    lost = file_digest(file, "sha256").hexdigest()
    disk.here.truncate(file.fileno(), advanced.bytes - base)
    return advanced, {
        "bytes_lost": size - advanced.bytes,
        "sha256": lost,
        "after_byte": advanced.bytes,
    }


def base_of(file: BufferedReader) -> int:
    """What is added to a place in the file to have the place in the whole log.

    A log whose beginning was cut off begins with a line that says how much that was.
    """
    file.seek(0)
    line = file.readline(LINE_LIMIT_BYTES)
    removed = read_opening(line)
    return 0 if removed is None else removed.bytes - len(line)


def mismatch(folder: Folder, what: str) -> ArtifactError:
    hint = (
        "see what was changed with `cleanroom-engine audit verify`; to start a new log, move the "
        "folder away"
    )
    return ArtifactError("CR-AUDIT-001", f"audit log in {folder.path}: {what}", hint=hint)


def _ends_with(file: BufferedReader, head: Head, base: int) -> bool:
    """Whether the record that ends at the head's bytes is the one it names.

    Reads backwards, so that most records take one read.
    """
    if head == Head():
        return True
    length, end = 4096, head.bytes - base
    if end < 0:
        return False
    while True:
        start = max(0, end - length)
        file.seek(start)
        data = file.read(end - start)
        at = data.rfind(b"\n", 0, len(data) - 1)
        if at >= 0 or start == 0:
            link = read_link(data[at + 1 :])
            return link is not None and (link.seq, link.hash) == (head.seq, head.hash)
        if length >= LINE_LIMIT_BYTES:
            return False
        length *= 4


def _advance(file: BufferedReader, head: Head, base: int) -> Head:
    """The head after the records that are chained beyond it.

    An engine wrote those and was killed before it wrote the head.
    """
    file.seek(head.bytes - base)
    for line, length in lines(file):
        link = read_link(line)
        if link is None or link.seq != head.seq + 1 or link.prev != head.hash:
            break
        head = Head(head.bytes + length, link.seq, link.hash)
    return head
