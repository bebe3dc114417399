"""tox and nox: what their files say that they install, read without running anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies import discovery, python_runners
from cleanroom.dependencies.model import Found
from cleanroom.dependencies.pip import Pip
from cleanroom.dependencies.python_runners import Environment, environments
from cleanroom.dependencies.settings import Settings

MANAGER = Pip(Settings({}, Path("/nonexistent")))


def texts(name: str, text: str) -> set[tuple[str, str]]:
    """Requirements on one line, and the version that they are for."""
    found = environments(name, text.encode())
    return {(" ".join(one.requirements.split("\n")).strip(), one.python) for one in found}


def test_each_environment_of_a_tox_ini_gets_its_own():
    text = """
[tox]
envlist = lint
[testenv]
deps =
    pytest>=8  # the runner
    -r requirements/test.txt
[testenv:lint]
deps = ruff
[testenv:docs]
description = without deps of its own
"""
    assert texts("tox.ini", text) == {
        ("pytest>=8  # the runner -r requirements/test.txt", ""),
        ("ruff", ""),
    }


def test_lines_with_factors_are_those_of_the_environments_that_have_them():
    text = """
[tox]
env_list =
    py{310,311}-django{4,5}
[testenv]
deps =
    django4: Django>=4,<5
    django5: Django>=5,<6
    py310,!django4: tomli
    pytest
"""
    assert texts("tox.ini", text) == {
        ("tomli pytest", ""),
        ("Django>=4,<5 tomli pytest", "3.10"),
        ("Django>=5,<6 tomli pytest", "3.10"),
        ("Django>=4,<5 pytest", "3.11"),
        ("Django>=5,<6 tomli pytest", "3.11"),
    }


def test_references_and_the_folder_are_followed():
    text = """
[base]
deps = click
[testenv]
deps =
    {[base]deps}
    -r {toxinidir}/requirements.txt
[testenv:cov]
deps =
    {[testenv]deps}
    coverage
[testenv:itself]
deps = {[testenv:itself]deps}
"""
    assert texts("tox.ini", text) == {
        ("click -r requirements.txt", ""),
        ("click -r requirements.txt coverage", ""),
    }


def test_what_tox_wants_beside_itself_is_an_environment():
    assert ("tox>=4 tox-uv tox", "") in texts("tox.ini", "[tox]\nrequires =\n  tox>=4\n  tox-uv\n")


def test_what_only_tox_computes_is_named():
    (one,) = environments("tox.ini", b"[testenv]\ndeps = django=={env:DJANGO:5}\n")
    assert one.requirements == ""
    assert [each.entry for each in one.problems] == ["django=={env:DJANGO:5}"]


@pytest.mark.parametrize("name", ["tox.toml", "pyproject.toml"])
def test_the_tables_of_tox_are_read(name: str):
    before = "" if name == "tox.toml" else "tool.tox."
    text = f"""
{before}env_list = ["3.11", "lint"]
[{before}env_run_base]
deps = ["pytest"]
[{before}env.lint]
deps = [{{ replace = "ref", of = ["env_run_base", "deps"] }}, "ruff"]
"""
    assert texts(name, text) == {("pytest", ""), ("pytest", "3.11"), ("pytest ruff", "")}


def test_an_ini_within_a_pyproject_is_read():
    text = "[tool.tox]\nlegacy_tox_ini = '''\n[testenv]\ndeps = pytest\n'''\n"
    assert texts("pyproject.toml", text) == {("pytest", "")}


def test_a_session_of_nox_installs_what_it_has_written_out():
    text = """
import nox
TOOLS = ["coverage", "pytest-cov"]

@nox.session(python=["3.11"])
def tests(session):
    session.install("-e", ".[test]", "pytest>=8", "-r", "requirements/x y.txt")
    session.install(*TOOLS, "--quiet")
    session.install(*nox.project.dependency_groups(nox.project.load_toml(), "dev"))

@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff")
    session.run("ruff", "check")
    session.install(f"mypy=={VERSION}")
"""
    tests, lint = environments("noxfile.py", text.encode())
    assert tests == Environment("pytest>=8\n-r 'requirements/x y.txt'\ncoverage\npytest-cov\n")
    assert lint.requirements == "ruff\n"
    assert [one.entry for one in lint.problems] == ["f'mypy=={VERSION}'"]


def test_a_set_has_the_files_that_they_name_and_only_packages_of_an_index(tmp_path: Path):
    (tmp_path / "tox.ini").write_text(
        "[testenv]\ndeps =\n  -r tests/needs.txt\n  .[x]\n  x @ git+ssh://h.example/x\n"
        "[testenv:py39]\ndeps = mock<5; sys_platform == 'linux'\n"
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "needs.txt").write_text("pytest\n")
    with discovery.opened(tmp_path) as root:
        found = MANAGER.find(discovery.ProjectFolder(root, ""))
    assert found is not None
    assert set(found.files) == {"tox.ini", "tests/needs.txt"}
    lock = MANAGER.read(found)
    assert lock.unpinned == (
        "mock<5 ; (sys_platform == 'linux') and python_version == '3.9'",
        "pytest",
    )
    assert [one.why for one in lock.problems] == [
        "only a wheel or a git address over https is fetched"
    ]


@given(st.sampled_from((*python_runners.FILES, "pyproject.toml")), st.binary(max_size=300))
def test_any_file_is_read(name: str, content: bytes):
    environments(name, content)


@given(st.text(alphabet="{}[]testnvdp:,-!=\n 0123", max_size=200))
def test_any_deps_and_names_are_read(text: str):
    ini = f"[tox]\nenvlist = {text}\n[testenv]\ndeps =\n {text}\n[testenv:{text}]\ndeps = x\n"
    found = MANAGER
    for one in environments("tox.ini", ini.encode(errors="replace")):
        assert "\0" not in one.requirements
    found.read(Found("pip", "", {"tox.ini": ini.encode()}))


def test_names_that_multiply_are_cut():
    braces = "{a,b,c,d,e,f,g,h}" * 12
    found = environments("tox.ini", f"[tox]\nenvlist = {braces}\n[testenv]\ndeps=x".encode())
    assert len(found) <= 256
