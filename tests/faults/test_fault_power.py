"""The power cut, or the disk failing, after each step of every file that the engine replaces or
chains: what a reader finds afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cleanroom.core import disk
from cleanroom.core.clock import SystemClock
from cleanroom.core.files import write_atomic
from cleanroom.engine.records import read_events
from cleanroom.evidence.audit import log as audit
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.render import FILES
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Envelope, Finished, Note, Subject
from cleanroom.project.state import OURS, STATE, PhaseRecord, record
from cleanroom.subscribers import reporter
from support.event_log_builder import shop
from support.faults.power_cut import Failing, Quick, Recorded
from support.open_folders import open_folder

GENESIS = audit.Genesis(plan_sha256="a" * 64, policy_sha256="b" * 64, engine_version="0.1.0")
EVENTS = (
    Note(subject=Subject("run", "shop"), level="info", text="a"),
    Finished(subject=Subject("phase", "test"), result="passed", duration_seconds=1.0),
)


class Progress:
    """What a writer has said that it is done, and after how many steps of the disk."""

    def __init__(self, recorded: Recorded) -> None:
        self.done: list[tuple[int, int]] = []
        self._recorded = recorded

    def say(self, amount: int) -> None:
        self.done.append((len(self._recorded.steps), amount))

    def promised(self, cut: int) -> int:
        return max((amount for steps, amount in self.done if steps <= cut), default=0)


def cut_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path, Callable[[int], None]], None],
    read: Callable[[Path, int], None],
) -> int:
    """Let `write` work in a folder, then `read` each disk that a power cut can leave;
    how many there were.
    """
    root, after = tmp_path / "root", tmp_path / "after"
    recorded = Recorded(root)
    progress = Progress(recorded)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "here", recorded)
        write(root, progress.say)
    seen = 0
    for cut in range(len(recorded.steps) + 1):
        for lay_out in recorded.after(cut):
            after.mkdir()
            lay_out(after)
            read(after, progress.promised(cut))
            shutil.rmtree(after)
            seen += 1
    return seen


def fail_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    for_good: bool,
    write: Callable[[Path], object],
    read: Callable[[Path], None],
) -> None:
    """Let the disk fail at each step of `write`: it says so, and `read` finds nothing torn.

    Ends with a disk that did not fail.
    """
    for at in range(1, 1000):
        root = tmp_path / str(at)
        shutil.copytree(tmp_path / "root", root)
        failing = Failing(at, for_good=for_good)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "here", failing)
            told = ""
            try:
                write(root)
            except CleanroomError as error:
                told = str(error)
        read(root)
        if failing.calls < at:
            assert (at > 3, told) == (True, "")
            return
        assert "No space left on device" in told
    raise AssertionError("it never came to its end")


def append(folder: Path, run_id: str, say: Callable[[int], None] = lambda amount: None) -> None:
    """One run's part of the log; `say` is told how many records are on disk."""
    log = audit.AuditLog(open_folder(folder), run_id, GENESIS, SystemClock())
    envelopes = [
        Envelope(seq, run_id, 1_800_000_000_000_000_000 + seq, seq, "", "", "", event)
        for seq, event in enumerate(EVENTS, 1)
    ]
    log.open()
    say(log.head.seq)
    for envelope in envelopes:
        log.append([envelope])
        say(log.head.seq)
    log.close()
    say(log.head.seq)


