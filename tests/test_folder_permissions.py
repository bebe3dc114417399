"""Letting other users into a test's folder."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from support.folder_permissions import allow_traversal

BASES = ["chosen", "chosen/popen-gw1", "pytest-of-me/pytest-7", "pytest-of-me/pytest-7/popen-gw0"]


@pytest.mark.parametrize("base", BASES)
def test_only_folders_that_pytest_made_are_opened(tmp_path: Path, base: str):
    """With the base in a folder that all share, as /dev/shm, that one keeps its sticky bit;
    the rest can be entered.
    """
    shared = tmp_path / "shm"
    folder = shared / base / "test_it0"
    folder.mkdir(parents=True)
    shared.chmod(0o1777)
    way = [folder, *(above for above in folder.parents if shared in above.parents)]
    for made in way:
        made.chmod(0o700)
    allow_traversal(folder, shared / base)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(made.stat().st_mode) for made in way} == {0o755}
