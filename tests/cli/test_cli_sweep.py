"""`sweep` says what it removed, what it left and until when."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cleanroom.backends.run_folders import claim
from cleanroom.cli.app import execute
from support.open_folders import open_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's cache folder, on a machine without groups or container engines of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEANROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cleanroom.backends.cleanup._groups", lambda folders: iter(()))
    monkeypatch.setattr("cleanroom.backends.containers.cleanup.SOCKETS", {})
    return tmp_path / "cache"


def test_what_is_too_young_to_be_told_is_not_called_a_run_under_way(
    cache: Path, capsys: pytest.CaptureFixture[str]
):
    """Nobody has claimed it: it is left for now, and said until when."""
    (cache / "runs/young").mkdir(parents=True)

    assert execute(["sweep"]) == 0

    said = capsys.readouterr().out
    assert "under way" not in said
    assert "nothing was left behind" not in said
    assert re.search(
        rf"^left for now folder {cache}/runs/young: .*; a sweep takes it in \d+ s$",
        said,
        re.MULTILINE,
    )


def test_a_run_under_way_is_counted_and_nothing_else_said(
    cache: Path, capsys: pytest.CaptureFixture[str]
):
    """Its folder is claimed by a process that lives."""
    os.close(claim(open_folder(cache / "runs/living")))

    assert execute(["sweep", "--output", "json"]) == 0

    said = json.loads(capsys.readouterr().out)
    lists = ("runs", "removed", "left", "waiting", "expired")
    empty: dict[str, object] = {key: [] for key in lists}
    assert said == {**empty, "living": 1, "audit_records": 0, "dry_run": False}


def test_a_dry_run_is_of_old_records_only(cache: Path, capsys: pytest.CaptureFixture[str]):
    """Without --older there is nothing that it could say."""
    assert execute(["sweep", "--dry-run"]) == 2
    assert "add --older" in capsys.readouterr().err
