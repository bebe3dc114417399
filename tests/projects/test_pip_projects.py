"""Projects that pip installs, as strangers write them, through the real command and registry."""

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

MAKE = """
[project]
name = "p"
[lifecycle.init]
command = "python3 -m venv .venv && .venv/bin/pip install {words}"
[lifecycle.test]
command = ".venv/bin/python -c 'import iniconfig'"
"""
# iniconfig 2.0.0 of the public index
HASHED = """iniconfig==2.0.0 \\
    --hash=sha256:2d91e135bf72d31a410b17c16da610a82cb55f6b0477d1a902134b24a455b8b3 \\
    --hash=sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374
"""
PROJECT = """
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"
[project]
name = "p"
version = "1"
description = "p"
dependencies = ["iniconfig"]
"""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"requirements.txt": HASHED}, "-r requirements.txt"),
        ({"requirements.txt": "-r base.txt\n", "base.txt": "iniconfig\n"}, "-r requirements.txt"),
        ({"pyproject.toml": PROJECT, "p.py": ""}, "-e ."),
    ],
    ids=["hashes", "no hashes", "pyproject"],
)
def test_a_phase_installs_with_pip_and_without_a_network(
    tmp_path: Path, cache: Path, files: dict[str, str], words: str
):
    """With hashes, without, and from pyproject.toml with its build system."""
    project = {**files, "make.toml": MAKE.format(words=words)}
    Stranger(tmp_path, project, cache).passes(("init", "test"))
