"""`--watch`: the real command runs again after changes, and ends with the last run's status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom.cli.app import execute
from cleanroom.engine.own_writes import OwnWrites, Stamp
from cleanroom.engine.watching import others

MAKE = """
[project]
name = "x"
[lifecycle.test]
command = "cat value.txt > out.txt; grep good value.txt"
cleanroom.outputs = ["out.txt"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(MAKE)
    (root / "value.txt").write_text("good\n")
    (root / ".gitignore").write_text("ignored/\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


@pytest.fixture
def said(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the command's output goes."""
    name: str = getattr(request, "param", "said")
    return tmp_path / name


@pytest.fixture
def watching(project: Path, said: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cleanroom", "run", "test", "--watch"],
            cwd=project,
            env=os.environ | {"CLEANROOM_CACHE": str(tmp_path / "cache")},
            stdout=output,
            stderr=output,
        )
    yield process
    process.kill()
    process.wait()


def wait_for_runs(said: Path, count: int) -> str:
    deadline = time.monotonic() + 60
    while (text := said.read_text()).count("waiting for changes") < count:
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def test_a_change_runs_again_and_ctrl_c_ends_with_the_last_status(
    watching: subprocess.Popen[bytes], project: Path, said: Path
) -> None:
    """What came back starts no run, and no process is left."""
    wait_for_runs(said, 1)
    assert (project / "out.txt").read_text() == "good\n"
    time.sleep(1.5)
    assert "running again" not in said.read_text()
    (project / "value.txt").write_text("bad\n")
    assert "changed: value.txt; running again" in wait_for_runs(said, 2)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 1
    left = Path(f"/proc/{watching.pid}")
    assert not left.exists()


def test_a_change_during_a_run_runs_again_at_once_and_ignored_folders_do_not(
    watching: subprocess.Popen[bytes], project: Path, said: Path
) -> None:
    wait_for_runs(said, 1)
    (project / "make.toml").write_text(MAKE.replace('"cat', '"sleep 3; cat'))
    deadline = time.monotonic() + 30
    while "running again" not in said.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    (project / "new.txt").write_text("saved meanwhile")
    # Two runs: only the second one waits.
    assert "changed: new.txt; running again" in wait_for_runs(said, 2)
    (project / "ignored").mkdir()
    (project / "ignored/file").write_text("")
    time.sleep(1.5)
    assert said.read_text().count("running again") == 2
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(20) == 0


def test_a_signal_during_a_run_ends_both(
    watching: subprocess.Popen[bytes], project: Path, said: Path
) -> None:
    wait_for_runs(said, 1)
    (project / "make.toml").write_text(MAKE.replace('"cat', '"sleep 100; cat'))
    children = Path(f"/proc/{watching.pid}/task/{watching.pid}/children")
    deadline = time.monotonic() + 30
    while not (child := children.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
    assert not Path(f"/proc/{child[0]}").exists()


@pytest.mark.parametrize("said", ["project/log.txt"], indirect=True)
def test_the_commands_own_output_starts_no_run(
    watching: subprocess.Popen[bytes], project: Path, said: Path
) -> None:
    """`--watch > log.txt`, as people do in the project's folder: each run is told of there."""
    wait_for_runs(said, 1)
    time.sleep(1.5)
    assert "running again" not in said.read_text()
    (project / "value.txt").write_text("good, again\n")
    assert "changed: value.txt; running again" in wait_for_runs(said, 2)
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(20) == 0


def test_what_a_phase_wrote_to_the_project_itself_starts_no_run(
    watching: subprocess.Popen[bytes], project: Path, said: Path
) -> None:
    """Another text each time, as of a log with times in it: it would run for ever."""
    wait_for_runs(said, 1)
    make = MAKE.replace("cat value.txt", "date +%N")
    (project / "make.toml").write_text(make + '[cleanroom]\npolicy = "Low"\n')
    assert "changed: make.toml; running again" in wait_for_runs(said, 2)
    time.sleep(1.5)
    assert said.read_text().count("running again") == 1
    watching.send_signal(signal.SIGTERM)
    assert watching.wait(20) == 0


@pytest.mark.parametrize("words", [["--pause"], ["--output", "json"], ["--output", "github"]])
def test_what_makes_no_sense_together_is_refused(
    words: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert execute(["run", "test", "--watch", *words]) == 2


def test_a_file_that_is_as_the_run_left_it_is_no_change_of_others() -> None:
    old, new, newer = (Stamp(0o100644, 1, 1, time_ns) for time_ns in (1, 2, 3))
    own = OwnWrites({"/p/a": new, "/p/b": new, "/p/gone": None})
    before = {"/p/a": old, "/p/b": old, "/p/gone": old, "/p/c": old}
    after = {"/p/a": new, "/p/b": newer, "/p/c": old, "/p/d": old}
    assert others(before, after, own) == ["/p/b", "/p/d"]
    assert others(before, after, own._replace(anything=True)) == []
