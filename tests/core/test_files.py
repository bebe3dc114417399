"""Files: replaced whole, appended in lines, bounded."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core import files
from cleanroom.core.beneath import Folder
from cleanroom.core.files import LineWriter, LogFiles, relative, safe_name, write_atomic
from cleanroom.model.errors import ArtifactError, CleanroomError
from support.open_folders import open_folder


def test_a_file_is_replaced_whole(tmp_path):
    """The new bytes and mode are there, and nothing else is in its folder."""
    path = tmp_path / "b.json"
    write_atomic(open_folder(tmp_path), "b.json", b"old" * 1000)
    write_atomic(open_folder(tmp_path), "b.json", b"new", mode=0o600)

    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["b.json"]


@pytest.mark.parametrize("call", ["fdatasync", "write", "open"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    """Whatever the system refuses, the old bytes stay, no temporary file is left,
    and the error names the file.
    """
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    folder = open_folder(tmp_path)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, refuse)
        with pytest.raises(ArtifactError, match=r"state\.json: No space left") as failed:
            write_atomic(folder, "state.json", b"new")

    assert failed.value.code == "CR-FILE-001"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    """What a symbolic link points to is never written."""
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(open_folder(tmp_path), "link", b"ours")

    assert (tmp_path / "target").read_bytes() == b"theirs"
    assert (tmp_path / "link").read_bytes() == b"ours"


def test_a_folder_in_the_way_is_an_error_of_ours(tmp_path):
    """A folder in the file's place is refused with our error, which names it."""
    (tmp_path / "file").mkdir()
    with pytest.raises(CleanroomError, match="file"):
        write_atomic(open_folder(tmp_path), "file", b"")


async def test_lines_are_appended_in_order(tmp_path):
    """Each batch follows the one before and what the file held; an empty one adds nothing."""
    path = tmp_path / "events.jsonl"
    for sync in (False, True):
        async with LineWriter(open_folder(tmp_path), "events.jsonl") as writer:
            await writer.write(b"1\n2\n", sync=sync)
            await writer.write(b"")
            await writer.write(b"3\n")

    assert path.read_bytes() == b"1\n2\n3\n" * 2


async def test_a_full_disk_is_an_artifact_error(tmp_path, monkeypatch):
    """Appending to a device without room names the file and does not pass."""
    monkeypatch.setattr(Folder, "open_own", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(ArtifactError, match="events") as caught:
        async with LineWriter(open_folder(tmp_path), "events") as writer:
            await writer.write(b"x\n")
    assert caught.value.code == "CR-FILE-002"


def test_a_full_disk_under_a_log_is_an_artifact_error(tmp_path, monkeypatch):
    """A phase's output that cannot be kept names its log."""
    monkeypatch.setattr(Folder, "open_own", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with (
        LogFiles(open_folder(tmp_path / "logs")) as logs,
        pytest.raises(ArtifactError, match="test") as caught,
    ):
        logs.write("test", b"x\n")
    assert caught.value.code == "CR-FILE-003"


def test_a_log_is_cut_at_its_limit_with_one_marker(tmp_path):
    """Up to the limit every byte is kept; then one marker line, and nothing after it,
    also when opened again.
    """
    with LogFiles(open_folder(tmp_path / "logs"), limit_bytes=10) as logs:
        for piece in (b"12345", b"67890", b"abc", b"def"):
            logs.write("test", piece)
        path = logs.path("test")
    with LogFiles(open_folder(tmp_path / "logs"), limit_bytes=10) as logs:
        logs.write("test", b"again")

    assert path.read_bytes() == b"1234567890\n[cleanroom: cut after 10 bytes]\n"


def test_no_log_is_made_for_a_phase_that_says_nothing(tmp_path):
    """Files are opened at their first bytes."""
    with LogFiles(open_folder(tmp_path / "logs")) as logs:
        logs.path("quiet")

    assert list((tmp_path / "logs").iterdir()) == []


@given(st.text(), st.text())
def test_file_names_are_safe_and_stay_different(first, second):
    """Any name becomes one path component of moderate length, and two names never share it."""
    for name in (first, second):
        safe = safe_name(name)
        assert safe
        assert "/" not in safe
        assert not safe.startswith(".")
        assert len(safe.encode()) < 200
    assert (safe_name(first) == safe_name(second)) == (first == second)


def test_a_plain_phase_name_is_its_own_file_name():
    """Ordinary names stay readable, others keep what they can."""
    assert safe_name("integration-test") == "integration-test"
    assert safe_name("db:migrate/up").startswith("db_migrate_up-")


def test_paths_are_relative_only_inside_the_project(tmp_path):
    """A path inside is shown from the root, one outside whole."""
    assert relative(tmp_path / "a" / "b", tmp_path) == "a/b"
    assert relative(tmp_path.parent, tmp_path) == str(tmp_path.parent)
