"""Folders of links to client programs."""

from __future__ import annotations

from pathlib import Path

from cleanroom.services.clients import link_clients


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
