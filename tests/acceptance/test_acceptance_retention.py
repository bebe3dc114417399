"""Which records of runs may go, and that what stays is whole."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom import engine
from cleanroom.core.beneath import Folder
from cleanroom.engine.own_folder import run_folders
from cleanroom.engine.retention import RecordedRun, expired
from cleanroom.model.errors import ArtifactError
from cleanroom.model.plan import Retention
from support.command_harness import Project

DAY_NS = 86_400 * 10**9
PHASES = st.frozensets(st.sampled_from([("", "build"), ("", "test"), ("web", "test")]))


def days(number: int) -> Retention:
    return Retention(age_seconds=number * DAY_NS / 10**9)


def run(name: str, days: int, *passed: str) -> RecordedRun:
    """A run of so many days ago."""
    return RecordedRun(name, -days * DAY_NS, frozenset(("", phase) for phase in passed))


def test_the_newest_run_and_the_last_pass_of_each_phase_stay():
    """However old they are; what else is old enough goes, the oldest first."""
    runs = [
        run("a", 90, "build"),
        run("b", 80, "test"),
        run("c", 70, "build", "test"),
        run("d", 60, "build"),
        run("e", 50),
        run("f", 40),
    ]
    assert expired(runs, days(45), 0, ()) == ("a", "b", "e")
    assert expired(runs, days(85), 0, ()) == ("a",)


def test_a_run_that_lives_stays():
    """It may be paused, and write nothing for long."""
    runs = [run("a", 9), run("b", 8), run("c", 7)]
    assert expired(runs, days(0), 0, {"a"}) == ("b",)


def test_what_number_and_size_leave_no_room_for_is_the_oldest():
    """What has to stay counts, and one that is small does not outlive a younger one that went."""
    runs = [run("a", 5)._replace(size_bytes=1), run("b", 4, "build"), run("c", 3), run("d", 2)]
    assert expired(runs, Retention(runs=2), 0, ()) == ("a",)
    assert expired(runs, Retention(runs=1), 0, ()) == ("a", "c")
    large = [*runs[:2], runs[2]._replace(size_bytes=9), runs[3]._replace(size_bytes=3)]
    assert expired(large, Retention(size_bytes=11), 0, ()) == ("a", "c")
    assert expired(large, Retention(size_bytes=12), 0, ()) == ("a",)


@given(
    st.lists(st.tuples(st.integers(0, 99), PHASES, st.integers(0, 9)), max_size=8),
    st.builds(
        Retention,
        runs=st.none() | st.integers(1, 9),
        age_seconds=st.none() | st.integers(0, 99),
        size_bytes=st.none() | st.integers(0, 40),
    ),
)
def test_no_pass_is_lost(
    rows: list[tuple[int, frozenset[tuple[str, str]], int]], limits: Retention
):
    """What passed last passed last in what stays too, and removing again removes nothing;
    without limits nothing goes, and with a stricter one at least as much.
    """
    ordered = sorted(rows, key=lambda row: -row[0])
    runs = [
        RecordedRun(str(n), -seconds * 10**9, passed, size)
        for n, (seconds, passed, size) in enumerate(ordered)
    ]
    gone = expired(runs, limits, 0, ())
    left = [one for one in runs if one.name not in gone]

    def last(among: list[RecordedRun]) -> dict[tuple[str, str], str]:
        return {phase: one.name for one in among for phase in one.passed}

    assert last(left) == last(runs)
    assert expired(left, limits, 0, ()) == ()
    assert set(expired(runs, Retention(), 0, ())) == set()
    stricter = Retention(runs=1, age_seconds=limits.age_seconds, size_bytes=limits.size_bytes)
    assert set(gone) <= set(expired(runs, stricter, 0, ()))


# --- with records of real runs


def make_old(path: Path) -> None:
    """Let it have been written 40 days ago."""
    old = path.stat().st_mtime_ns - 40 * DAY_NS
    os.utime(path, ns=(old, old))


@pytest.fixture
def recorded(project: Project) -> list[str]:
    """Three runs: the first two of 40 days ago."""
    project.write({"test": "true"})
    for _ in range(3):
        project.call("run", "test", "--fresh")
    names = engine.list_runs(project.root)
    assert len(names) == 3
    for name in names[:2]:
        make_old(project.root / ".ggen/cleanroom/runs" / name / "events.jsonl")
    return names


@pytest.mark.sandbox
def test_what_is_old_goes_and_the_rest_of_the_audit_log_verifies(
    project: Project, recorded: list[str]
):
    """The command says which; a second one has nothing to do."""
    assert "records of 2 runs removed" in project.run("sweep", "--older", "30d").stdout
    assert engine.list_runs(project.root) == recorded[2:]
    assert "cut off by retention" in project.run("audit", "verify").stdout
    assert {record["run_id"] for record in engine.show_audit(project.root)} == {
        recorded[2],
        "retention",
    }
    assert "records" not in project.run("sweep", "--older", "30d").stdout
    project.call("run", "test")
    assert "valid" in project.run("audit", "verify").stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.sandbox
def test_a_dry_run_says_what_would_go_and_removes_nothing(project: Project, recorded: list[str]):
    """It names the same runs and records as the removal after it."""
    before = contents(project.root / ".ggen")
    said = project.run("sweep", "--older", "30d", "--dry-run").stdout
    assert contents(project.root / ".ggen") == before
    removed = project.run("sweep", "--older", "30d").stdout
    assert said.removeprefix("would be removed: records of 2 runs") in removed
    assert project.run("sweep", "--older", "30d", "--dry-run").stdout == (
        "no records would be removed\n"
    )


@pytest.mark.sandbox
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_that_lives_with_another_cache_stays(
    project: Project, recorded: list[str], begun: bool
):
    """Its engine has the run's folder in use, whether or not it has written events yet."""
    with Folder.at(project.root) as root, run_folders(root, recorded[0], None):
        if not begun:
            (project.root / ".ggen/cleanroom/runs" / recorded[0] / "events.jsonl").unlink()
            make_old(project.root / ".ggen/cleanroom/runs" / recorded[0])
        gone = engine.remove_expired(project.root, 30 * 86_400.0, caller=project.variables())
    assert gone.runs == (recorded[1],)
    assert "valid" in project.run("audit", "verify").stdout
    gone = engine.remove_expired(project.root, 30 * 86_400.0, caller=project.variables())
    assert gone.runs == (recorded[0],)


