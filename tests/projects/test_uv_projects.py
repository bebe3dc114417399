"""Projects of uv's, beside that of `test_kinds_of_projects.py`."""

from __future__ import annotations

import shutil
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

FILES_HOST = "https://files.pythonhosted.org/packages"
PROJECT = """[project]
name = "p"
version = "0"
requires-python = ">=3.11"
dependencies = [{needs}]
"""
OWN = """
[[package]]
name = "p"
version = "0"
source = {{ virtual = "." }}
dependencies = [{needs}]
"""
DOCOPT = f"""version = 1
revision = 1
requires-python = ">=3.11"

[[package]]
name = "docopt"
version = "0.6.2"
source = {{ registry = "https://pypi.org/simple" }}
sdist = {{ url = "{FILES_HOST}/a2/55/8f8cab2afd404cf578136ef2cc5dfb50baa1761b68c9da1fb1e4eed343c9/\
docopt-0.6.2.tar.gz", hash = "sha256:\
49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8d08c85c491", size = 25901 }}
"""
PHASES = """[project]
name = "p"
[lifecycle.init]
command = "uv sync --frozen"
[lifecycle.test]
command = ".venv/bin/python -c 'import {module}'"
"""


def uv() -> Path:
    """The one that the tests' own environment has, else that of PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    return Path(found) if found else pytest.skip("uv is not installed")


def project(folder: Path, cache: Path, lock: str, name: str, module: str) -> Stranger:
    """One that depends on one package of a lock."""
    own = OWN.format(needs=f'{{ name = "{name}" }}')
    files = {
        "pyproject.toml": PROJECT.format(needs=f'"{name}"'),
        "uv.lock": lock + own,
        "make.toml": PHASES.format(module=module),
        ".gitignore": ".venv/\n",
    }
    stranger = Stranger(folder, files, cache)
    stranger.offer(uv())
    return stranger


def test_a_locked_package_without_a_wheel_is_built_in_the_phase(tmp_path: Path, cache: Path):
    """Its source is fetched with what builds it, and no phase has a network."""
    stranger = project(tmp_path, cache, DOCOPT, "docopt", "docopt")
    cold, *_ = stranger.passes(("init", "test"), anew=(".venv",))
    files = {
        one["manager"]: {each["artifact"]["name"] for each in one["files"]} for one in cold.sets
    }
    assert files["uv"] == {"docopt"}
    assert files["pip"] >= {"setuptools", "wheel"}
    assert [one["problems"] for one in cold.sets] == [[], []]


WHEEL = (
    f"{FILES_HOST}/56/43/4ca9e49d27a1fcf6bece6f6aec0ea46bb9112489b93d4b688fb415457bdb/"
    "iniconfig-2.3.1-py3-none-any.whl"
)
WHEEL_DIGEST = "sha256:9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7"
SOURCE = (
    f"{FILES_HOST}/a2/55/8f8cab2afd404cf578136ef2cc5dfb50baa1761b68c9da1fb1e4eed343c9/"
    "docopt-0.6.2.tar.gz"
)


def test_locked_packages_of_addresses_are_installed(tmp_path: Path, cache: Path):
    """A wheel, and a source archive, each from the address that stands in the project."""
    files = {
        "pyproject.toml": PROJECT.format(needs=f'"iniconfig @ {WHEEL}", "docopt @ {SOURCE}"'),
        "make.toml": PHASES.format(module="docopt, iniconfig").replace(" --frozen", ""),
        ".gitignore": ".venv/\n",
    }
    stranger = Stranger(tmp_path, files, cache)
    stranger.offer(uv())
    stranger.prepare(f"{uv()} lock --quiet")
    assert WHEEL_DIGEST in (stranger.root / "uv.lock").read_text()
    cold, *_ = stranger.passes(("init", "test"), anew=(".venv",))
    assert [one["problems"] for one in cold.sets] == [[], []]
    (found,) = (one["files"] for one in cold.sets if one["manager"] == "uv")
    assert {each["artifact"]["url"] for each in found} == {WHEEL, SOURCE}
