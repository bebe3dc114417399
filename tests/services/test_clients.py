"""Folders of links to client programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.services.clients import COPY_CLIENTS, link_clients


def test_equal_programs_share_a_folder_and_others_have_their_own(tmp_path: Path):
    """It holds the links and nothing is left beside it."""
    one = link_clients(tmp_path, {"psql": "/pg/18/psql"})
    assert link_clients(tmp_path, {"psql": "/pg/18/psql"}) == one
    other = link_clients(tmp_path, {"psql": "/pg/15/psql"})
    assert str(Path(other, "psql").readlink()) == "/pg/15/psql"
    assert {str(path) for path in tmp_path.iterdir()} == {one, other}


def test_without_programs_or_room_there_is_no_folder(tmp_path: Path):
    """A phase then has what its PATH has."""
    (tmp_path / "file").touch()
    assert link_clients(tmp_path, {}) == ""
    assert link_clients(tmp_path / "file", {"psql": "/pg/18/psql"}) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="images are Linux's")
def test_copied_clients_bring_all_that_they_load(tmp_path: Path):
    """They run by their own loader; what is not there, or is no program, is passed over."""
    server, made = tmp_path / "bin", tmp_path / "made"
    server.mkdir()
    for name in ("postgres", "psql"):
        shutil.copy("/usr/bin/env", server / name)
    (server / "vacuumdb").write_text("#!/bin/sh\n")
    (server / "vacuumdb").chmod(0o755)
    script = f'{COPY_CLIENTS}copy_clients "$@"'
    names = ("psql", "pg_dump", "vacuumdb")
    asked = ["sh", "-c", script, "sh", made, made, server / "postgres", *names]
    subprocess.run(asked, check=True)
    shutil.rmtree(server)

    assert {path.name for path in made.iterdir()} == {".files", "psql"}
    assert {path.name for path in (made / ".files").iterdir()} > {"psql", "libc.so.6"}
    said = subprocess.run([made / "psql", "echo", "a b"], capture_output=True, check=True)
    assert said.stdout == b"a b\n"
