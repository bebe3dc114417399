"""What is no file in the place of a file: every command ends at once, by name,
and touches nothing.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import encode
from cleanroom.project import state
from cleanroom.services.templates import TemplateCache
from support.fuzzing.claims import LOCATED, Broken, bounded, call
from support.fuzzing.event_log_generator import told
from support.fuzzing.targets import GROUPS, RUN, surroundings
from support.open_folders import open_folder


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))  # an address holds 107 bytes


PLACES: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "socket": _socket,
    "link to itself": lambda path: path.symlink_to(path),
    "link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "link to a terminal": lambda path: path.symlink_to("/dev/ptmx"),
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link into the kernel": lambda path: path.symlink_to("/proc/self/mem"),
    "link to a folder": lambda path: path.symlink_to("/"),
    "hole of 200 megabytes": lambda path: (path.touch(), os.truncate(path, 200 << 20)),
}
EVENTS = f".ggen/cleanroom/runs/{RUN}/events.jsonl"
# File -> the commands that read it and the exit statuses that they may have.
# 4: there is nothing that could be looked at.
READERS: list[tuple[str, list[str], tuple[int, ...]]] = [
    ("make.toml", ["plan"], (2,)),
    ("make.toml", ["config", "show"], (2,)),
    ("make.toml", ["pipeline", "test", "--backend", "memory"], (2,)),
    ("make.toml", ["init"], (2,)),
    ("other.toml", ["init", "--from", "other.toml"], (2,)),
    (EVENTS, ["events", "show"], (2, 4)),
    (EVENTS, ["events", "replay"], (2, 4)),
    (EVENTS, ["report", "--report-dir", "out"], (2, 4)),
    ("other.jsonl", ["report", "--from", "other.jsonl", "--report-dir", "out"], (2,)),
    (f".ggen/cleanroom/runs/{RUN}/trace.otlp.json", ["trace"], (0, 2)),
    (".ggen/cleanroom/audit/audit.jsonl", ["audit", "verify"], (1, 4)),
    (".ggen/cleanroom/audit/audit.jsonl", ["audit", "show"], (0, 2, 4)),
    (".ggen/cleanroom/audit/audit.head", ["audit", "verify"], (1, 4)),
    (f".ggen/cleanroom/runs/{RUN}/journal.jsonl", ["sweep"], (0, 1)),
    (".ggen/cleanroom/runs", ["events", "show"], (2, 4)),
    (".ggen/cleanroom/audit", ["audit", "verify"], (1, 2, 4)),
    (".ggen", ["events", "show"], (2, 4)),
]


def told_lines() -> bytes:
    return b"".join(encode(envelope) + b"\n" for envelope in told()[1])


def busy() -> None:
    while True:
        pass


def refusal(act: Callable[[], object]) -> CleanroomError | None:
    try:
        act()
    except CleanroomError as error:
        return error
    return None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder to work in, of a caller who has nothing."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setattr("cleanroom.backends.cleanup._groups", lambda folders: iter(()))
    return root


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "command", "statuses"),
    READERS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_is_no_file_holds_nobody_up(
    project: Path, name: str, command: list[str], statuses: tuple[int, ...], place: str
):
    """The command ends in time with an exit status of the contract,
    an error of its input says where, and nothing is written.
    """
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "trace.otlp.json":
        path.with_name("events.jsonl").touch()  # without it there is no run
    PLACES[place](path)
    with surroundings(project.parent):
        said = call(
            command, statuses=statuses, writes=[path.parent, GROUPS] if command == ["sweep"] else []
        )
    if said.status == 2 and command[0] != "init":
        assert LOCATED.match(said.err) or said.err.startswith(
            ("error[CR-CLI-001]", "error[CR-PROJECT-001]")
        ), said.err


@pytest.mark.parametrize(
    "name",
    [
        ".ggen",
        ".ggen/cleanroom",
        *(f".ggen/cleanroom/{name}" for name in ("runs", "audit", "reports")),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["pipeline", "test", "--backend", "memory"],
        ["run", "test", "--backend", "memory"],
        ["report"],
        ["sweep"],
    ],
    ids=" ".join,
)
def test_a_link_in_the_place_of_our_folder_leads_nothing_out_of_the_project(
    project: Path, name: str, command: list[str]
):
    """A project that brings links where our folders would be made cannot direct what we write to
    another place.
    """
    (project / "make.toml").write_text('[lifecycle.test]\ncommand = "true"\n')
    outside = project.parent / "outside"
    (outside / "cleanroom" / "runs").mkdir(parents=True)
    for runs in (outside, outside / "runs", outside / "cleanroom" / "runs"):
        (runs / RUN).mkdir(parents=True)
        (runs / RUN / "events.jsonl").write_bytes(told_lines())
        (runs / RUN / "journal.jsonl").write_text('{"op":"open","run_id":"x","owner":"1:1"}\n')
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    with surroundings(project.parent):
        call(command, statuses=(0, 2, 4), writes=[project, project.parent / "cache", GROUPS])
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_a_link_in_the_place_of_a_journal_is_not_written_through(project: Path):
    """Sweeping closes the journals of dead runs, never a file that one of them leads to."""
    (project.parent / "victim").write_text("mine\n")
    folder = project / ".ggen/cleanroom/runs" / RUN
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").symlink_to(project.parent / "victim")
    with surroundings(project.parent):
        call(["sweep"], statuses=(0,), writes=[GROUPS])
    assert (project.parent / "victim").read_text() == "mine\n"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [state.STATE, state.OURS], ids=str)
def test_a_state_that_is_no_file_is_refused_or_replaced(project: Path, name: Path, place: str):
    """Recording ends with an error of ours, or the state is a file afterwards;
    what a link leads to is never written.
    """
    (project / name).parent.mkdir(parents=True)
    PLACES[place](project / name)
    with bounded():
        refused = refusal(
            lambda: state.record(
                open_folder(project),
                [state.PhaseRecord(phase="test", started_ms=1, duration_ms=2, success=True)],
            )
        )
    assert (project / state.STATE).is_file() if refused is None else refused.exit in (2, 5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "name", ["templates/key/complete.json", "templates/key", "templates/key/data", "building"]
)
def test_a_cache_entry_that_is_no_file_is_a_miss(project: Path, name: str, place: str):
    """A template of the cache in which something else stands is not used, and holds nobody up."""
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PLACES[place](path)
    with bounded():
        found: list[Path | None] = []
        refused = refusal(lambda: found.append(TemplateCache(project).lookup("key")))
    assert found == [None] or (refused is not None and refused.code == "CR-SERVICE-013")


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_is_no_file_is_said(project: Path, place: str):
    """The cache's secret is never read from a pipe or a device."""
    PLACES[place](project / "secret")
    with bounded(), pytest.raises(CleanroomError) as refused:
        TemplateCache(project).secret("key")
    assert refused.value.code in ("CR-SERVICE-013", "CR-SERVICE-014")


def test_a_claim_that_does_not_hold_is_broken(project: Path):
    """The harness itself notices: a status that may not be,
    and a command that goes on for too long.
    """
    with surroundings(project), pytest.raises(Broken, match="ended with 2"):
        call(["plan"], statuses=(0,))
    with pytest.raises(Broken, match="still not done"), bounded(wait_seconds=0.05):
        signal.pause()
    with pytest.raises(Broken, match="still not done"), bounded(0.05):
        busy()
