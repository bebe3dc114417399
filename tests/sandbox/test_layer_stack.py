"""Which layer of an overlay a path comes from, by folders as overlayfs leaves them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cleanroom.sandbox.filesystem.layer_stack import LayerStack
from cleanroom.sandbox.filesystem.layers import OPAQUE


class Layers:
    """Three of them: an upper one, that of an earlier phase, and the project."""

    def __init__(self, base: Path) -> None:
        self.upper, self.middle, self.project = (base / name for name in "012")
        folders = (self.upper, self.middle, self.project)
        for folder in folders:
            folder.mkdir()
        self.stack = LayerStack("/home/p", [str(folder) for folder in folders])


@pytest.fixture
def layers(tmp_path: Path):
    made = Layers(tmp_path)
    yield made
    made.stack.close()


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR, 0)
    except PermissionError:
        pytest.skip("whiteouts may not be made here")


def opaque(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        os.setxattr(folder, OPAQUE, b"y")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")


def test_a_folder_of_the_project_is_merged_and_a_new_one_is_not(layers: Layers):
    """A rename is answered with EXDEV for the first only."""
    fill(layers.project, "pkg/a")
    fill(layers.upper, "pkg/b", "new/c")

    assert layers.stack.is_merged("pkg")
    assert not layers.stack.is_merged("new")


@pytest.mark.parametrize("where", ["pkg", "pkg/sub"])
def test_an_opaque_folder_has_no_part_below(layers: Layers, where: str):
    """Neither it nor what lies in it is merged with what it hides."""
    fill(layers.project, "pkg/sub/a")
    fill(layers.upper, "pkg/sub/b")
    opaque(layers.upper / where)

    assert not layers.stack.is_merged("pkg/sub")


def test_what_an_earlier_phase_removed_or_replaced_is_not_merged(layers: Layers):
    """A whiteout and a file hide a folder of the project."""
    fill(layers.project, "gone/a", "file/a")
    fill(layers.middle, "file")
    whiteout(layers.middle / "gone")

    assert not layers.stack.is_merged("gone")
    assert not layers.stack.is_merged("file")


def test_other_names_are_those_that_are_still_seen(layers: Layers):
    """A name that a layer above removed, or gave another file, is none."""
    fill(layers.project, "a", "d/x")
    for name in ("b", "c", "d/e"):
        os.link(layers.project / "a", layers.project / name)
    whiteout(layers.middle / "b")
    fill(layers.upper, "c")

    assert layers.stack.other_names("a") == ["d/e"]
    assert layers.stack.other_names("c") == []
    assert [sorted(names) for names in layers.stack.linked_below("d")] == [["a", "d/e"]]


def test_a_link_in_a_hostile_layer_leads_nowhere(layers: Layers, tmp_path: Path):
    """A phase that puts a link in place of a folder does not have the engine look behind it."""
    fill(tmp_path / "outside", "pkg/a")
    os.link(tmp_path / "outside/pkg/a", tmp_path / "outside/pkg/b")
    (layers.middle / "way").symlink_to(tmp_path / "outside")
    fill(layers.project, "way/pkg/a")

    assert not layers.stack.is_merged("way/pkg")
    assert layers.stack.other_names("way/pkg/a") == []
    assert layers.stack.linked_below("way") == []
