"""What the tests of the sandbox share."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    """A folder that any uid may enter and write."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    space = tmp_path / "space"
    space.mkdir()
    space.chmod(0o777)
    return str(space)
