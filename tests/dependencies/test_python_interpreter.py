"""Which interpreter packages are fetched for: found in files, which may say anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder
from cleanroom.dependencies import python_interpreter
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.settings import Settings

NEWER = "home = /opt/python/bin\ninclude-system-site-packages = false\nversion = 3.13.1\n"


def settings(folder: Path, name: str = "python3.11") -> Settings:
    """A caller whose PATH leads to a Python of this name."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / name).write_text("")
    (programs / name).chmod(0o755)
    if name != "python3":
        (programs / "python3").symlink_to(name)
    return Settings({"PATH": str(programs)}, folder)


def found(
    tmp_path: Path, record: str, name: str = ".venv", program: str = "python3.11"
) -> dict[str, bytes]:
    """What is found in a folder with a virtual environment of this record."""
    (tmp_path / "project" / name).mkdir(parents=True)
    (tmp_path / "project" / name / "pyvenv.cfg").write_text(record)
    with Folder.at(tmp_path / "project") as root:
        folder = ProjectFolder(root, "")
        return python_interpreter.of_environment(folder, settings(tmp_path, program))


@pytest.mark.parametrize("name", [".venv", "venv", "env"])
def test_the_interpreter_of_a_virtual_environment_counts(tmp_path: Path, name: str):
    """Where it is another one than PATH's."""
    files = found(tmp_path, NEWER, name)
    assert files == {f"{name}/pyvenv.cfg": b"/opt/python/bin/python3.13\n"}
    assert python_interpreter.chosen(Found("pip", "", files)) == "/opt/python/bin/python3.13"


@pytest.mark.parametrize(
    "record",
    [
        NEWER.replace("3.13.1", "3.11.9"),
        "",
        "home = bin\nversion = 3.13.1\n",
        "home = /opt/../etc\nversion = 3.13.1\n",
        "home = /opt/a b;c\nversion = 3.13.1\n",
        "home = /opt\0\nversion = 3.13.1\n",
        "version = 3.13.1\n",
        "home = /opt\nversion = three\n",
    ],
)
def test_one_of_the_same_version_or_of_none_changes_nothing(tmp_path: Path, record: str):
    """Phases make it of PATH's Python: a set is found again after them."""
    assert found(tmp_path, record) == {}


def test_where_no_name_tells_the_version_of_paths_python_nothing_changes(tmp_path: Path):
    """Whether an environment is of it cannot be told."""
    assert found(tmp_path, NEWER, program="python3") == {}


@given(st.binary(max_size=300))
def test_no_record_leads_anywhere_else(content: bytes):
    """It comes with the project."""
    version, program = python_interpreter._recorded(content)
    assert bool(version) == bool(program)
    assert program == "" or program.startswith("/")
    assert "\n" not in program


def project(required: str, **more: str) -> Found:
    text = f'[project]\nname = "p"\nrequires-python = "{required}"\n'
    files = {"pyproject.toml": text, **more}
    return Found("pip", "", {name: content.encode() for name, content in files.items()})


@pytest.mark.parametrize(
    ("required", "said"),
    [(">=3.11", False), (">=3.11.4", False), (">=3.12", True), ("<3.11", True), ("odd", False)],
)
def test_that_the_interpreter_is_none_that_the_project_wants_is_said(
    tmp_path: Path, required: str, said: bool
):
    """With the version that phases have."""
    problem = python_interpreter.unfit(project(required), settings(tmp_path))
    assert bool(problem) == said
    if problem is not None:
        assert "Python 3.11" in problem.why


def test_uv_finds_one_by_itself(tmp_path: Path):
    """A lock of uv's: nothing is said of PATH's."""
    one = project(">=3.12", **{"uv.lock": "version = 1\n"})
    assert python_interpreter.unfit(one, settings(tmp_path)) is None


@pytest.mark.parametrize("text", ["[project", "project = 1", "[project]\nrequires-python = 3\n"])
def test_a_project_that_says_nothing_of_it_has_no_problem(tmp_path: Path, text: str):
    """Whatever it says instead."""
    one = Found("pip", "", {"pyproject.toml": text.encode()})
    assert python_interpreter.unfit(one, settings(tmp_path)) is None


def test_uv_and_pip_ask_the_same_question():
    """So that it is asked once for a run."""
    files = {"pyproject.toml": b"a", ".python-version": b"3.12", "uv.lock": b"b"}
    pip = Found("pip", "", {**files, "requirements.txt": b"c"})
    uv = Found("uv", "", files)
    assert python_interpreter.uv_question(pip) == python_interpreter.uv_question(uv)
