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
