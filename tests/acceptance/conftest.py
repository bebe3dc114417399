"""A project for each test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from acceptance_bench import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    return Project(tmp_path)
