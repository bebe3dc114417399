"""Sweeping: what dead runs left goes, and nothing of anybody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom.backends.cleanup import MINIMUM_AGE_SECONDS, SweepFindings, dead_run_folders, sweep
from cleanroom.backends.run_folders import OWNER, claim
from cleanroom.sandbox import journal
from support.open_folders import open_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="owners are told apart by /proc")


@pytest.fixture
def stranger() -> Iterator[int]:
    """The number of a living process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    assert process.poll() is None, "a stranger was ended"
    process.kill()
    process.wait()


def made(cache: Path, name: str, owner: str | None) -> Path:
    folder = cache / "runs" / name
    (folder / "layer/upper").mkdir(parents=True)
    (folder / "layer/upper/file").write_text("x")
    (folder / "layer/upper").chmod(0)
    if owner is not None:
        (folder / OWNER).write_text(owner)
    return folder


def dead_name() -> str:
    """How a process that has ended is called."""
    process = subprocess.Popen(["sleep", "600"])
    name = journal.process_name(process.pid)
    process.kill()
    process.wait()
    return name


def test_a_dead_run_s_folder_is_removed(tmp_path: Path):
    """Also where its folders cannot be entered."""
    folder = made(tmp_path, "dead", dead_name())
    assert dead_run_folders(tmp_path) == [folder]
    assert [thing.name for thing in sweep(tmp_path, []).removed if thing.kind == "folder"] == [
        str(folder)
    ]
    assert not folder.exists()


def test_a_living_run_s_folder_is_untouched(tmp_path: Path):
    """CLN-13: it is counted and left alone."""
    scratch = tmp_path / "runs/living"
    os.close(claim(open_folder(scratch)))
    report = sweep(tmp_path, [])
    assert (report.living, report.left, scratch.exists()) == ({"living"}, (), True)


def test_a_run_that_somebody_holds_lives_whatever_its_number_says_here(tmp_path: Path):
    """Two engines in two containers see each other's numbers as nobody's;
    the lock on the file tells.
    """
    folder = made(tmp_path, "elsewhere", dead_name())
    with open(folder / OWNER) as file:
        journal.lock(file.fileno())
        assert sweep(tmp_path, []).living == {"elsewhere"}
        assert dead_run_folders(tmp_path) == []
    assert dead_run_folders(tmp_path) == [folder]


def test_a_run_that_is_being_removed_is_left_to_who_removes_it(tmp_path: Path):
    """Two that sweep at once do not fail over each other."""
    folder = made(tmp_path, "dead", dead_name())
    with journal.try_lock(open_folder(folder), OWNER) as free:
        assert free
        assert sweep(tmp_path, []) == SweepFindings(living=frozenset({"dead"}))
    assert folder.exists()


def test_a_young_folder_without_an_owner_is_untouched_and_an_old_one_is_not(tmp_path: Path):
    """CLN-13: between making a folder and claiming it lies a moment."""
    young, old = made(tmp_path, "young", None), made(tmp_path, "old", None)
    long_ago = old.stat().st_mtime - MINIMUM_AGE_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    report = sweep(tmp_path, [])
    assert (young.exists(), old.exists()) == (True, False)
    assert [(thing.kind, thing.name) for thing in report.waiting] == [("folder", str(young))]
    assert re.search(r"a sweep takes it in \d+ s$", report.waiting[0].detail)
    assert report.living == frozenset()


def test_a_number_that_belongs_to_a_stranger_now_is_a_dead_owner(tmp_path: Path, stranger: int):
    """CLN-14: the folder goes, since the start time differs; the stranger stays."""
    name = journal.process_name(stranger)
    pid, _, start = name.partition(":") if ":" in name else name.partition(" ")
    folder = made(tmp_path, "reused", name.replace(start, str(int(start.strip()) - 1)))
    sweep(tmp_path, [])
    assert int(pid) == stranger
    assert not folder.exists()


def test_links_and_files_among_the_runs_are_not_followed(tmp_path: Path):
    """A link to a folder elsewhere is nobody's run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / OWNER).write_text(dead_name())
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/link").symlink_to(elsewhere)
    assert sweep(tmp_path, []).removed == ()
    assert (elsewhere / OWNER).exists()
