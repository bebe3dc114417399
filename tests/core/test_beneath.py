"""What is reached below a folder that is held open, and what never is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder, make_folders, open_beneath

REFUSED = r"Not a directory|symbolic link|leads out"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("theirs")
    top = tmp_path / "top"
    (top / "inner" / "deep").mkdir(parents=True)
    (top / "inner" / "file").write_text("ours")
    (top / "link").symlink_to("inner")
    (top / "inner" / "link").symlink_to("file")
    (top / "out").symlink_to("../outside")
    return top


def test_a_file_below_is_opened(top: Path) -> None:
    """A path without links leads to its file, whatever dots and slashes are in it."""
    with Folder.at(top) as folder, os.fdopen(folder.open("./inner//file", os.O_RDONLY)) as file:
        assert file.read() == "ours"


@pytest.mark.parametrize(
    "path",
    [
        "link/file",
        "inner/link",
        "out/file",
        "link",
        "../outside/file",
        "inner/../../outside/file",
        "/etc/passwd",
    ],
)
def test_no_link_and_no_way_out_is_taken(top: Path, path: str) -> None:
    """A component that is a link, a step up and an absolute path are refused,
    where they lead inside too.
    """
    with Folder.at(top) as folder, pytest.raises(OSError, match=REFUSED):
        os.close(folder.open(path, os.O_RDONLY))


@pytest.mark.parametrize(
    "path", ["link/new", "out/new", "../new", "inner/link/new", "inner/file/new"]
)
def test_no_folder_is_made_elsewhere(top: Path, path: str) -> None:
    """Making folders goes through no link, up no step and into no file."""
    before = sorted(str(found) for found in top.parent.rglob("*"))
    with Folder.at(top) as folder, pytest.raises(OSError, match=REFUSED):
        folder.folder(path, make=True)
    assert sorted(str(found) for found in top.parent.rglob("*")) == before


def test_a_folder_that_is_moved_stays_the_same(top: Path) -> None:
    """What is written after a folder was renamed, and a link put in its place,
    is in the folder that was opened.
    """
    with Folder.at(top / "inner") as folder:
        (top / "inner").rename(top / "moved")
        (top / "inner").symlink_to("../outside")
        os.close(folder.open("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    assert (top / "moved" / "new").exists()
    assert not (top.parent / "outside" / "new").exists()


@given(
    st.lists(
        st.sampled_from(
            ["inner", "deep", "link", "out", "..", ".", "", "file", "new", "outside", "/"]
        ),
        max_size=6,
    ).map("/".join)
)
def test_whatever_the_path_nothing_outside_is_reached(
    tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    """For any path of such pieces, a folder that could be held lies below the top."""
    base = tmp_path_factory.mktemp("any")
    (base / "outside").mkdir()
    (base / "top" / "inner" / "deep").mkdir(parents=True)
    (base / "top" / "link").symlink_to("inner")
    (base / "top" / "out").symlink_to("../outside")
    with Folder.at(base / "top") as folder:
        try:
            descriptor = make_folders(folder.descriptor, path)
        except OSError:
            return
    try:
        reached = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    finally:
        os.close(descriptor)
    assert reached == base / "top" or (base / "top") in reached.parents


def test_no_descriptor_is_left(top: Path) -> None:
    """Success and every refusal close what was opened on the way."""
    with Folder.at(top) as folder:
        before = set(os.listdir("/proc/self/fd"))
        for path in ("inner/file", "inner/deep", "link/file", "inner/nothing/x", "../x"):
            try:
                os.close(open_beneath(folder.descriptor, path, os.O_RDONLY))
                os.close(make_folders(folder.descriptor, path))
            except OSError:
                continue
        assert set(os.listdir("/proc/self/fd")) == before
