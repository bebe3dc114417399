"""The audit log: every event of every run of a project in one hash chain,
on disk before the run can end.

Owns writing; the format and its check are in `chain.py`.
The log is lossless: falling behind ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import file_digest, sha256
from io import BufferedReader
from time import gmtime, strftime
from typing import Any

import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.clock import Clock
from cleanroom.core.files import misplaced, write_all, write_atomic
from cleanroom.core.locks import locked
from cleanroom.evidence.audit.chain import (
    HEAD_NAME,
    LINE_LIMIT_BYTES,
    LOG_NAME,
    Head,
    Problem,
    Verification,
    encode_head,
    lines,
    opened,
    read_head,
    seal,
    verify,
)
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import Envelope, Event, Finished, Output, Spans, Subject

__all__ = ["AuditLog", "Genesis", "Head", "Problem", "Verification", "records", "verify"]

DEPTH_LIMIT = 16  # of a record's body: the deepest real one has four levels
LOCK_NAME = "audit.lock"
# a batch holds the lock for milliseconds: who waits longer has a stuck disk or a stopped process
# before it
LOCK_SECONDS = 30.0


_encoder = msgspec.json.Encoder()


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
        with self._turn() as batch:
            batch.own("genesis", self._clock.wall_ns(), msgspec.structs.asdict(self.genesis))

    def append(self, envelopes: Sequence[Envelope]) -> None:
        """Add these events, and a checkpoint behind each end of a phase.

        They are on disk when this returns.

        Raises:
            ArtifactError: as for `open`.
        """
        with self._turn() as batch:
            batch.events(envelopes)

    def close(self) -> Head:
        """Write the run's last checkpoint and how many records it has,
        and return what reports should quote.
        """
        with self._turn() as batch:
            now = self._clock.wall_ns()
            batch.own("checkpoint", now, {"count": batch.count})
            batch.own("close", now, {"count": batch.count})
        return self.head

    @contextmanager
    def _turn(self) -> Iterator[_Batch]:
        """Under the lock: continue where the log ends, which another engine may have moved,
        and make what was added durable.
        """
        place = self.folder.path
        try:
            with (
                locked(self.folder, LOCK_NAME, seconds=LOCK_SECONDS),
                _opened_log(self.folder) as file,
            ):
                known, lost = _resumed(self.folder, file, self.head)
                batch = _Batch(self.run_id, known, self._count)
                if lost is not None:
                    batch.own("recovered", self._clock.wall_ns(), lost)
                yield batch
                self.head = batch.written(file.fileno())
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
    """The log's records, oldest first, of one run or all; what is not a record is left to `verify`.

    Raises:
        OSError: the log cannot be read.
    """
    with folder.reading(LOG_NAME) as file:
        for line, _ in lines(file):
            record = _record(line) if opened(line) is not None else None
            if record is not None and run_id in (None, record["run_id"]):
                yield record


class _Shape(msgspec.Struct):
    """What every record has, whatever engine wrote it."""

    seq: int
    run_id: str
    time: str
    kind: str
    subject: dict[str, str]
    body: dict[str, Any]


_shapes = msgspec.json.Decoder(_Shape)


def _record(line: bytes) -> dict[str, Any] | None:
    """A sealed line as an object; None where it is no record,
    which whoever can seal can write too.
    """
    try:
        body = _shapes.decode(line).body
        return None if _deep(body, DEPTH_LIMIT) else msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return any(levels == 0 or _deep(each, levels - 1) for each in value)


class _Batch:
    """Records being chained to what the log holds.

    Made of text, which Python formats in half the time that bytes take; one encoding at the end.
    """

    def __init__(self, run_id: str, head: Head, count: int) -> None:
        self.count = count  # records of this run
        self._run = _json(run_id)
        self._bytes, self._seq, self._hash = head.bytes, head.seq, head.hash
        self._pieces: list[str] = []  # of lines
        self._openings: dict[type[Event], dict[Subject, tuple[str, int]]] = {}
        self._second, self._time = -1, ""  # the second of the last record, and how it is written

    def events(self, envelopes: Sequence[Envelope]) -> None:
        """A record of each."""
        bodies = _bodies(envelopes)
        for envelope in envelopes:
            event = envelope.event
            kind = type(event)
            opening, cut = self._opening(kind, event.subject)
            # An event's encoding begins with kind and subject,
            # and no kind is without a further field: the rest is cut off, not encoded anew.
            digested = _DIGESTED.get(kind)
            body = digested(event) if digested else "{" + next(bodies)[cut:]
            self._add(envelope.time_unix_ns, f'{opening},"event":{envelope.seq},"body":{body}')
            if kind is Finished and event.subject.kind == "phase":
                self.own(
                    "checkpoint",
                    envelope.time_unix_ns,
                    {"phase": event.subject.name, "count": self.count},
                )

    def own(self, kind: str, time_unix_ns: int, body: dict[str, Any]) -> None:
        """A record of the log itself."""
        self._add(
            time_unix_ns,
            f'"kind":"{kind}","subject":{_json(Subject("run", ""))},"body":{_json(body)}',
        )

    def written(self, descriptor: int) -> Head:
        """Write everything, wait for the disk, and return the head that says so."""
        data = "".join(self._pieces).encode()
        write_all(descriptor, data)
        disk.here.sync(descriptor)
        return Head(self._bytes + len(data), self._seq, self._hash)

    def _add(self, time_unix_ns: int, said: str) -> None:
        self._seq += 1
        self.count += 1
        second, nanosecond = divmod(time_unix_ns, 1_000_000_000)
        if second != self._second:
            self._second, self._time = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        time = f"{self._time}.{nanosecond:09d}Z"
        content = (
            f'{{"seq":{self._seq},"run_id":{self._run},"time":"{time}",{said},"prev":"{self._hash}"'
        )
        end, self._hash = seal(content)
        self._pieces += (content, end)

    def _opening(self, kind: type[Event], subject: Subject) -> tuple[str, int]:
        """What a record of this kind about this subject says of both,
        and how long an event's encoding is until then.
        """
        known = self._openings.setdefault(kind, {})
        found = known.get(subject)
        if found is None:
            tag, encoded = kind.__struct_config__.tag, _json(subject)
            found = known[subject] = (
                f'"kind":"{tag}","subject":{encoded}',
                len(f'{{"kind":"{tag}","subject":{encoded},'),
            )
        return found


def _bodies(envelopes: Sequence[Envelope]) -> Iterator[str]:
    """The encoding of every event whose body is all of it."""
    return iter(
        _encoder.encode_lines(
            [envelope.event for envelope in envelopes if type(envelope.event) not in _DIGESTED]
        )
        .decode()
        .split("\n")
    )


def _output_body(event: Output) -> str:
    data = event.text.encode()
    cut = "true" if event.cut else "false"
    counted = f'"offset":{event.offset},"cut":{cut},"bytes":{len(data)}'
    return f'{{"stream":"{event.stream}",{counted},"sha256":"{sha256(data).hexdigest()}"}}'


def _spans_body(event: Spans) -> str:
    data = _encoder.encode(event.resource_spans)
    return f'{{"count":{event.count},"bytes":{len(data)},"sha256":"{sha256(data).hexdigest()}"}}'


# Kinds that a phase's own programs fill: what they say is in the event log,
# here is what it must be.
_DIGESTED: dict[type[Event], Callable[[Any], str]] = {Output: _output_body, Spans: _spans_body}


def _json(value: Any) -> str:
    return _encoder.encode(value).decode()


@contextmanager
def _opened_log(folder: Folder) -> Iterator[BufferedReader]:
    """The log, open for appending, never through a link. Its head is there before it is."""
    if not _there(folder, HEAD_NAME) and not _there(folder, LOG_NAME):
        write_atomic(folder, HEAD_NAME, encode_head(Head()))
    with os.fdopen(disk.here.append(folder, LOG_NAME, 0o644), "rb") as file:
        yield file


def _there(folder: Folder, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _resumed(
    folder: Folder, file: BufferedReader, known: Head
) -> tuple[Head, dict[str, Any] | None]:
    """Where the log ends, and what had to be cut off behind it.

    Only the record that the head names and what lies beyond are read,
    so a start takes no longer when the log is large; `verify` reads all.

    Raises:
        ArtifactError: the log is not what its head says.
    """
    head: Head | None = None
    with suppress(FileNotFoundError):
        head = read_head(folder)
    size = os.fstat(file.fileno()).st_size
    if head is None:
        raise _mismatch(folder, f"{HEAD_NAME} is missing or was changed")
    if size < head.bytes:
        raise _mismatch(folder, f"{LOG_NAME} has {size} bytes where its head says {head.bytes}")
    if head == known and size == head.bytes:
        return head, None
    if not _ends_with(file, head):
        raise _mismatch(
            folder,
            f"no record {head.seq} with the head's hash ends at byte {head.bytes} of {LOG_NAME}",
        )
    adopted = _adopted(file, head)
    if adopted.bytes == size:
        return adopted, None
    file.seek(adopted.bytes)
    lost = file_digest(file, "sha256").hexdigest()
    disk.here.truncate(file.fileno(), adopted.bytes)
    return adopted, {
        "bytes_lost": size - adopted.bytes,
        "sha256": lost,
        "after_byte": adopted.bytes,
    }


def _mismatch(folder: Folder, what: str) -> ArtifactError:
    hint = (
        "see what was changed with `cleanroom-engine audit verify`; to start a new log, move the "
        "folder away"
    )
    return ArtifactError("CR-AUDIT-001", f"audit log in {folder.path}: {what}", hint=hint)


def _ends_with(file: BufferedReader, head: Head) -> bool:
    """Whether the record that ends at the head's bytes is the one it names.

    Reads backwards, so that most records take one read.
    """
    if head == Head():
        return True
    length = 4096
    while True:
        start = max(0, head.bytes - length)
        file.seek(start)
        data = file.read(head.bytes - start)
        at = data.rfind(b"\n", 0, len(data) - 1)
        if at >= 0 or start == 0:
            link = opened(data[at + 1 :])
            return link is not None and (link.seq, link.hash) == (head.seq, head.hash)
        if length >= LINE_LIMIT_BYTES:
            return False
        length *= 4


def _adopted(file: BufferedReader, head: Head) -> Head:
    """The head moved over the records chained beyond it: their engine was killed before it could
    say so.
    """
    file.seek(head.bytes)
    for line, length in lines(file):
        link = opened(line)
        if link is None or link.seq != head.seq + 1 or link.prev != head.hash:
            break
        head = Head(head.bytes + length, link.seq, link.hash)
    return head
