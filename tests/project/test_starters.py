"""What `init` writes for each kind of project."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cleanroom.model.errors import ProjectError
from cleanroom.project import load
from cleanroom.project.init import write_make_toml
from support.golden_files import golden
from support.project_builder import NO_FLOOR, trace
from support.stranger_projects import STRANGERS, lay_out


@pytest.mark.parametrize("name", STRANGERS)
def test_each_kind_of_project_gets_its_phases(tmp_path: Path, name: str):
    """The golden file has all that was written; it loads, and nothing in it is without effect."""
    root = lay_out(tmp_path / "project", STRANGERS[name])
    written = write_make_toml(root)
    files = [path for path in (written.path, *written.others) if path.name == "make.toml"]
    text = "\n".join(f"# == {file.relative_to(root)}\n{file.read_text()}" for file in files)
    assert text.encode() == golden(f"init/{name}.toml", text.encode())
    plan = load(root, caller={}, floor=NO_FLOOR)
    assert not plan.ignored
    each = len(plan.workspaces)
    assert trace(plan) == list(written.phases) * each
    assert load(root, written.phases, caller={}, floor=NO_FLOOR).workspaces


def test_what_needs_no_packages_passes_as_it_stands(tmp_path: Path):
    """Every command succeeds where there is an interpreter and nothing else."""
    root = lay_out(tmp_path / "project", STRANGERS["python-files"])
    write_make_toml(root)
    for phase in load(root, caller={}, floor=NO_FLOOR).phases:
        for command in phase.commands:
            done = subprocess.run(["sh", "-c", command], cwd=root, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stderr)


def test_the_folder_names_a_project_without_metadata(tmp_path: Path):
    """There is always a name."""
    root = lay_out(tmp_path / "shop front", STRANGERS["make"])
    write_make_toml(root)
    assert load(root, caller={}, floor=NO_FLOOR).project == "shop front"


def test_a_folder_that_has_a_make_toml_keeps_it(tmp_path: Path):
    """In a project of several folders only the missing files are written."""
    mine = '[lifecycle.init]\ncommand = "true"\n'
    root = lay_out(tmp_path / "project", {**STRANGERS["monorepo"], "frontend/make.toml": mine})
    written = write_make_toml(root)
    assert (root / "frontend/make.toml").read_text() == mine
    assert root / "frontend/make.toml" not in written.others


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": "[" * 9999, "index.js": ""},
        {"pyproject.toml": "= broken", "requirements.txt": "\x00"},
        {"pyproject.toml": "[project]\nname = 7\ndependencies = 1\n[dependency-groups]\ndev = 1\n"},
        {"package.json": '{"name": 1, "scripts": [], "engines": [], "main": {}}'},
        {"Cargo.toml": 'package = "x"\n'},
        {"go.mod": "module\n", "go.work": "use (\n"},
        {"pom.xml": "<"},
        {"Makefile": ":\n"},
        {"pyproject.toml": '[project]\nname = "a\\nb\\u0007\\"]"\n'},
        {"go.work": "use ./a;rm\nuse ./$(x)\n"},
        {"package.json": '{"main": "index.js; rm -rf ."}', "index.js; rm -rf .": ""},
    ],
)
def test_malformed_files_give_a_file_that_loads(tmp_path: Path, files: dict[str, str]):
    """Whatever the files say, what is written is a make.toml, and no word of them is a command."""
    root = lay_out(tmp_path, files)
    write_make_toml(root)
    plan = load(root, caller={}, floor=NO_FLOOR)
    assert plan.phases
    assert not any("rm" in command for phase in plan.phases for command in phase.commands)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ".ggen/\n"),
        ("", ".ggen/\n"),
        ("dist", "dist\n.ggen/\n"),
        ("dist\n", "dist\n.ggen/\n"),
        ("/.ggen\n", "/.ggen\n"),
        (".ggen/\ndist\n", ".ggen/\ndist\n"),
    ],
)
def test_git_ignores_what_the_engine_writes(tmp_path: Path, before: str | None, after: str):
    """`.ggen/` is added once, on a line of its own."""
    if before is not None:
        (tmp_path / ".gitignore").write_text(before)
    written = write_make_toml(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == after
    assert written.ignored == (".ggen/" if before != after else "")


def test_phases_in_pyproject_are_not_hidden(tmp_path: Path):
    """A make.toml would go before them, so none is written."""
    lay_out(tmp_path, {"pyproject.toml": "[tool.cleanroom.lifecycle.test]\ncommand = 'x'\n"})
    with pytest.raises(ProjectError, match=r"\[tool.cleanroom\] of pyproject.toml") as caught:
        write_make_toml(tmp_path)
    assert caught.value.code == "CR-INIT-001"
    assert not (tmp_path / "make.toml").exists()


def test_a_compose_file_is_named_where_nobody_asked_for_it(tmp_path: Path):
    """The file that was written has the command that takes its services over."""
    write_make_toml(lay_out(tmp_path, {"app.py": "", "docker-compose.yml": ""}))
    assert "init --from docker-compose.yml" in (tmp_path / "make.toml").read_text()


def test_a_gitignore_that_is_a_link_is_left_alone(tmp_path: Path):
    """Nothing outside of the project is written to, and the make.toml is there all the same."""
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").write_text("x\n")
    (tmp_path / "project/.gitignore").symlink_to(tmp_path / "elsewhere")
    written = write_make_toml(tmp_path / "project")
    assert (tmp_path / "elsewhere").read_text() == "x\n"
    assert written.others == ()


SCRIPTED = """[build-system]
requires = ["hatchling"]
[project]
name = "p"
dependencies = ["pytest"]
"""
TESTED = {"tests/test_a.py": "def test_a():\n    pass\n"}
DJANGO = {
    "manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n',
    "requirements.txt": "django\npytest-django\npsycopg\n",
    "shop/tests.py": "from django.test import TestCase\n",
}


def in_make_toml(root: Path, files: dict[str, str]) -> dict[str, Any]:
    write_make_toml(lay_out(root, files))
    return tomllib.loads((root / "make.toml").read_text())


@pytest.mark.parametrize(
    ("further", "path"), [("", False), ('[project.scripts]\np = "p:main"\n', True)]
)
def test_tests_find_the_scripts_of_their_own_project(tmp_path: Path, further: str, path: bool):
    """By name, as in an activated environment."""
    made = in_make_toml(tmp_path / "p", {**TESTED, "pyproject.toml": SCRIPTED + further})
    before = 'PATH="$PWD/.venv/bin:$PATH" ' if path else ""
    expected = [f"{before}.venv/bin/python -m pytest -q"]
    assert made["lifecycle"]["test"]["commands"] == expected


@pytest.mark.parametrize(
    ("further", "command", "variables"),
    [
        ({}, "manage.py test", {}),
        ({"pytest.ini": "[pytest]\nDJANGO_SETTINGS_MODULE = shop.settings\n"}, "-m pytest -q", {}),
        (
            {"shop/test_a.py": "import pytest\n"},
            "-m pytest -q",
            {"DJANGO_SETTINGS_MODULE": "shop.settings"},
        ),
    ],
)
def test_pytest_gets_the_settings_of_django_or_manage_py_runs_the_tests(
    tmp_path: Path, further: dict[str, str], command: str, variables: dict[str, str]
):
    made = in_make_toml(tmp_path / "p", {**DJANGO, **further})
    assert made["lifecycle"]["test"]["commands"] == [f".venv/bin/python {command}"]
    assert made["cleanroom"].get("variables", {}) == variables


POSTGRES = 'DATABASE_URL = "postgres://shop@localhost/shop"\n'


@pytest.mark.parametrize(
    ("files", "containers", "services"),
    [
        (
            {**DJANGO, "shop/settings.py": POSTGRES},
            ["postgres"],
            None,
        ),
        (
            {**TESTED, "requirements.txt": "asyncpg\npytest\n", "app/config.py": POSTGRES},
            ["postgres"],
            None,
        ),
        ({**DJANGO, "shop/settings.py": 'ENGINE = "django.db.backends.sqlite3"\n'}, None, None),
        ({**DJANGO, "shop/settings.py": "", "shop/settings/prod.py": POSTGRES}, None, None),
        (
            {**DJANGO, "requirements.txt": "django\n", "shop/settings.py": POSTGRES},
            None,
            None,
        ),
    ],
)
def test_postgresql_is_there_for_tests_that_evidently_need_it(
    tmp_path: Path, files: dict[str, str], containers: list[str] | None, services: object
):
    """A driver is declared and the settings name it, and no SQLite."""
    made = in_make_toml(tmp_path / "p", {k: v for k, v in files.items() if v})
    assert made["lifecycle"]["test"].get("cleanroom", {}).get("containers") == containers
    assert made["cleanroom"].get("services") == services
    assert load(tmp_path / "p", caller={}, floor=NO_FLOOR).phases


REDIS = 'import os\nBROKER = os.environ["REDIS_URL"]\n'
FIXTURES = "def shop(cleanroom_postgres, cleanroom_redis): ...\n"


@pytest.mark.parametrize(
    ("files", "containers"),
    [
        ({"requirements.txt": "celery[redis]\npytest\n", "shop/tasks.py": REDIS}, ["redis"]),
        ({"requirements.txt": "redis\npytest\n", "shop/tasks.py": "import redis\n"}, None),
        ({"requirements.txt": "redis\nfakeredis\npytest\n", "shop/tasks.py": REDIS}, None),
        ({"requirements.txt": "pytest\n", "shop/tasks.py": REDIS}, None),
        ({"requirements.txt": "pytest\n", "tests/conftest.py": FIXTURES}, ["postgres", "redis"]),
    ],
)
def test_redis_is_there_for_tests_that_evidently_need_it(
    tmp_path: Path, files: dict[str, str], containers: list[str] | None
):
    """A client is declared and its variable is read; what our own fixtures give is there too."""
    made = in_make_toml(tmp_path / "p", {**TESTED, **files})
    assert made["lifecycle"]["test"].get("cleanroom", {}).get("containers") == containers
    assert load(tmp_path / "p", caller={}, floor=NO_FLOOR).phases
