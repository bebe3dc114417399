"""Phases in containers find what was fetched, as on the machine itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.backends.containers.client import EngineName
from support.container_harness import ENGINES, labelled, require

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.timeout(300)]

# One manager whose folder is read-only and whose tools are the image's Python, one whose cache is
# copy-on-write and needs no tool.
MAKE = """
[project]
name = "p"
[cleanroom]
image = "cleanroom/base"
[lifecycle.init]
command = "python3 -m zipfile -e $PIP_FIND_LINKS/iniconfig-2.0.0-py3-none-any.whl lib"
[lifecycle.test]
commands = [
  "PYTHONPATH=lib python3 -c 'import iniconfig'",
  "test -d $npm_config_cache/_cacache/content-v2/sha512/e3",
  "touch $npm_config_cache/own",
]
"""
HASHED = """iniconfig==2.0.0 \\
    --hash=sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374
"""
LOCK = {
    "name": "p",
    "lockfileVersion": 3,
    "packages": {
        "": {"dependencies": {"is-number": "^7.0.0"}},
        "node_modules/is-number": {
            "version": "7.0.0",
            "integrity": "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9"
            "cGvNp6NZWZUBlbGXYxxng==",
        },
    },
}


@pytest.mark.parametrize("engine", ENGINES)
def test_phases_in_containers_have_the_fetched_files_without_a_network(
    engine: EngineName, tmp_path: Path
):
    """From an empty store, then offline; nothing is left, and nothing was written to the store."""
    require(engine)
    project, cache = tmp_path / "p", tmp_path / "cache"
    project.mkdir()
    (project / "make.toml").write_text(MAKE)
    (project / "requirements.txt").write_text(HASHED)
    (project / "package-lock.json").write_text(json.dumps(LOCK))
    for further in ((), ("--offline",)):
        words = ("pipeline", "init", "test", "--backend", engine, "--output", "json", *further)
        ended = subprocess.run(
            [sys.executable, "-m", "cleanroom", *words],
            cwd=project,
            env={**os.environ, "CLEANROOM_CACHE": str(cache), "npm_config_cache": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        result = json.loads(ended.stdout)
        assert result["ledger"]["left"] == []
        assert labelled(engine, result["run_id"]) == []
    assert list((cache / "dependencies" / "views").glob("npm-*/own")) == []
