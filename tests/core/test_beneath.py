"""What is reached below a folder that is held open, and what never is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.beneath import Folder, make_folders, open_beneath, open_given

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


# --- what root makes in another user's folder

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
THEIRS = (54321, 54322)  # a user and a group that nobody has


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, *THEIRS)
    return folder


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


@ROOT
def test_what_root_makes_becomes_the_owners_of_the_folder_around(theirs: Path) -> None:
    """Folders, files that are added to and files that are written at once; only where asked."""
    with Folder.at(theirs, inherit_owner=True) as top, top.folder("a/b", make=True) as inner:
        os.close(inner.open_own("log", os.O_WRONLY | os.O_CREAT))
        os.close(inner.open("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    made = [theirs / name for name in ("a", "a/b", "a/b/log", "a/b/new")]
    assert {owner(path) for path in made} == {THEIRS}
    with Folder.at(theirs) as top, top.folder("c", make=True) as inner:
        os.close(inner.open_own("log", os.O_WRONLY | os.O_CREAT))
    assert {owner(theirs / name) for name in ("c", "c/log")} == {(0, 0)}


@ROOT
def test_what_was_there_stays_whose_it_is(theirs: Path) -> None:
    """A file and a folder of root's that a run did not make are given to nobody."""
    (theirs / "kept").mkdir()
    (theirs / "kept" / "log").write_text("root's")
    (theirs / "log").write_text("root's")
    (theirs / "link").symlink_to("nowhere")
    with Folder.at(theirs, inherit_owner=True) as top, top.folder("kept", make=True) as kept:
        for folder in (top, kept):
            os.close(folder.open_own("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        with pytest.raises(OSError, match="symbolic link"):
            top.open_own("link", os.O_WRONLY | os.O_CREAT)
    there = [theirs / name for name in ("kept", "kept/log", "log", "link")]
    assert {owner(path) for path in there} == {(0, 0)}
    assert not (theirs / "nowhere").exists()


@ROOT
def test_a_folder_that_took_the_place_of_the_new_one_is_not_given(theirs: Path) -> None:
    """The owner may rename in his folder between our making it and our opening it."""
    (theirs / "new").mkdir()
    (theirs / "new" / "secret").write_text("root's")
    (theirs / "led").symlink_to(theirs / "new")
    with Folder.at(theirs) as top:
        os.close(open_given(top.descriptor, "new"))
        with pytest.raises(OSError, match=r"Not a directory|symbolic link"):
            open_given(top.descriptor, "led")
    assert owner(theirs / "new") == owner(theirs / "new" / "secret") == (0, 0)


def test_an_ordinary_user_makes_what_is_his_own(tmp_path: Path) -> None:
    """And root in a folder of root's."""
    with Folder.at(tmp_path, inherit_owner=True) as top, top.folder("a", make=True) as inner:
        os.close(inner.open_own("log", os.O_WRONLY | os.O_CREAT))
    assert {owner(tmp_path / name)[0] for name in ("a", "a/log")} == {os.geteuid()}
