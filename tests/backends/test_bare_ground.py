"""The folders that environments without namespaces have on the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.backends.bare import Ground
from cleanroom.backends.base import Mount


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    made = Ground(tmp_path / "large", tmp_path / "short", os.geteuid())
    made.prepare()
    return made


def shown(folder: Path, name: str) -> Mount:
    """A folder of a service with one file that has its name."""
    (folder / name).mkdir()
    (folder / name / name).write_text(name)
    return Mount(source=str(folder / name), target=f"/run/{name}", writable=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's environments have copies")
def test_what_is_given_back_takes_no_other_folder_along(ground: Ground, tmp_path: Path):
    """In whatever order services come and go: a copy that is used is never another one's."""
    (tmp_path / "template").mkdir()
    template = Mount(source=str(tmp_path / "template"), target="/data", writable=True)
    ground.real(template)
    kept = ground.real(shown(tmp_path, "kept"))
    ground.give_back(template)
    later = ground.real(shown(tmp_path, "later"))
    assert (list(kept.iterdir()), list(later.iterdir())) == ([kept / "kept"], [later / "later"])
