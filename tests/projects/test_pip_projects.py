"""Projects that pip installs, beside those of `test_kinds_of_projects.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.strangers import Stranger, uv_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

FILES_INSTALL = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
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


FILES_HOST = "https://files.pythonhosted.org/packages"
WHEEL = (
    f"{FILES_HOST}/56/43/4ca9e49d27a1fcf6bece6f6aec0ea46bb9112489b93d4b688fb415457bdb/"
    "iniconfig-2.3.1-py3-none-any.whl"
)
DIGEST = "9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7"
DIRECT = f"""[project]
name = "p"
version = "0"
dependencies = ["iniconfig @ {WHEEL}"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.metadata]
allow-direct-references = true
[tool.hatch.build.targets.wheel]
include = ["p.py"]
"""


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("requirements.txt", f"iniconfig @ {WHEEL}\n", "-r requirements.txt"),
        (
            "requirements.txt",
            f"iniconfig @ {WHEEL} --hash=sha256:{DIGEST}\n",
            "-r requirements.txt",
        ),
        ("requirements.txt", f"iniconfig @ {WHEEL}#sha256={DIGEST}\n", "-r requirements.txt"),
        ("pyproject.toml", DIRECT, "."),
    ],
)
def test_a_wheel_of_an_address_is_installed(
    tmp_path: Path, cache: Path, name: str, text: str, what: str
):
    """By the digest that the project has of it, else pinned on first use."""
    install = f"python3 -m venv .venv && .venv/bin/pip install {what}"
    files = {
        **FILES,
        name: text,
        "p.py": "",
        "make.toml": FILES["make.toml"].replace(FILES_INSTALL, install),
    }
    if name != "requirements.txt":
        del files["requirements.txt"], files["needs/base.txt"], files["constraints.txt"]
    cold, *_ = Stranger(tmp_path, files, cache).passes(("init", "test"), anew=(".venv",))
    (found,) = cold.sets
    (wheel,) = (one for one in found["files"] if one["artifact"]["name"] == "iniconfig")
    assert (wheel["artifact"]["url"], wheel["sha256"]) == (WHEEL, DIGEST)
    assert bool(found.get("unpinned")) is (DIGEST not in text)
    assert found["problems"] == []


def other_python() -> Path:
    """One of another version than that which PATH leads to."""
    ours = f"python3.{sys.version_info.minor}"
    places = (Path("/usr/bin"), Path("/usr/local/bin"), *Path.home().glob(".pyenv/versions/*/bin"))
    found = (program for place in places for program in place.glob("python3.1[0-9]"))
    for one in sorted(found):
        if one.name != ours and subprocess.run([one, "-c", "import venv"]).returncode == 0:
            return one
    pytest.skip("there is no second Python on this machine")


def test_an_environment_of_another_python_gets_its_own_wheels(tmp_path: Path, cache: Path):
    """The caller has made it; PATH's python3 is another one."""
    python = other_python()
    locked = subprocess.run(
        [
            *(str(uv_program()), "pip", "compile", "--quiet", "--generate-hashes", "--no-header"),
            *("--python-version", python.name.removeprefix("python"), "-"),
        ],
        input="markupsafe==3.0.2\n",
        capture_output=True,
        text=True,
        check=True,
    )
    files = {
        "requirements.txt": locked.stdout,
        ".gitignore": ".venv/\n",
        "make.toml": """[project]
name = "p"
[lifecycle.init]
command = ".venv/bin/pip install --force-reinstall --require-hashes -r requirements.txt"
[lifecycle.test]
command = ".venv/bin/python -c 'import markupsafe._speedups'"
""",
    }
    stranger = Stranger(tmp_path, files, cache)
    stranger.prepare(f"{python} -m venv .venv")
    (found,) = stranger.passes(("init", "test"))[0].sets
    (wheel,) = (one["artifact"]["file"] for one in found["files"])
    assert f"-cp{python.name.removeprefix('python').replace('.', '')}-" in wheel
