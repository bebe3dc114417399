"""Links and other folders in the place of ours, brought by a project or put there while a run goes
on: nothing outside of it is written.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom import engine as door
from cleanroom.backends.base import Backend
from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.core.disk import Disk
from cleanroom.engine import Engine, Options
from cleanroom.model.errors import CleanroomError, ProjectError
from cleanroom.testing import MemoryBackend, Script, succeed

OURS = ".ggen/cleanroom"
FOLDERS = (
    ".ggen",
    OURS,
    *(f"{OURS}/{name}" for name in ("runs", "audit", "reports", "sessions", "cache", "cache/test")),
)
FILES = (
    f"{OURS}/audit/audit.jsonl",
    f"{OURS}/audit/audit.head",
    f"{OURS}/audit/audit.lock",
    f"{OURS}/state.lock",
)
REPLACED = (
    ".ggen/state.json",
    f"{OURS}/state.json",
    *(f"{OURS}/reports/test_results.{kind}" for kind in ("json", "junit.xml", "html", "sarif")),
)
MAKE_TOML = '[lifecycle.test]\ncommand = "true"\n'
CACHED = 'cleanroom.cache = { inputs = ["make.toml"] }\n'
STRIDE = 5  # a run has some forty steps; each folder is swapped before different ones


class Quick(Disk):
    """Waits for nothing."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, folder: Folder) -> None:
        pass


class Swapping(Quick):
    """Before the step number `at` it puts a link to `outside` in the place of a folder,
    as its owner may at any moment.
    """

    def __init__(self, folder: Path, outside: Path, at: int) -> None:
        self.steps = 0
        self._folder, self._outside, self._at = folder, outside, at

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self._at:
            self._folder.rename(self._folder.with_name(f"{self._folder.name}-aside"))
            self._folder.symlink_to(self._outside)

    def create(self, folder: Folder, name: str, mode: int) -> int:
        self._step()
        return super().create(folder, name, mode)

    def append(self, folder: Folder, name: str, mode: int) -> int:
        self._step()
        return super().append(folder, name, mode)

    def rename(self, folder: Folder, source: str, target: str) -> None:
        self._step()
        super().rename(folder, source, target)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, beside a folder of somebody's that has the shape of ours."""
    monkeypatch.setattr(disk, "here", Quick())
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(MAKE_TOML)
    outside = tmp_path / "outside"
    for name in (
        "cleanroom/runs",
        "cleanroom/audit",
        "cleanroom/reports",
        "cleanroom/cache/test",
        "runs",
        "audit",
        "reports",
        "test",
    ):
        (outside / name).mkdir(parents=True)
    for name in ("file", "state.json", "cleanroom/audit/audit.jsonl", "test/old.json"):
        (outside / name).write_text("theirs\n")
    return root


def outside(project: Path) -> dict[str, bytes]:
    """Everything in the other's folder."""
    folder = project.parent / "outside"
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def engine(project: Path, **options: object) -> Engine:
    def make(name: str, **where: object) -> Backend:
        return MemoryBackend(Script(otherwise=succeed(b"fine\n")))

    caller = {
        "PATH": os.environ["PATH"],
        "HOME": str(project.parent),
        "CLEANROOM_CACHE": str(project.parent / "cache"),
    }
    return Engine(project, caller, Options(backend="memory", **options), make)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
async def test_a_project_that_brings_something_else_for_a_folder_is_refused(
    project: Path, name: str, kind: str
):
    """The error names it, before anything runs, and nothing is written where a link leads."""
    place = project / name
    place.parent.mkdir(parents=True, exist_ok=True)
    {
        "link": lambda: place.symlink_to(project.parent / "outside"),
        "file": place.touch,
        "pipe": lambda: os.mkfifo(place),
    }[kind]()
    before = outside(project)
    with pytest.raises(ProjectError) as refused:
        await engine(project).pipeline("test")
    assert (refused.value.code, refused.value.where) == ("CR-STATE-003", f"{name}:1:1")
    assert outside(project) == before


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))


PLACED: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, target: place.symlink_to(target),
    "link to nowhere": lambda place, target: place.symlink_to(target.with_name("new")),
    "hard link": lambda place, target: place.hardlink_to(target),
    "pipe": lambda place, target: os.mkfifo(place),
    "socket": lambda place, target: socket_at(place),
    "folder": lambda place, target: place.mkdir(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PLACED)
