"""Cutting off the beginning of an audit log, so that the rest is still a chain that can be checked.

Under the log's lock, in this order: a `cut` record is added to the chain, which says what will be
gone and its digest; then the file is replaced, in one step, by a line that says the same and what
is left.
Killed in between, the log is whole and has announced a cut that was not made.
A cut that no record announces is a problem for `verify`, and so is one of other bytes.
A log that does not match its own chain is not cut: that would destroy what shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from hashlib import sha256
from io import BufferedReader
from typing import NamedTuple

import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.core.clock import Clock
from cleanroom.core.files import replace_file, write_atomic
from cleanroom.core.locks import locked
from cleanroom.evidence.audit.batch import Batch
from cleanroom.evidence.audit.chain import (
    CUT,
    HEAD_NAME,
    LOG_NAME,
    NO_HASH,
    Head,
    Removed,
    encode_head,
    encode_opening,
    lines,
    read_link,
    read_opening,
)
from cleanroom.evidence.audit.log import (
    LOCK_NAME,
    LOCK_SECONDS,
    base_of,
    mismatch,
    open_log,
    resume,
)

WRITER = "retention"  # in place of a run's id
_PIECE_BYTES = 1 << 20
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


class _RunOfRecord(msgspec.Struct):
    run_id: str


class _Prefix(NamedTuple):
    """The records at the beginning that can go."""

    removed: Removed
    length: int  # bytes of the file
    records: int  # of runs


_run_decoder = msgspec.json.Decoder(_RunOfRecord)


def cut(folder: Folder, gone: Container[str], clock: Clock, *, dry_run: bool = False) -> int:
    """Cut off the records at the beginning that are of the runs in `gone`.

    The first record of another run, and all after it, stay.

    Returns:
        The number of records; 0 where there is nothing to cut.

    Raises:
        TimeoutError: another engine held the log for too long.
        ArtifactError: the log does not match its head or its chain, or cannot be replaced;
            it is as it was.
        OSError: it cannot be read.
    """
    with (
        locked(folder, LOCK_NAME, seconds=LOCK_SECONDS),
        open_log(folder) as file,
    ):
        if dry_run:
            prefix = _removable(folder, file, gone)
            return prefix.records if prefix else 0
        _remove_temporaries(folder)
        known, lost = resume(folder, file, Head())
        prefix = _removable(folder, file, gone)
        if prefix is None:
            return 0
        batch = Batch(WRITER, known, 0)
        if lost is not None:
            batch.add_log_record("recovered", clock.wall_ns(), lost)
        batch.add_log_record(CUT, clock.wall_ns(), msgspec.structs.asdict(prefix.removed))
        head = batch.write(file.fileno())
        write_atomic(folder, HEAD_NAME, encode_head(head))
        replace_file(folder, LOG_NAME, _rest(file, prefix))
        return prefix.records


def _rest(file: BufferedReader, prefix: _Prefix) -> Iterator[bytes]:
    yield encode_opening(prefix.removed)
    # The reader's buffer knows nothing of the record that was written behind its back.
    at = prefix.length
    while piece := os.pread(file.fileno(), _PIECE_BYTES, at):
        yield piece
        at += len(piece)


def _removable(folder: Folder, file: BufferedReader, gone: Container[str]) -> _Prefix | None:
    """The longest beginning whose records are all of such runs; the log's last record stays.

    Raises:
        ArtifactError: a record of it does not continue the one before it.
    """
    base = base_of(file)
    digest = sha256()
    seq, last, length, records = 0, NO_HASH, 0, 0
    file.seek(0)
    for number, (line, size) in enumerate(lines(file)):
        opening = read_opening(line) if number == 0 else None
        if opening is not None:
            seq, last = opening.seq, opening.hash
        else:
            link = read_link(line)
            if link is None or (link.seq, link.prev) != (seq + 1, last):
                if not line.endswith(b"\n"):
                    break  # torn: the next record's writer cuts it off
                text = f"record {seq + 1} of {LOG_NAME} is not as it was written, so nothing is cut"
                raise mismatch(folder, text)
            run_id = _run_of(line)
            if run_id not in gone and run_id != WRITER:
                break
            seq, last = link.seq, link.hash
            # an earlier cut's record is no reason for another cut
            records += run_id != WRITER
        digest.update(line)
        length += size
    if not records:
        return None
    removed = Removed(bytes=base + length, seq=seq, hash=last, sha256=digest.hexdigest())
    return _Prefix(removed, length, records)


def _run_of(line: bytes) -> str:
    try:
        return _run_decoder.decode(line).run_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _remove_temporaries(folder: Folder) -> None:
    """What a killed engine was about to put in place of log or head: nobody else has the lock."""
    for name in folder.names():
        if _TEMPORARY.fullmatch(name):
            disk.here.remove(folder, name)
