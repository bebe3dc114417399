"""The audit log's format: how a record is sealed, what the head says, and how both are checked.

`docs/audit.md` says it for people.

A record is one line: `CONTENT,"hash":"H"}` and a line end, where H is the SHA-256, in hex,
of the exact bytes of CONTENT.
CONTENT starts with the record's `seq` and ends with `"prev":"P"`,
the hash of the record before it (64 zeros before the first),
so each hash covers the whole log up to it.
The head is one line too: its `digest` is the SHA-256 of the same object without it.
A log whose beginning was cut off begins with a line that says what was, with a digest of its own;
a `cut` record of the chain says the same.
Sizes and places in heads and records count what was cut off: a cut changes none of them.
Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, BinaryIO

import msgspec

from cleanroom.core.beneath import Folder

LOG_NAME, HEAD_NAME = "audit.jsonl", "audit.head"
NO_HASH = "0" * 64
SEAL_BYTES = len(',"hash":""}\n') + 64
# a longer line is none of ours; bounds what reading a hostile file takes
LINE_LIMIT_BYTES = 16 << 20
_HEAD_LIMIT_BYTES = 4096  # a real one has about 200
PROBLEMS_LIMIT = 1000  # enough to see what happened to a log; a log of garbage has one per line

_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Head(msgspec.Struct, frozen=True):
    """The least that the log must have: so many bytes, ending with this record."""

    bytes: _Natural = 0
    seq: _Natural = 0
    hash: str = NO_HASH


class Removed(msgspec.Struct, frozen=True):
    """The beginning of a log that was cut off, as the first line of the rest says it."""

    bytes: _Natural  # of the whole log, before the first record that is left
    seq: _Natural  # the last record that was cut off
    hash: str  # of that record
    sha256: str  # of the bytes that the last cut took away, in hex


class _Opening(msgspec.Struct, frozen=True):
    removed: Removed


class _CutRecord(msgspec.Struct, frozen=True):
    """A record of the chain that announces a cut."""

    kind: str
    body: Removed


class ChainLink(msgspec.Struct, frozen=True):
    """A record's place in the chain."""

    seq: _Natural
    prev: str
    hash: str


class Problem(msgspec.Struct, frozen=True):
    """One fault, at a line of the log (from 1; 0: the head).

    `seq` is the record that is, or should be, there.
    """

    seq: int
    line: int
    problem: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The result of checking every byte of a log."""

    valid: bool
    records: int
    problems: tuple[Problem, ...] = ()
    # the log ends in a part of a record beyond the head: the engine was killed while it wrote
    torn: bool = False
    head: Head | None = None
    # what was cut off before the first record, by the engine itself
    removed: Removed | None = None


_head_decoder = msgspec.json.Decoder(Head)
_link_decoder = msgspec.json.Decoder(ChainLink)
_opening_decoder = msgspec.json.Decoder(_Opening)
_cut_decoder = msgspec.json.Decoder(_CutRecord)
_OPENING = b'{"removed":'  # no record begins so
CUT = "cut"  # the kind of record that announces a cut
_MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)


def seal(content: str) -> tuple[str, str]:
    """The end of a record's line after its content, and the record's hash in hex."""
    digest = sha256(content.encode()).hexdigest()
    return f',"hash":"{digest}"}}\n', digest


def read_link(line: bytes) -> ChainLink | None:
    """The record's place in the chain; None where a byte differs from the sealed ones."""
    content = line[:-SEAL_BYTES]
    if b'%b,"hash":"%b"}\n' % (content, sha256(content).hexdigest().encode()) != line:
        return None
    try:
        return _link_decoder.decode(line)
    except _MALFORMED:
        return None


def encode_head(head: Head) -> bytes:
    """The head file's exact bytes."""
    body = msgspec.json.encode(head)
    return b'%b,"digest":"%b"}\n' % (body[:-1], sha256(body).hexdigest().encode())


def decode_head(data: bytes) -> Head | None:
    """The inverse of `encode_head`; None where one byte differs."""
    try:
        head = _head_decoder.decode(data)
    except _MALFORMED:
        return None
    return head if encode_head(head) == data else None


def encode_opening(removed: Removed) -> bytes:
    """The exact bytes of the first line of a log whose beginning was cut off."""
    body = msgspec.json.encode(_Opening(removed))
    return b'%b,"digest":"%b"}\n' % (body[:-1], sha256(body).hexdigest().encode())


def read_opening(line: bytes) -> Removed | None:
    """The inverse of `encode_opening`; None where one byte differs, and of every other line."""
    if not line.startswith(_OPENING):
        return None
    try:
        removed = _opening_decoder.decode(line).removed
    except _MALFORMED:
        return None
    return removed if encode_opening(removed) == line else None


def read_cut(line: bytes) -> Removed | None:
    """The cut that a sealed record announces; None of every other record."""
    try:
        record = _cut_decoder.decode(line)
    except _MALFORMED:
        return None
    return record.body if record.kind == CUT else None


def read_head(folder: Folder) -> Head | None:
    """The head of the log in `folder`; None where one byte differs from what was written.

    Raises:
        OSError: it cannot be read.
    """
    with folder.reading(HEAD_NAME) as stream:
        return decode_head(stream.read(_HEAD_LIMIT_BYTES))


def lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line with its length.

    One that is too long to be ours comes as a bare line end (or nothing, at the end of the file).
    """
    while line := file.readline(LINE_LIMIT_BYTES):
        length = len(line)
        if length == LINE_LIMIT_BYTES and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(LINE_LIMIT_BYTES)
                length += len(line)
            line = line[-1:]
        yield line, length


def verify(folder: Folder) -> Verification:
    """Check every byte of the log in `folder`, line by line, against its chain and its head.

    Repairs nothing.

    What is there and cannot be read is a problem like any other:
    whoever put it there took the log away.
    """
    head, wrong = _read_head(folder)
    walk = _Walk(head)
    if wrong:
        walk.report(0, 0, f"{HEAD_NAME} {wrong}")
    try:
        with folder.reading(LOG_NAME) as file:
            for line, length in lines(file):
                walk.add_line(line, length)
    except FileNotFoundError:
        pass  # as empty: the head tells whether it should be
    except OSError as error:
        walk.report(0, 0, f"{LOG_NAME} cannot be read: {error.strerror or error}")
    walk.finish()
    return Verification(
        valid=not walk.problems,
        records=walk.records,
        problems=tuple(walk.problems),
        torn=walk.torn,
        head=head,
        removed=walk.removed,
    )


def _read_head(folder: Folder) -> tuple[Head | None, str]:
    """The head, and what is wrong with it."""
    try:
        head = read_head(folder)
    except FileNotFoundError:
        return None, "is missing"
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"
    return head, "" if head is not None else "was changed: its bytes do not match its digest"


class _Walk:
    """Checks a log line by line, in memory that does not grow with it."""

    def __init__(self, head: Head | None) -> None:
        self.head = head
        self.problems: list[Problem] = []
        self.records = 0
        self.torn = False
        # what the first line says was cut off, and whether a record of the chain says so too
        self.removed: Removed | None = None
        self._announced = False
        self._line = 0
        self._offset = 0
        self._last = ChainLink(0, "", NO_HASH)
        self._damaged = 0  # lines since the last good record
        self._reached_head = head is not None and head == Head()

    def report(self, seq: int, line: int, problem: str) -> None:
        if len(self.problems) < PROBLEMS_LIMIT:
            self.problems.append(Problem(seq, line, problem))

    def add_line(self, line: bytes, length: int) -> None:
        """Check one line; `length` is that on disk, as `lines` gives it."""
        self._line += 1
        if self._line == 1 and (removed := read_opening(line)) is not None:
            self.removed, self._offset = removed, removed.bytes
            self._last = ChainLink(removed.seq, "", removed.hash)
            return
        began, self._offset = self._offset, self._offset + length
        here = self._last.seq + self._damaged + 1
        if not line.endswith(b"\n") and self.head is not None and began >= self.head.bytes:
            self.torn = True
            return
        link = read_link(line)
        if link is None:
            self._damaged += 1
            self.report(here, self._line, "not as it was written: its bytes do not match its hash")
            return
        self.records += 1
        if self.removed is not None and not self._announced:
            self._announced = read_cut(line) == self.removed
        self._compare(link)
        if self.head is not None and self._offset == self.head.bytes:
            self._reached_head = (self._last.seq, self._last.hash) == (
                self.head.seq,
                self.head.hash,
            )

    def _compare(self, link: ChainLink) -> None:
        """Compare a sound record with what should stand here;
        a damaged line before it may have been any one record, or none.
        """
        expected = self._last.seq + 1
        if link.seq < expected:
            self.report(
                link.seq,
                self._line,
                f"out of place: expected record {expected} here; moved, doubled or inserted",
            )
            return
        if link.seq == expected and link.prev != self._last.hash:
            self.report(
                link.seq,
                self._line,
                "does not continue the record before it: one of the two was replaced",
            )
        elif link.seq > expected + self._damaged:
            first = expected + self._damaged
            missing = (
                f"record {first} is"
                if first == link.seq - 1
                else f"records {first} to {link.seq - 1} are"
            )
            self.report(link.seq, self._line, f"{missing} missing before it")
        self._last, self._damaged = link, 0

    def finish(self) -> None:
        """Check that the log leads to its head, and that a cut was the engine's own."""
        if self.removed is not None and not self._announced:
            text = f"says that records up to {self.removed.seq} were cut off, and no record does"
            self.report(self.removed.seq, 1, text)
        if self.head is None or (self.problems and self._last.hash == self.head.hash):
            # nothing to compare with, or whatever is wrong was named and the head's record is there
            return
        if self._offset < self.head.bytes:
            gone = self.head.bytes - self._offset
            self.report(
                self._last.seq + 1,
                self._line + 1,
                f"the log was cut: {gone} bytes up to record {self.head.seq} are missing",
            )
        elif not self._reached_head:
            self.report(
                self.head.seq,
                0,
                (
                    f"the log does not lead to its head: no record {self.head.seq} ends at byte "
                    f"{self.head.bytes}"
                ),
            )
