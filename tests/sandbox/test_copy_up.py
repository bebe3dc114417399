"""A folder that is made anew in its place: the same afterwards, and after a failure at any step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cleanroom.sandbox.filesystem import copy_up


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what may be lost on the way."""
    made = tmp_path / "parent/pkg"
    (made / "sub/deep").mkdir(parents=True)
    (made / "a").write_text("1")
    (made / "sub/b").write_text("2")
    os.link(made / "a", made / "sub/deep/c")
    (made / "l").symlink_to("a")
    os.mkfifo(made / "fifo")
    (made / "sub").chmod(0o555)
    for number, path in enumerate(("sub/deep", "sub", "a", "", "..")):
        os.utime(made / path, ns=(number, 1_000_000_007 + number))
    yield made
    for path in ("sub", "."):
        (made / path).chmod(0o755)


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """Each path with kind and mode, time, names, and content or target."""
    found = {}
    for path in (top, *top.rglob("*")):
        info = path.lstat()
        content: object = sorted(os.listdir(path)) if path.is_dir() else info.st_ino
        found[str(path)] = (info.st_mode, info.st_mtime_ns, content)
    return found


def outcome(folder: Path) -> str:
    try:
        copy_up.own_folder(str(folder))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def kept_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are taken for those that overlayfs does not move in one step."""
    monkeypatch.setattr(copy_up, "_is_kept", lambda name, source, target: True)


def test_the_folder_is_another_one_and_looks_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Modes, times with nanoseconds, links and hard links; and its parent's time."""
    kept_as_they_come(monkeypatch)
    before, number = tree(folder.parent), folder.stat().st_ino

    copy_up.own_folder(str(folder))

    assert tree(folder.parent) == before
    assert folder.stat().st_ino != number


def test_after_a_failure_at_any_step_everything_is_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk is full at the first rename, then at the second, and so on."""
    kept_as_they_come(monkeypatch)
    before, rename = tree(folder.parent), os.rename

    for failing in range(1, 100):
        calls = iter(range(1, 1000))

        def full(*words: object, failing: int = failing, calls=calls, **at: object) -> None:
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rename(*words, **at)  # type: ignore[arg-type]

        monkeypatch.setattr(copy_up.os, "rename", full)
        done = outcome(folder)
        assert tree(folder.parent) == before, failing
        if done == "ok":
            break
        assert done == "ENOSPC"
    assert failing > 5


@pytest.mark.parametrize(
    ("limit", "value", "error"), [("ENTRIES_MAX", 3, "EFBIG"), ("DEPTH_MAX", 0, "ENAMETOOLONG")]
)
def test_a_folder_beyond_the_limits_is_not_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, error: str
):
    """The kernel answers the call then."""
    before, number = tree(folder.parent), folder.stat().st_ino
    monkeypatch.setattr(copy_up, limit, value)

    assert outcome(folder) == error
    assert (tree(folder.parent), folder.stat().st_ino) == (before, number)


def test_a_link_in_place_of_the_folder_is_not_followed(folder: Path):
    """Somebody put it there after the call was looked at."""
    (folder.parent / "link").symlink_to("pkg")
    before = tree(folder.parent)

    assert outcome(folder.parent / "link") == "ENOTDIR"
    assert tree(folder.parent) == before


def test_names_of_another_file_are_not_joined(tmp_path: Path):
    """Somebody replaced one of them after the call was looked at."""
    for name in "abc":
        (tmp_path / name).write_text(name)
    (tmp_path / "c").unlink()
    os.link(tmp_path / "a", tmp_path / "c")

    copy_up.join_names([str(tmp_path / name) for name in "abc"])

    assert (tmp_path / "b").read_text() == "b"
    assert (tmp_path / "a").samefile(tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