@pytest.mark.sandbox
@pytest.mark.parametrize("lives", [False, True])
def test_what_a_killed_removal_left_goes_with_the_next(
    project: Project, recorded: list[str], lives: bool
):
    """A folder without events is no run any more, unless that is just beginning."""
    half = project.root / ".ggen/cleanroom/runs" / recorded[0]
    (half / "events.jsonl").unlink()
    make_old(half)
    if lives:
        (project.cache / "runs" / recorded[0]).mkdir(parents=True, mode=0o700)
    gone = engine.remove_expired(project.root, 30 * 86_400.0, caller=project.variables())
    assert set(gone.runs) == set(recorded[1:2] if lives else recorded[:2])
    assert half.exists() is lives


@pytest.mark.sandbox
def test_nothing_goes_where_the_audit_log_was_changed(project: Project, recorded: list[str]):
    """What shows the change would be gone."""
    log = project.root / ".ggen/cleanroom/audit/audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"kind"', b'"kinD"', 1))
    with pytest.raises(ArtifactError):
        engine.remove_expired(project.root, 1.0, caller=project.variables())
    assert engine.list_runs(project.root) == recorded


@pytest.mark.sandbox
def test_a_link_in_the_place_of_a_run_is_not_followed(
    project: Project, recorded: list[str], tmp_path: Path
):
    """It is somebody else's folder."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("kept")
    runs = project.root / ".ggen/cleanroom/runs"
    (runs / "20200101-000000-aaaaa").symlink_to(other)
    engine.remove_expired(project.root, 1.0, caller=project.variables())
    assert (other / "kept").read_text() == "kept"


def test_the_report_has_what_was_removed():
    """For programs: names, and how many records."""
    report = engine.SweepReport(expired=("a",), audit_records=3)
    assert b'"expired":["a"],"audit_records":3' in msgspec.json.encode(report)


def test_a_project_without_runs_has_nothing_to_lose(tmp_path: Path):
    """Not even a folder of ours."""
    assert engine.remove_expired(tmp_path, 1.0, caller={"HOME": str(tmp_path)}) == ((), 0)
    assert os.listdir(tmp_path) == []


# --- by settings, at the end of each run


def limited(project: Project, limits: str) -> None:
    project.write({"test": "true"})
    project.add(f"\n[cleanroom.retention]\n{limits}\n")


@pytest.mark.sandbox
def test_a_run_removes_what_its_project_keeps_no_longer(project: Project, recorded: list[str]):
    """This run and the last pass of each phase stay; it says so, and the audit log verifies."""
    limited(project, 'age = "30d"')
    said = project.run("run", "test", "--fresh").stderr
    assert "removed the records of 2 old runs, by [cleanroom.retention]" in said
    left = engine.list_runs(project.root)
    assert left[0] == recorded[2]
    assert len(left) == 2
    assert "valid" in project.run("audit", "verify").stdout
    project.add("runs = 1\n")
    assert "of 2 old runs," in project.run("run", "test", "--fresh").stderr
    assert len(engine.list_runs(project.root)) == 1
    assert "valid" in project.run("audit", "verify").stdout


@pytest.mark.sandbox
def test_a_run_that_cannot_remove_records_is_what_it_was(project: Project, recorded: list[str]):
    """A log that does not match its own chain is left as it is, and a warning says so."""
    limited(project, "runs = 1")
    log = project.root / ".ggen/cleanroom/audit/audit.jsonl"
    text = log.read_text().replace('"kind":"started"', '"kind":"stirred"', 1)
    log.write_text(text)
    answer = project.call("run", "test", "--fresh")
    assert answer.code == 0
    assert "CR-HISTORY-004" in answer.err
    assert set(recorded) <= set(engine.list_runs(project.root))


@pytest.mark.sandbox
def test_a_dry_run_removes_no_records(project: Project, recorded: list[str]):
    """It leaves nothing behind, and takes nothing away."""
    limited(project, "runs = 1")
    project.call("run", "test", "--fresh", "--dry-run")
    assert set(recorded) <= set(engine.list_runs(project.root))
