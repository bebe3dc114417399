"""Cutting off the beginning of an audit log: what is left verifies, and no other cut does."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.core.clock import SystemClock
from cleanroom.evidence.audit import log as audit_log
from cleanroom.evidence.audit.chain import Removed, encode_opening, read_opening
from cleanroom.evidence.audit.cut import cut
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import Envelope, Note, Subject
from support.open_folders import open_folder

GENESIS = audit_log.Genesis(plan_sha256="a" * 64, policy_sha256="b" * 64, engine_version="0.1.0")


def write_run(folder: Folder, run_id: str, events: int = 3) -> None:
    log = audit_log.AuditLog(folder, run_id, GENESIS, SystemClock())
    log.open()
    note = Note(subject=Subject("run", "shop"), level="info", text=run_id)
    log.append([Envelope(n, run_id, 1, 1, "", "", "", note) for n in range(1, events + 1)])
    log.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three runs, one after the other: 18 records."""
    place = open_folder(tmp_path)
    for name in ("first", "second", "third"):
        write_run(place, name)
    return place


def said(folder: Folder) -> tuple[bool, int]:
    found = audit_log.verify(folder)
    return found.valid, found.records


def runs_in(folder: Folder) -> list[str]:
    return list(dict.fromkeys(record["run_id"] for record in audit_log.records(folder)))


def test_what_is_left_verifies_and_says_what_is_gone(folder: Folder) -> None:
    """With the digest of the bytes that were there."""
    before = (folder.path / "audit.jsonl").read_bytes()
    assert cut(folder, {"first"}, SystemClock()) == 6
    found = audit_log.verify(folder)

    assert (found.valid, found.records) == (True, 13)
    assert found.removed is not None
    assert found.removed.seq == 6
    gone = before[: found.removed.bytes]
    assert gone.count(b"\n") == 6
    assert found.removed.sha256 == sha256(gone).hexdigest()
    assert runs_in(folder) == ["second", "third", "retention"]


def test_the_next_run_continues_a_log_that_was_cut(folder: Folder) -> None:
    """And the next cut continues the first: the chain goes through both."""
    cut(folder, {"first"}, SystemClock())
    write_run(folder, "fourth")
    assert said(folder) == (True, 19)
    assert cut(folder, {"first", "second", "third"}, SystemClock()) == 12
    found = audit_log.verify(folder)
    assert (found.valid, found.removed.seq if found.removed else 0) == (True, 19)
    assert runs_in(folder) == ["fourth", "retention"]


def test_a_run_that_stays_keeps_everything_after_it(folder: Folder) -> None:
    """A chain has no gaps: of runs that may go, those behind one that stays remain."""
    assert cut(folder, {"second", "third"}, SystemClock()) == 0
    assert cut(folder, {"first", "third"}, SystemClock()) == 6
    assert runs_in(folder) == ["second", "third", "retention"]


def test_cutting_everything_leaves_the_record_of_it(folder: Folder) -> None:
    """Once: the record of a cut is no reason for another."""
    assert cut(folder, {"first", "second", "third"}, SystemClock()) == 18
    assert said(folder) == (True, 1)
    assert cut(folder, {"first", "second", "third"}, SystemClock()) == 0
    assert said(folder) == (True, 1)


def test_a_dry_run_changes_no_byte(folder: Folder) -> None:
    """It counts."""
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    assert cut(folder, {"first"}, SystemClock(), dry_run=True) == 6
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before


def first_lines_gone(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[6:]))


def opening_forged(path: Path) -> None:
    """What the engine would write, without the record that announces it."""
    lines = path.read_bytes().splitlines(keepends=True)
    last = audit_log.read_link(lines[5])
    assert last is not None
    gone = b"".join(lines[:6])
    opening = Removed(bytes=len(gone), seq=6, hash=last.hash, sha256="0" * 64)
    path.write_bytes(encode_opening(opening) + b"".join(lines[6:]))


@pytest.mark.parametrize("by_hand", [first_lines_gone, opening_forged])
def test_a_cut_by_somebody_else_is_a_problem(
    folder: Folder, by_hand: Callable[[Path], None]
) -> None:
    """Lines taken away, or taken away with a first line that says so."""
    by_hand(folder.path / "audit.jsonl")
    assert not audit_log.verify(folder).valid


@pytest.mark.parametrize("lines", [slice(1, None), slice(2, None), slice(0, 1)])
def test_a_further_cut_by_hand_of_a_log_that_was_cut_is_a_problem(
    folder: Folder, lines: slice
) -> None:
    """The first line gone, more than it gone, or everything else."""
    cut(folder, {"first"}, SystemClock())
    path = folder.path / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[lines]))
    assert not audit_log.verify(folder).valid


def test_one_byte_of_the_first_line_changed_is_a_problem(folder: Folder) -> None:
    """Each in turn."""
    cut(folder, {"first"}, SystemClock())
    path = folder.path / "audit.jsonl"
    good = path.read_bytes()
    for at in range(good.index(b"\n")):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert not audit_log.verify(folder).valid, at


def test_a_changed_log_is_not_cut(folder: Folder) -> None:
    """What shows the change would be gone."""
    path = folder.path / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"text":"first"', b'"text":"worst"', 1))
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="nothing is cut"):
        cut(folder, {"first"}, SystemClock())
    assert path.read_bytes() == before


class _Killed(BaseException):
    """The process is gone: nothing is cleaned up either."""


class _DiskUntil(disk.Disk):
    """Carries out so many calls, and none after them."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if not callable(found) or name.startswith("_"):
            return found

        def call(*arguments: Any) -> Any:
            if self.left <= 0:
                raise _Killed
            self.left -= 1
            return found(*arguments)

        return call


def test_killed_at_any_moment_it_leaves_a_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each call that changes the disk: it verifies, goes on, and can be cut."""
    calls, finished = 0, False
    while not finished:
        place = tmp_path / str(calls)
        place.mkdir()
        folder = open_folder(place)
        for name in ("first", "second"):
            write_run(folder, name)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "here", _DiskUntil(calls))
            try:
                cut(folder, {"first"}, SystemClock())
                finished = True
            except _Killed:
                pass
        assert audit_log.verify(folder).valid, calls
        assert "second" in runs_in(folder)
        write_run(folder, "third")
        assert audit_log.verify(folder).valid
        cut(folder, {"first"}, SystemClock())
        assert audit_log.verify(folder).valid
        assert runs_in(folder)[0] == "second"
        assert not [name for name in os.listdir(place) if name.endswith(".tmp")]
        calls += 1
    assert calls > 8


def test_an_opening_is_read_as_it_was_written() -> None:
    """And a record is none."""
    removed = Removed(bytes=10, seq=2, hash="a" * 64, sha256="b" * 64)
    assert read_opening(encode_opening(removed)) == removed
    assert read_opening(b'{"seq":1}\n') is None
    assert read_opening(b'{"removed":{}}\n') is None
