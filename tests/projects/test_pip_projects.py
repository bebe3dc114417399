"""Projects that pip installs, beside those of `test_kinds_of_projects.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.strangers import Stranger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

FILES = {
    "requirements.txt": "-r needs/base.txt\n-c constraints.txt\n",
    "needs/base.txt": "iniconfig\n",
    "constraints.txt": "iniconfig<2.1\n",
    ".gitignore": ".venv/\n",
    "make.toml": """[project]
name = "p"
[lifecycle.init]
command = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
[lifecycle.test]
command = ".venv/bin/python -c 'import iniconfig'"
""",
}


def test_requirements_that_name_other_files_are_installed(tmp_path: Path, cache: Path):
    """Without digests: pinned on first use, within the constraints."""
    cold, *_ = Stranger(tmp_path, FILES, cache).passes(("init", "test"))
    (found,) = cold.sets
    assert [one["artifact"]["version"] for one in found["files"]] == ["2.0.0"]


PACKAGE = {
    "pyproject.toml": """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "halves"
version = "1.0"
dependencies = ["iniconfig"]
""",
    "halves/__init__.py": "def half(number):\n    return number / 2\n",
    "tests/test_halves.py": """import iniconfig
from halves import half


def test_half():
    assert half(4) == 2
""",
    ".gitignore": ".venv/\n.tox/\n.nox/\ndist/\n__pycache__/\n",
}
TOX = """[tox]
envlist = py39, py{310,311,312}, lint
[testenv]
package = editable
deps =
    -r needs.in
    py: pytest-randomly
commands = pytest --cov=halves {posargs:tests}
[testenv:py39]
deps = numpy==1.19.3
[testenv:lint]
skip_install = true
deps = {[testenv]deps}
    ruff
commands = ruff check halves
"""
NOX = """import nox

TOOLS = ["pytest", "pytest-cov"]


@nox.session
def tests(session):
    session.install("-e", ".", *TOOLS)
    session.run("pytest", "--cov=halves")


@nox.session
def lint(session):
    session.install("ruff")
    session.run("ruff", "check", "halves")
"""


@pytest.mark.parametrize(
    ("runner", "files"),
    [
        ("tox", {"tox.ini": TOX, "needs.in": "pytest>=8\npytest-cov\n"}),
        ("nox", {"noxfile.py": NOX}),
    ],
)
def test_what_tox_and_nox_install_is_fetched(
    tmp_path: Path, cache: Path, runner: str, files: dict[str, str]
):
    """With the phases that `init` writes; nothing but their own files names their packages."""
    own = {**PACKAGE, **files, "requirements-dev.txt": f"{runner}\n"}
    cold, *_ = Stranger(tmp_path, own, cache).passes(("init", "test"))
    names = {one["artifact"]["name"] for found in cold.sets for one in found["files"]}
    assert {"pytest", "pytest-cov", "hatchling", "ruff"} <= names
    assert "numpy" not in names
