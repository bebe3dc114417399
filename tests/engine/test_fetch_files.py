"""Files that a tool of the fetch step starts with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.engine.fetch.session import _write_files


@pytest.mark.parametrize("name", ["../x", "a/../../x", "//x/../../y"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str):
    """Names come from a project's files."""
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(OSError, match=r".+"):
        _write_files(folder, {name: b"x"})
    assert [one.name for one in tmp_path.iterdir()] == ["work"]


def test_folders_are_made(tmp_path: Path):
    """Those that a name has."""
    _write_files(tmp_path, {"a/b/c": b"x", "d": b"y"})
    assert (tmp_path / "a/b/c").read_bytes() + (tmp_path / "d").read_bytes() == b"xy"
