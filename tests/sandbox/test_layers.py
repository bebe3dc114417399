"""Claims about reading a layer, and removing it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import changes as layer_changes
from cleanroom.sandbox.filesystem import layers, tree_removal


def whiteout(path: Path | bytes) -> None:
    """Mark as deleted what the project has under this name, as the kernel does."""
    try:
        os.mknod(path, stat.S_IFCHR)
    except PermissionError:
        pytest.skip("may not make whiteouts")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "kept").mkdir(parents=True)
    (root / "kept/old").write_text("old\n")
    return root


@pytest.fixture
def upper(tmp_path: Path, project: Path) -> Path:
    layers.make(tmp_path / "layer", project)
    return tmp_path / "layer/upper"


def kinds(upper: Path, project: Path, visible: tuple[str, ...] = ()) -> dict[str, str]:
    with Folder.at(upper) as layer, Folder.at(project) as root:
        return {
            entry.path: entry.kind for entry in layer_changes.find_changes(layer, root, visible)
        }


def test_a_folder_that_was_only_copied_up_is_no_change(upper, project):
    """An overlay copies the parents of a changed file: they are not changes of their own."""
    (upper / "kept").mkdir()

    assert kinds(upper, project) == {}


def test_links_that_lead_out_fifos_and_sockets_are_refused(upper, project):
    """What could make the host read, write or wait elsewhere never comes out;
    a link inside the project does.
    """
    os.symlink("/etc/passwd", upper / "out")
    os.symlink("../../outside", upper / "up")
    os.symlink("kept/old", upper / "inside")
    os.symlink("/usr/bin/env", upper / "trusted")
    os.mkfifo(upper / "fifo")

    found = kinds(upper, project, ("/usr",))

    assert found == {
        "fifo": "refused",
        "inside": "symlink",
        "out": "refused",
        "trusted": "symlink",
        "up": "refused",
    }


def test_hostile_modes_do_not_stop_removal(tmp_path):
    """Folders without any permission, as overlayfs and attackers leave them, are removed."""
    deep = tmp_path / "layer/work/work"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    os.chmod(deep, 0)
    os.chmod(deep.parent, 0)

    tree_removal.remove_tree(tmp_path / "layer")

    assert not (tmp_path / "layer").exists()


def test_nesting_deeper_than_a_path_can_name_is_removed(tmp_path):
    """Three thousand folders in one another, which no path reaches and no recursion survives,
    are removed.
    """
    (tmp_path / "layer").mkdir()
    inner = os.open(tmp_path / "layer", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=inner)
        deeper = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = deeper
    os.close(inner)

    tree_removal.remove_tree(tmp_path / "layer")

    assert not (tmp_path / "layer").exists()


def test_what_an_opaque_folder_hides_is_deleted_at_every_depth(upper, project):
    """A folder that was made anew in a folder that was made anew shows nothing of the old one
    either.
    """
    (project / "kept/in").mkdir()
    (project / "kept/in/older").write_text("")
    (upper / "kept/in").mkdir(parents=True)
    os.setxattr(upper / "kept", layers.OPAQUE, b"y")

    assert kinds(upper, project) == {"kept/old": "deleted", "kept/in/older": "deleted"}


def test_a_deletion_of_what_is_gone_is_no_change(upper, project):
    """Somebody else removed it as well."""
    whiteout(upper / "gone")

    assert kinds(upper, project) == {}


def test_a_folder_s_mode_is_a_change(upper, project):
    """A folder of the project that was chmod'ed is told, as a file that was."""
    (upper / "kept").mkdir()
    (upper / "kept").chmod(0o700)

    assert kinds(upper, project) == {"kept": "directory"}


def test_what_its_owner_may_not_enter_is_read_and_stays_closed(upper, project):
    """A folder without rights, and one without the right to be listed,
    hide nothing from their owner.
    """
    for name, mode in (("none", 0), ("unlisted", 0o300)):
        (upper / name).mkdir()
        (upper / name / "file").write_text("")
        os.setxattr(upper / name, layers.OPAQUE, b"y")
        (upper / name).chmod(mode)

    found = kinds(upper, project)

    assert found == {
        "none": "directory",
        "none/file": "file",
        "unlisted": "directory",
        "unlisted/file": "file",
    }
    modes = [stat.S_IMODE((upper / name).stat().st_mode) for name in ("none", "unlisted")]
    for name in ("none", "unlisted"):
        (upper / name).chmod(0o700)
    assert modes == [0, 0o300]


def test_names_that_are_no_text_are_refused_and_named(upper, project):
    """A file, a folder with what is in it, and a deletion, by bytes that are not UTF-8."""
    raw = os.fsencode(upper)
    os.mkdir(raw + b"/folder\xff")
    os.close(os.open(raw + b"/folder\xff/in", os.O_CREAT))
    os.close(os.open(raw + b"/file\xfe", os.O_CREAT))
    os.close(os.open(os.fsencode(project) + b"/gone\xfd", os.O_CREAT))
    whiteout(raw + b"/gone\xfd")

    assert kinds(upper, project) == {
        "folder\ufffd": "refused",
        "file\ufffd": "refused",
        "gone\ufffd": "refused",
    }


def test_nesting_deeper_than_any_build_is_refused_and_named(upper, project):
    """Three thousand folders in one another end no run: one note says where they stop coming
    back.
    """
    at = os.open(upper, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)

    with Folder.at(upper) as layer, Folder.at(project) as root:
        found = layer_changes.find_changes(layer, root)

    tree_removal.remove_tree(upper)
    assert [entry.reason for entry in found if entry.kind == "refused"] == [
        "nested deeper than 200 folders"
    ]


def test_a_name_that_parts_from_the_others_of_its_file_is_told_with_one(upper, project):
    """Of two names of one file the layer has one with another content:
    the other one stays as it was.
    """
    os.link(project / "kept/old", project / "other")
    (upper / "other").write_text("more than before")

    with Folder.at(upper) as layer, Folder.at(project) as root:
        (entry,) = layer_changes.find_changes(layer, root)

    assert (entry.path, entry.former_link) == ("other", "kept/old")


def test_names_that_change_together_do_not_part(upper, project):
    """Both names are in the layer, or one is and the other is deleted: nothing is told."""
    os.link(project / "kept/old", project / "other")
    (upper / "other").write_text("more than before")
    (upper / "kept").mkdir()
    whiteout(upper / "kept/old")

    with Folder.at(upper) as layer, Folder.at(project) as root:
        assert [entry.former_link for entry in layer_changes.find_changes(layer, root)] == ["", ""]
