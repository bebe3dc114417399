"""A project for the lower tiers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def project(open_tmp_path: Path) -> Path:
    # An environment of root's runs as somebody else.
    root = open_tmp_path / "project"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("as it was\n")
    (root / "old").write_text("to be deleted\n")
    return root
