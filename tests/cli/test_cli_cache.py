"""`cache` says what runs share, and makes room in the store of packages."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from cleanroom.cli.app import execute
from cleanroom.dependencies.eviction import StoreUse
from cleanroom.dependencies.model import Artifact, Fetched
from cleanroom.dependencies.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's cache folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEANROOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> Store:
    """A store with one set, used ten minutes ago."""
    cache.mkdir(mode=0o700)
    store = Store(cache)
    (store.path / "source").write_text("package")
    artifact = Artifact(name="a", version="1", file="a.tgz", url="https://registry.example/a.tgz")
    files = (store.add(artifact, store.path / "source"),)
    store.save("npm-1", Fetched(manager="npm", folder="", name="l", files=files))
    used = time.time() - 600
    os.utime(store.path / "sets/npm-1.json", (used, used))
    return store


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert execute([*words, "--output", "json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_an_empty_cache_is_shown_and_made_by_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    """Neither showing nor pruning writes a file."""
    for words in (("cache", "show"), ("cache", "prune")):
        assert said(capsys, *words)["sets"] == 0
    assert not folder.exists()


def test_packages_are_counted_and_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    """With the size of each folder."""
    kept(folder)
    assert execute(["cache", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(folder)
    assert "packages: 1 lock, 1 file" in lines
    assert any(line.split()[:1] == ["dependencies"] for line in lines)


def test_showing_removes_no_set_that_cannot_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    """Pruning does, and goes on where a view names sets in bytes that are no text."""
    store = kept(folder)
    broken = store.path / "sets" / "npm-2.json"
    broken.write_bytes(b"{")
    (store.path / "views" / "one").mkdir()
    store.layout("one").write_bytes(b"\xff" + b"x" * 300)
    assert said(capsys, "cache", "show")["sets"] == 1
    assert broken.exists()
    assert said(capsys, "cache", "prune")["sets"] == 1
    assert not broken.exists()
    assert not (store.path / "views" / "one").exists()


@pytest.mark.parametrize(
    ("limits", "stays"),
    [((), 1), (("--unused", "1h"), 1), (("--unused", "5m"), 0), (("--keep", "0"), 0)],
)
def test_pruning_keeps_within_the_limits_that_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], limits: tuple[str, ...], stays: int
):
    """Without one: those of runs. What was freed is said."""
    kept(folder)
    found = said(capsys, "cache", "prune", *limits)
    assert (found["sets"], found["files"]) == (stays, stays)
    assert bool(found["freed_bytes"]) is not bool(stays)


def test_what_a_run_under_way_uses_is_not_pruned(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Whatever the limits."""
    use = StoreUse(kept(folder))
    use.add("npm-1")
    assert said(capsys, "cache", "prune", "--keep", "0")["files"] == 1
    use.close()
    assert said(capsys, "cache", "prune", "--keep", "0")["files"] == 0
