"""What somebody may not read, of all that the engine keeps: every command says so by name."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroom.core.beneath import Folder
from cleanroom.engine import list_runs
from cleanroom.engine.own_folder import check_own_folders
from cleanroom.model.errors import ProjectError
from support.fuzzing.claims import call
from support.fuzzing.targets import GROUPS, surroundings

MAKE = """
[lifecycle.test]
command = "true"
cleanroom.enabled = false
cleanroom.cache = { inputs = ["make.toml"] }
"""
RUN = ["pipeline", "test", "--backend", "memory"]
READERS = [
    *(["trace"], ["trace", "--compare", "1"], ["events", "show"], ["events", "replay"], ["report"]),
    *(["audit", "show"], ["audit", "verify"], ["sweep"], ["pool", "status"], ["plan"]),
]
PLACES = (
    *(".ggen", ".ggen/state.json", ".ggen/cleanroom", ".ggen/cleanroom/state.json"),
    *(".ggen/cleanroom/runs", ".ggen/cleanroom/runs/OLD", ".ggen/cleanroom/runs/NEW"),
    *(f".ggen/cleanroom/runs/NEW/{name}" for name in ("events.jsonl", "trace.otlp.json")),
    *(f".ggen/cleanroom/{name}" for name in ("audit", "audit/audit.jsonl", "audit/audit.head")),
    *(".ggen/cleanroom/reports", ".ggen/cleanroom/cache", ".venv", "vendor"),
)
_VERSION_3, _OVERRIDES = 0x20080522, 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Root reads whatever it likes: for a while this thread, and those it starts, may not."""
    libc, header = ctypes.CDLL(None, use_errno=True), struct.pack("=Ii", _VERSION_3, 0)
    kept = ctypes.create_string_buffer(24)
    assert libc.capget(header, kept) == 0
    words = list(struct.unpack("=6I", kept.raw))
    words[0] &= ~_OVERRIDES
    assert libc.capset(header, struct.pack("=6I", *words)) == 0
    try:
        yield
    finally:
        assert libc.capset(header, kept.raw) == 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two runs."""
    root = tmp_path_factory.mktemp("recorded") / "project"
    for folder in (root / ".venv", root / "vendor"):
        folder.mkdir(parents=True)
    (root / "make.toml").write_text(MAKE)
    with surroundings(root.parent, PATH=os.defpath):
        for _ in range(2):
            call([*RUN, "--root", str(root), "--fresh"], statuses=(0,), writes=[root, root.parent])
    (root / ".ggen/cleanroom/cache/test").mkdir(parents=True)
    return root


@pytest.fixture
def project(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "project"
    shutil.copytree(recorded, root)
    monkeypatch.chdir(root)
    monkeypatch.setattr("cleanroom.backends.cleanup._groups", lambda folders: iter(()))
    yield root
    for folder, _, _ in os.walk(root):
        for entry in os.scandir(folder):
            os.chmod(entry.path, 0o700, follow_symlinks=not entry.is_symlink())


def hidden(project: Path, place: str) -> Path:
    """The place, which nobody may read any more."""
    old, new = list_runs(project)
    path = project / place.replace("OLD", old).replace("NEW", new)
    path.chmod(0)
    return path


@pytest.mark.parametrize("command", [RUN, *READERS], ids=" ".join)
@pytest.mark.parametrize("place", PLACES)
def test_what_may_not_be_read_is_told_by_name(project: Path, place: str, command: list[str]):
    """No fault of the engine and no exception: either it does not matter,
    or the error has a code and the place.
    """
    hidden(project, place)
    with surroundings(project.parent, PATH=os.defpath), bound_by_modes():
        said = call(command, statuses=(0, 1, 2, 5), writes=[project, project.parent, GROUPS])
    assert "CR-ENGINE-000" not in said.out + said.err
    if said.status in (2, 5):
        assert ".ggen" in said.err
        assert "denied" in said.err


@pytest.mark.parametrize(
    ("place", "code"),
    [(".ggen/cleanroom/audit/audit.jsonl", "CR-AUDIT-003"), (".ggen/state.json", "CR-STATE-002")],
)
def test_a_run_that_may_not_write_its_evidence_is_no_pass(project: Path, place: str, code: str):
    """Its phases passed, and the run ends with 5 and the code of what is missing."""
    hidden(project, place)
    with surroundings(project.parent, PATH=os.defpath), bound_by_modes():
        said = call([*RUN, "--fresh"], statuses=(5,), writes=[project, project.parent, GROUPS])
    assert f"error[{code}]" in said.err


@pytest.mark.parametrize("command", [["events", "show"], ["trace"], ["report"]], ids=" ".join)
def test_a_newest_run_that_may_not_be_read_is_not_passed_over(project: Path, command: list[str]):
    """An older run is not shown in its place as the newest; the older one is there by its name."""
    old, new = list_runs(project)
    hidden(project, ".ggen/cleanroom/runs/NEW")
    with surroundings(project.parent, PATH=os.defpath), bound_by_modes():
        said = call(command, statuses=(2,), writes=[project, project.parent])
        assert call(["events", "show", old], statuses=(0,), writes=[project, project.parent]).out
    assert "error[CR-HISTORY-002]" in said.err
    assert new in said.err


def test_folders_of_ours_below_one_that_may_not_be_entered_are_refused(project: Path):
    """As where they are links: what cannot be looked at cannot be written to."""
    hidden(project, ".ggen")
    with (
        bound_by_modes(),
        pytest.raises(ProjectError, match="cannot be looked at") as caught,
        Folder.at(project) as root,
    ):
        check_own_folders(root)
    assert caught.value.code == "CR-STATE-004"