def check_audit(folder: Path, promised: int = 0) -> None:
    """It verifies, holds what was promised, and can be continued."""
    found = audit.verify(open_folder(folder)) if (folder / "audit.head").exists() else None
    assert found is None or (found.valid and found.records >= promised), found
    assert found is not None or promised == 0
    append(folder, "next")
    again = audit.verify(open_folder(folder))
    assert again.valid, again
    assert again.records > promised


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is written. Where nothing else is said, nobody waits for the disk."""
    monkeypatch.setattr(disk, "here", Quick())
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_a_replaced_file_is_old_or_new_wherever_the_power_is_cut(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    """Never torn, never empty, and the new one once the call has returned."""
    old, new = b"old" * 100, b"new" * 200
    (root / "file").write_bytes(old)

    def write(folder: Path, say: Callable[[int], None]) -> None:
        write_atomic(open_folder(folder), "file", new)
        say(1)

    def read(folder: Path, promised: int) -> None:
        assert (folder / "file").read_bytes() in ((new,) if promised else (old, new))

    assert cut_everywhere(tmp_path, monkeypatch, write, read) > 20


@pytest.mark.parametrize("begun", [False, True], ids=["first run", "second run"])
def test_the_audit_log_verifies_wherever_the_power_is_cut(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
):
    """Every record whose writing had returned is there, the log verifies as it lies,
    and the next run continues it.
    """
    if begun:
        append(root, "before")
    seen = cut_everywhere(
        tmp_path, monkeypatch, lambda folder, say: append(folder, "run", say), check_audit
    )
    assert seen > 150


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_the_audit_log_verifies_whatever_step_fails(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, for_good: bool
):
    """A disk that is full is told, and leaves a log that the next run continues."""
    append(root, "before")
    fail_everywhere(
        tmp_path, monkeypatch, for_good, lambda folder: append(folder, "run"), check_audit
    )


def ran(phase: str, number: int) -> PhaseRecord:
    return PhaseRecord(phase=phase, started_ms=number, duration_ms=5, success=True, cache_key="k")


def phases(folder: Path) -> tuple[set[str], set[str]]:
    """What ours and ggen's file hold. Both are read as whole JSON or not there."""
    ours = (
        msgspec.json.decode((folder / OURS).read_bytes())
        if (folder / OURS).exists()
        else {"records": []}
    )
    ggens = (
        msgspec.json.decode((folder / STATE).read_bytes())
        if (folder / STATE).exists()
        else {"phase_history": []}
    )
    return {entry["phase"] for entry in ours["records"]}, {
        entry["phase"] for entry in ggens["phase_history"]
    }


def record_two(folder: Path, say: Callable[[int], None] = lambda amount: None) -> None:
    for number, phase in enumerate(("init", "test"), 1):
        record(open_folder(folder), [ran(phase, number)])
        say(number)


def check_state(folder: Path, promised: int = 0) -> None:
    """Ours holds what was promised; ggen's is whole, and holds all of ours after the next
    record.
    """
    ours, _ = phases(folder)
    assert {"init", "test"} - ours <= set(("init", "test")[promised:])
    record(open_folder(folder), [ran("next", 9)])
    assert {*ours, "next"} <= phases(folder)[1]


@pytest.mark.parametrize("begun", [False, True], ids=["no state", "ggen's state"])
def test_both_state_files_are_whole_wherever_the_power_is_cut(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
):
    """No record whose writing had returned is lost, and what ggen had written stays."""
    if begun:
        (root / ".ggen").mkdir()
        theirs = {"phase": "ggen", "started_ms": 1, "duration_ms": 1, "success": True}
        (root / STATE).write_bytes(
            msgspec.json.encode({"phase_history": [theirs], "generated": [], "cache_keys": []})
        )

    def read(folder: Path, promised: int) -> None:
        check_state(folder, promised)
        assert not begun or "ggen" in phases(folder)[1]

    assert cut_everywhere(tmp_path, monkeypatch, record_two, read) > 100


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_both_state_files_are_whole_whatever_step_fails(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, for_good: bool
):
    """A disk that is full is told, and the files read."""
    record(open_folder(root), [ran("first", 1)])
    fail_everywhere(tmp_path, monkeypatch, for_good, record_two, check_state)


def test_reports_are_of_one_run_or_the_other_wherever_the_power_is_cut(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each of the files is the last run's or this one's, whole."""
    old, new = (msgspec.structs.replace(fold(shop()), run_id=run_id) for run_id in ("r1", "r2"))
    reporter.write_reports(old, [open_folder(root)])
    before = {name: (root / name).read_bytes() for name in FILES.values()}
    written: dict[str, bytes] = {}

    def write(folder: Path, say: Callable[[int], None]) -> None:
        reporter.write_reports(new, [open_folder(folder)])
        written.update({name: (folder / name).read_bytes() for name in FILES.values()})
        say(1)

    def read(folder: Path, promised: int) -> None:
        for name in FILES.values():
            assert (folder / name).read_bytes() in (
                (written[name],) if promised else (before[name], written[name])
            )

    assert cut_everywhere(tmp_path, monkeypatch, write, read) > 50


@pytest.mark.parametrize("tail", [b"", b"\0" * 300], ids=["cut", "zeros"])
def test_any_beginning_of_an_event_log_is_read(tmp_path: Path, tail: bytes):
    """Events are appended without waiting for the disk: what is there of the last line,
    or zeros behind it, is left out.
    """
    from cleanroom.model.events import encode

    lines = [encode(envelope) + b"\n" for envelope in shop()][:6]
    whole = b"".join(lines)
    file = tmp_path / "events.jsonl"
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size] + tail)
        assert len(read_events(file)) == whole[:size].count(b"\n")