async def test_a_project_that_brings_something_else_for_a_file_is_refused(
    project: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """Also a second name of another file, to which adding would be adding there."""
    monkeypatch.chdir(project)
    place = project / name
    place.parent.mkdir(parents=True, exist_ok=True)
    PLACED[kind](place, project.parent / "outside/file")
    before = outside(project)
    with pytest.raises(ProjectError) as refused:
        await engine(project).pipeline("test")
    assert (refused.value.code, refused.value.where) == ("CR-STATE-003", f"{name}:1:1")
    assert outside(project) == before


@pytest.mark.parametrize("name", REPLACED)
@pytest.mark.parametrize("kind", ["link", "link to nowhere", "hard link"])
async def test_a_file_that_is_written_anew_takes_a_link_s_place(
    project: Path, name: str, kind: str
):
    """Reports and states are replaced: the run passes, and where the link led nothing changes."""
    place = project / name
    place.parent.mkdir(parents=True, exist_ok=True)
    (project.parent / "outside/file").write_text("{}")
    PLACED[kind](place, project.parent / "outside/file")
    before = outside(project)
    result = await engine(project).pipeline("test")
    assert result.outcome == "passed", result.error
    assert place.is_file()
    assert not place.is_symlink()
    assert outside(project) == before


async def steps_of_a_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many steps of the disk one takes; it leaves a whole `.ggen`."""
    counted = Swapping(project, project, 0)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "here", counted)
        assert (await engine(project).pipeline("test")).outcome == "passed"
    return counted.steps


SWAPPED = (
    ".ggen",
    OURS,
    *(f"{OURS}/{name}" for name in ("runs", "audit", "reports", "cache/test")),
)


@pytest.mark.parametrize(("first", "name"), list(enumerate(SWAPPED, 1)), ids=SWAPPED)
async def test_a_folder_that_is_swapped_at_any_step_of_a_run_leads_nothing_out(
    project: Path, first: int, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Whenever its owner renames it and leaves a link, what is written goes where it went before,
    or the run says what it found.
    """
    if "cache" in name:
        (project / "make.toml").write_text(MAKE_TOML + CACHED)
    steps = await steps_of_a_run(project, monkeypatch)
    before = outside(project)
    place, aside = project / name, (project / name).with_name(f"{Path(name).name}-aside")
    for at in range(first, steps + 1, STRIDE):
        monkeypatch.setattr(disk, "here", Swapping(place, project.parent / "outside", at))
        result = await engine(project, no_cache=True).pipeline("test")
        assert outside(project) == before, f"step {at}"
        assert result.outcome == "passed" or (result.error or {}).get("code") == "CR-STATE-003", (
            at,
            result.error,
        )
        if place.is_symlink():
            place.unlink()
            aside.rename(place)
    assert door.verify_audit(project).valid


@pytest.mark.skipif(sys.platform != "linux", reason="needs a phase of the host")
@pytest.mark.parametrize(
    "name", [".ggen", OURS, f"{OURS}/runs", f"{OURS}/audit", f"{OURS}/reports"]
)
async def test_a_real_command_that_swaps_our_folder_leads_nothing_out(project: Path, name: str):
    """A phase that nothing holds renames it and leaves a link:
    the evidence is whole in the folder that was held.
    """
    swap = (
        f"mv {name} aside && ln -s ../outside {name}"
        if name == ".ggen"
        else f"mv {name} aside && ln -s {project.parent}/outside {name}"
    )
    (project / "make.toml").write_text(
        f'[lifecycle.test]\ncommand = "{swap}"\ncleanroom.enabled = false\n'
    )
    before = outside(project)
    result = await engine(project).pipeline("test")
    assert outside(project) == before
    assert (result.outcome == "passed") != ((result.error or {}).get("code") == "CR-STATE-003"), (
        result.error
    )
    assert (project / "aside").is_dir()


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_journal_that_is_another_s_file_is_not_added_to(project: Path, kind: str):
    """Sweeping closes journals of dead runs, and no file that one of them leads to or is."""
    folder = project / OURS / "runs/r1"
    folder.mkdir(parents=True)
    target = project.parent / "outside/file"
    target.write_text('{"op":"open","run_id":"r1","owner":"1:1"}\n')
    PLACED[kind](folder / "journal.jsonl", target)
    before = outside(project)
    door.sweep(
        project, caller={"CLEANROOM_CACHE": str(project.parent / "cache"), "PATH": "/usr/bin"}
    )
    assert outside(project) == before


@pytest.mark.parametrize("act", ["events", "trace", "audit", "report"])
async def test_what_earlier_runs_left_is_read_through_no_link(project: Path, act: str):
    """Another's file in the place of a recorded one is not shown."""
    result = await engine(project).pipeline("test")
    secret = project.parent / "secret"
    secret.write_text("correct horse\n" * 3)
    run = project / OURS / "runs" / result.run_id
    place = {
        "events": run / "events.jsonl",
        "trace": run / "trace.otlp.json",
        "report": run / "events.jsonl",
    }.get(act, project / OURS / "audit/audit.jsonl")
    place.unlink()
    place.symlink_to(secret)
    said = ""
    try:
        shown = {
            "events": lambda: door.read_run(project, result.run_id),
            "trace": lambda: door.read_trace(project, result.run_id),
            "audit": lambda: [*door.show_audit(project), door.verify_audit(project)],
            "report": lambda: door.render_reports(project),
        }[act]()
        said = str(shown)
    except CleanroomError as error:
        said = f"{error} {error.hint}"
    assert "horse" not in said
