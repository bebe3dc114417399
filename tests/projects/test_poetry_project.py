"""A project whose phases call poetry itself, with the versions of it that are known to work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.strangers import Stranger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]
# The cache of these differs.
VERSIONS = ("1.8.5", "2.5.1")


@pytest.fixture(scope="session", params=VERSIONS)
def poetry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the command `poetry`, and nothing else of its environment."""
    version: str = request.param
    place = tmp_path_factory.mktemp(f"poetry-{version}")
    subprocess.run([sys.executable, "-m", "venv", place / "own"], check=True, timeout=120)
    install = [place / "own/bin/pip", "install", "--quiet", f"poetry=={version}"]
    subprocess.run(install, check=True, timeout=300)
    (place / "bin").mkdir()
    (place / "bin/poetry").symlink_to(place / "own/bin/poetry")
    return place / "bin"


def test_poetry_installs_what_its_lock_names(tmp_path: Path, cache: Path, poetry: Path):
    """A wheel, an archive that has to be built, a group, and what builds the project itself."""
    stranger = Stranger(tmp_path, "poetry-install", cache)
    stranger.offer_all(poetry)
    cold, *_ = stranger.passes(("init", "build", "test"))
    names = {one["artifact"]["name"] for found in cold.sets for one in found["files"]}
    assert {"docopt", "iniconfig", "poetry-core", "setuptools"} <= names
    assert "has no network" not in stranger.call("plan").stdout
