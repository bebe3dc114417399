"""A project for the lower tiers."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents):  # an environment of root's runs as somebody else
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    root = tmp_path / "project"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("as it was\n")
    (root / "old").write_text("to be deleted\n")
    return root
