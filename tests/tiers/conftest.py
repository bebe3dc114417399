"""A project for the lower tiers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def project(open_tmp_path: Path) -> Path:
    # An environment of root's runs as somebody else.
    root = open_tmp_path / "project"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("as it was\n")
    (root / "old").write_text("to be deleted\n")
    return root
