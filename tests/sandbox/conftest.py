"""What the tests of the sandbox share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def workspace(open_tmp_path: Path) -> str:
    """A folder that any uid may enter and write."""
    space = open_tmp_path / "space"
    space.mkdir()
    space.chmod(0o777)
    return str(space)
