"""`diff`: which runs it takes, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cleanroom.cli.app import execute
from cleanroom.model.events import encode_lines
from support.event_log_builder import shop


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three recorded runs: the first and the last passed."""
    monkeypatch.chdir(tmp_path)
    for number, failing in enumerate((False, True, False), 1):
        folder = tmp_path / ".ggen/cleanroom/runs" / f"20261124-02350{number}-aaaaa"
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_bytes(encode_lines(shop(failing=failing)))
        (folder / "plan.json").write_text('{"project": "shop"}')
    return tmp_path


def runs(project: Path) -> list[str]:
    return sorted(one.name for one in (project / ".ggen/cleanroom/runs").iterdir())


def test_without_a_name_it_takes_the_last_two(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The later one against the earlier one; 1 says that something differs."""
    assert execute(["diff", "--output", "json"]) == 1
    said = json.loads(capsys.readouterr().out)

    assert (said["before"]["outcome"], said["after"]["outcome"]) == ("failed", "passed")
    assert said["same"] is False


def test_one_name_is_taken_with_the_run_before_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first has none before it."""
    assert execute(["diff", runs(project)[1]]) == 1
    lines = capsys.readouterr().out.splitlines()

    assert lines[0].startswith("- run ")
    assert "passed" in lines[0]
    assert "failed" in lines[1]
    assert execute(["diff", runs(project)[0]]) == 2
    assert "no run before" in capsys.readouterr().err


def test_runs_that_do_not_differ_exit_with_0(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two names, the earlier one first."""
    first, _, last = runs(project)
    assert execute(["diff", first, last]) == 0
    assert "nothing differs but the times" in capsys.readouterr().out


def test_a_run_that_is_not_there_is_usage_and_no_run_at_all_verifies_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As for the other commands that read what runs left; no path is a name of a run."""
    assert execute(["diff", "../../etc"]) == 2
    (tmp_path / "empty").mkdir()
    assert execute(["diff", "--root", str(tmp_path / "empty")]) == 4
