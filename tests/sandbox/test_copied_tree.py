"""Workspaces that are copies: what is copied, and which changes two looks tell apart."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import copied_tree
from cleanroom.sandbox.filesystem.changes import Entry
from cleanroom.sandbox.filesystem.trees import Tree


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "deep/er").mkdir(parents=True)
    (root / "deep/er/file").write_text("text")
    (root / "program").write_text("#!/bin/sh\n")
    (root / "program").chmod(0o755)
    (root / "link").symlink_to("deep/er/file")
    (root / "hidden").mkdir()
    (root / "hidden/secret").write_text("not to be seen")
    os.utime(root / "program", ns=(1_000_000_001, 2_000_000_002))
    return root


def copied(project: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    place.mkdir()
    assert copied_tree.copy(project, place, masked=("hidden",)) == []
    return place


def look(place: Path) -> copied_tree.Snapshot:
    with Folder.at(place) as held:
        return copied_tree.snapshot(held, ("hidden",))


def changes(place: Path, project: Path, before: copied_tree.Snapshot) -> list[Entry]:
    with Folder.at(place) as held, Folder.at(project) as root:
        return copied_tree.find_changes(held, root, before, look(place), ())


def test_a_copy_is_what_the_project_was_without_what_is_masked(project: Path, tmp_path: Path):
    """Content, modes, times and links; a masked folder is there and empty;
    nothing is shared with the original.
    """
    place = copied(project, tmp_path)
    assert (place / "deep/er/file").read_text() == "text"
    assert stat.S_IMODE((place / "program").stat().st_mode) == 0o755
    assert (place / "program").stat().st_mtime_ns == 2_000_000_002
    assert os.readlink(place / "link") == "deep/er/file"
    assert list((place / "hidden").iterdir()) == []
    (place / "deep/er/file").write_text("other")
    assert (project / "deep/er/file").read_text() == "text"


def test_what_cannot_be_a_file_is_left_out_and_what_cannot_be_read_is_named(
    project: Path, tmp_path: Path
):
    """A FIFO does not hang the copy; an unreadable file is told where there are file modes (root
    reads everything).
    """
    os.mkfifo(project / "pipe")
    (project / "closed").write_text("x")
    (project / "closed").chmod(0)
    place = tmp_path / "copy"
    place.mkdir()
    assert copied_tree.copy(project, place) == ([] if os.geteuid() == 0 else ["closed"])
    assert not (place / "pipe").exists()


def test_every_kind_of_change_is_told_and_nothing_else(project: Path, tmp_path: Path):
    """New, written, chmod'ed, replaced under its name, deleted, a folder become a file;
    not what was only read.
    """
    place = copied(project, tmp_path)
    for name in ("same", "mode", "text", "gone", "swap"):
        (project / name).write_text(name)
        (place / name).write_text(name)
    (project / "folder/in").mkdir(parents=True)
    (place / "folder/in").mkdir(parents=True)
    before = look(place)
    (place / "same").read_text()
    (place / "mode").chmod(0o600)
    (place / "text").write_text("TEXT")
    os.utime(place / "text", ns=(1, 1))
    (place / "gone").unlink()
    (place / "other").write_text("swap")
    (place / "other").rename(place / "swap")
    (place / "new").mkdir()
    (place / "new/file").write_text("")
    (place / "folder/in").rmdir()
    (place / "folder").rmdir()
    (place / "folder").write_text("a file now")
    (place / "out").symlink_to("/etc/shadow")
    (place / "hidden/left").write_text("")
    found = changes(place, project, before)
    assert [(entry.path, entry.kind) for entry in found] == [
        ("folder", "file"),
        ("gone", "deleted"),
        ("mode", "file"),
        ("new", "directory"),
        ("new/file", "file"),
        ("out", "refused"),
        ("swap", "file"),
        ("text", "file"),
    ]


def test_names_of_one_file_are_names_of_one_file_in_the_copy(project: Path, tmp_path: Path):
    """What is written by one name is read by the other, and both are told as changed."""
    os.link(project / "program", project / "deep/twin")
    place = copied(project, tmp_path)
    before = look(place)
    with open(place / "program", "a") as file:
        file.write("more")
    assert (place / "deep/twin").read_text() == "#!/bin/sh\nmore"
    assert [entry.path for entry in changes(place, project, before)] == ["deep/twin", "program"]


def test_the_mode_of_a_folder_is_a_change_and_its_time_is_none(project: Path, tmp_path: Path):
    """A folder in which something was made is told by that alone."""
    place = copied(project, tmp_path)
    before = look(place)
    (place / "deep/new").write_text("")
    (place / "deep/er").chmod(0o700)
    found = [(entry.path, entry.kind) for entry in changes(place, project, before)]
    assert found == [("deep/er", "directory"), ("deep/new", "file")]


def test_a_link_that_takes_a_folder_s_place_is_not_copied_through(tmp_path: Path):
    """Whoever swaps a folder of a project under a copy of root's has nothing of what it leads
    to.
    """
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("the host's own")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "copy").mkdir()
    with (
        Folder.at(tmp_path / "project") as held,
        Tree(held.descriptor, 0) as tree,
        pytest.raises(NotADirectoryError),
    ):
        tree.entries("folder")
    assert copied_tree.copy(tmp_path / "project", tmp_path / "copy") == []
    assert (tmp_path / "copy/folder").is_symlink()
