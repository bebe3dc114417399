"""`init` and the page of keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.model.errors import ArtifactError, ProjectError
from cleanroom.project import keys_page, load
from cleanroom.project.init import write_make_toml
from support.paths import ROOT
from support.project_builder import CORPUS, NO_FLOOR, written

PAGE = ROOT / "docs" / "make-toml.md"


def test_init_says_where_it_cannot_write(tmp_path: Path):
    """The folder is not there: an error of ours, with the system's words."""
    with pytest.raises(ArtifactError, match="No such file") as caught:
        write_make_toml(tmp_path / "nowhere", None)
    assert caught.value.code == "CR-INIT-002"


@pytest.mark.parametrize("phase", ["init", "test", "validate"])
def test_a_phase_of_an_unknown_project_fails_and_says_what_to_write(tmp_path: Path, phase: str):
    """Nobody knows what checks such a project, so nothing says that it is well."""
    write_make_toml(tmp_path, None)
    (command,) = load(tmp_path, (phase,), caller={}, floor=NO_FLOOR).phases[0].commands
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert f"[lifecycle.{phase}]: write your command here" in done.stderr


def test_init_never_overwrites(tmp_path: Path):
    """A make.toml that is there stays, also a link that leads nowhere."""
    written(tmp_path, "mine = 1\n")
    with pytest.raises(ProjectError):
        write_make_toml(tmp_path, None)
    assert (tmp_path / "make.toml").read_text() == "mine = 1\n"
    (tmp_path / "make.toml").unlink()
    (tmp_path / "make.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ProjectError):
        write_make_toml(tmp_path, None)


@pytest.mark.parametrize(
    "name",
    [
        "lifecycle-complete",
        "api-endpoint",
        "async-web-service",
        "rust-cli-lifecycle",
        "embedded-cross",
    ],
)
def test_a_converted_file_means_the_same_in_dialect_a(tmp_path: Path, name: str):
    """Converting any dialect gives the same runs: names, commands, roles, variables."""
    file = next(path for path in CORPUS.iterdir() if name in path.name)
    for folder in (
        "old",
        "new",
        *(
            f"{where}/{part}"
            for where in ("old", "new")
            for part in ("backend", "frontend", "shared")
        ),
    ):
        (tmp_path / folder).mkdir()
    shutil.copy(file, tmp_path / "old/make.toml")
    write_make_toml(tmp_path / "new", file)
    old = load(tmp_path / "old", caller={}, floor=NO_FLOOR)
    named = [phase.name for phase in old.phases if phase.role == "phase"]
    old, new = (
        load(tmp_path / folder, named[:3], caller={}, floor=NO_FLOOR) for folder in ("old", "new")
    )
    assert new.dialect == "A"
    assert _shown(new) == _shown(old)


def _shown(plan):
    return [
        (phase.name, phase.role, phase.of, phase.commands, phase.variables) for phase in plan.phases
    ]


def test_the_page_of_keys_is_what_the_structs_say():
    """docs/make-toml.md is generated and nobody edited it."""
    assert PAGE.read_text() == keys_page.page()


def test_the_page_is_printed_by_the_module():
    """`python -m cleanroom.project.keys_page` prints the page and no warning."""
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom.project.keys_page"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (keys_page.page(), "")
