"""The user's cache: who may change it, or a step on the way to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cleanroom import engine as door
from cleanroom.core import private_cache
from cleanroom.core.private_cache import open_cache
from cleanroom.engine import Engine, Options
from cleanroom.model.errors import ArtifactError

SOMEBODY = 54321


def refused(cache: Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as found:
        open_cache(cache)
    return found.value


def owned_by(path: Path, user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it belong to this user: for real where we may, else as the system would show it."""
    if os.geteuid() == 0:
        os.chown(path, user, user, follow_symlinks=False)
        return
    known = os.lstat

    def shown(step: str) -> os.stat_result:
        found = known(step)
        if os.fspath(step) != str(path):
            return found
        values = list(found)
        values[stat.ST_UID] = user
        return os.stat_result(values)

    monkeypatch.setattr(private_cache.os, "lstat", shown)


def test_a_cache_that_is_not_there_is_made_for_this_user_alone(tmp_path: Path):
    """So is each step to it."""
    open_cache(tmp_path / "a/b/cache").close()
    assert [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/cache")
    ] == [0o700] * 3


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711])
def test_an_ordinary_folder_of_one_s_own_is_fine(tmp_path: Path, mode: int):
    """Others may read it and may not write to it; what is in it is closed to them by itself."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    open_cache(tmp_path / "cache").close()


def test_a_cache_in_a_sticky_folder_is_fine(tmp_path: Path):
    """In /tmp everybody's folders are their own."""
    tmp_path.chmod(0o1777)
    open_cache(tmp_path / "cache").close()


@pytest.mark.parametrize("inner", ["", *private_cache.OWN[1:], *private_cache.FURTHER])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, inner: str, mode: int):
    """The cache or one of ours in it, sticky or not: the error names it and what helps."""
    folder = tmp_path / "cache" / inner
    folder.mkdir(parents=True)
    folder.chmod(mode)
    error = refused(tmp_path / "cache")
    assert error.code == "CR-CACHE-001"
    assert str(error).startswith(f"{folder}: ")
    assert "others can write to" in str(error)
    assert "CLEANROOM_CACHE" in error.hint


def test_a_folder_that_a_group_can_write_to_is_refused_unless_it_is_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Distributions give each user a group in which nobody else is."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o770)
    monkeypatch.setattr(private_cache, "_alone_in", lambda group: True)
    open_cache(tmp_path / "cache").close()
    monkeypatch.undo()
    if os.geteuid() == 0:
        os.chown(tmp_path / "cache", 0, SOMEBODY)
        assert "others can write to" in str(refused(tmp_path / "cache"))


@pytest.mark.parametrize("inner", ["", "runs", "services", "home-caches"])
def test_a_link_or_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, inner: str):
    """Wherever it leads."""
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "cache" / inner
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tmp_path / "elsewhere")
    assert "found a link" in str(refused(tmp_path / "cache"))
    folder.unlink()
    folder.touch()
    assert "found a file" in str(refused(tmp_path / "cache"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("inner", ["", "runs"])
def test_another_s_folder_is_refused(tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch):
    """Root with another's cache is refused too: its owner could change it at any moment."""
    folder = tmp_path / "cache" / inner
    folder.mkdir(parents=True)
    owned_by(folder, SOMEBODY, monkeypatch)
    assert f"user {SOMEBODY}" in str(refused(tmp_path / "cache"))


def test_a_step_on_the_way_that_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder that everybody writes to, another's folder, and another's link;
    nothing is made behind it.
    """
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "others can write to" in str(refused(tmp_path / "open/cache"))
    (tmp_path / "theirs").mkdir()
    owned_by(tmp_path / "theirs", SOMEBODY, monkeypatch)
    assert f"a folder of user {SOMEBODY}" in str(refused(tmp_path / "theirs/cache"))
    monkeypatch.undo()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    owned_by(tmp_path / "link", SOMEBODY, monkeypatch)
    assert f"a link of user {SOMEBODY}" in str(refused(tmp_path / "link/cache"))
    assert [
        *(tmp_path / "open").iterdir(),
        *(tmp_path / "theirs").iterdir(),
        *(tmp_path / "target").iterdir(),
    ] == []


def test_a_link_of_one_s_own_on_the_way_is_followed(tmp_path: Path):
    """A home on another disk; a link that leads round is an error and no hang."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to("disk")
    open_cache(tmp_path / "home/cache").close()
    assert (tmp_path / "disk/cache").is_dir()
    (tmp_path / "round").symlink_to("round")
    assert refused(tmp_path / "round/cache").code == "CR-CACHE-001"


async def test_a_run_sweep_and_server_refuse_such_a_cache(tmp_path: Path):
    """Before anything runs, and nothing is written in it."""
    (tmp_path / "make.toml").write_text('[lifecycle.test]\ncommand = "true"\n')
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    caller = {"PATH": os.environ["PATH"], "CLEANROOM_CACHE": str(cache)}
    with pytest.raises(ArtifactError) as found:
        await Engine(tmp_path, caller, Options(backend="memory")).pipeline("test")
    assert found.value.code == "CR-CACHE-001"
    with pytest.raises(ArtifactError):
        door.sweep(tmp_path, caller=caller)
    assert list(cache.iterdir()) == []
    assert not (tmp_path / ".ggen").exists()
