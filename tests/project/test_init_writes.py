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
from support.project_builder import CORPUS, NO_FLOOR, trace, written

PAGE = ROOT / "docs" / "make-toml.md"


@pytest.mark.parametrize(
    ("sign", "image"),
    [
        ("pyproject.toml", "python"),
        ("Cargo.toml", "rust"),
        ("package.json", "node"),
        ("go.mod", "golang"),
        ("README", "debian"),
    ],
)
def test_init_writes_a_file_that_loads_and_fits_the_language(tmp_path: Path, sign: str, image: str):
    """init, test and validate are there, and the image is the language's."""
    (tmp_path / sign).write_text("")
    assert write_make_toml(tmp_path, None) == tmp_path / "make.toml"
    plan = load(tmp_path, ("init", "test", "validate"), caller={}, floor=NO_FLOOR)
    assert trace(plan) == ["init", "test", "validate"]
    assert plan.phases[0].image.startswith(image)
    assert not plan.ignored


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


@pytest.mark.parametrize(
    ("scripts", "validate"),
    [('{"lint": "eslint ."}', "npm run lint"), ("{}", "npm ls --all"), ("7", "npm ls --all")],
)
def test_init_runs_only_scripts_that_are_there(tmp_path: Path, scripts: str, validate: str):
    """A script that package.json does not have is not skipped silently:
    something else is checked.
    """
    (tmp_path / "package.json").write_text(f'{{"scripts": {scripts}}}')
    write_make_toml(tmp_path, None)
    plan = load(tmp_path, ("validate",), caller={}, floor=NO_FLOOR)
    assert plan.phases[0].commands == (validate,)


def test_init_uses_the_projects_virtual_environment(tmp_path: Path):
    """Where there is one, its interpreter runs the tests; and the file says how packages come into
    the project.
    """
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").write_text("")
    write_make_toml(tmp_path, None)
    assert '".venv/bin/python -m pytest -q"' in (tmp_path / "make.toml").read_text()
    assert "Phases have no network" in (tmp_path / "make.toml").read_text()


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
