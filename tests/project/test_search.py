"""The project around a folder: where the search upwards ends, and whose files it believes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.project.search import search

MAKE = '[lifecycle.test]\ncommand = "true"\n'
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def project(folder: Path, below: str = "src/deep") -> Path:
    """A folder below a project."""
    (folder / below).mkdir(parents=True)
    (folder / "make.toml").write_text(MAKE)
    return folder / below


def test_search_finds_the_nearest_project_upwards(tmp_path: Path) -> None:
    """The nearest make.toml counts, and the folder's own before all."""
    below = project(tmp_path)
    assert search(below, "").file == tmp_path / "make.toml"

    (tmp_path / "src" / "make.toml").write_text(MAKE)
    assert search(below, "").file == tmp_path / "src" / "make.toml"
    assert search(tmp_path, "").file == tmp_path / "make.toml"


def test_search_takes_a_pyproject_with_phases_only(tmp_path: Path) -> None:
    """A pyproject.toml without [tool.cleanroom] is passed by."""
    below = tmp_path / "package" / "tests"
    below.mkdir(parents=True)
    (tmp_path / "package" / "pyproject.toml").write_text("[tool.ruff]\n# no cleanroom here\n")
    (tmp_path / "pyproject.toml").write_text("[tool.cleanroom.lifecycle.test]\ncommand = 'true'\n")

    assert search(below, "").file == tmp_path / "pyproject.toml"


@pytest.mark.parametrize("is_folder", [True, False], ids=["repository", "worktree"])
def test_search_ends_at_the_top_of_a_repository(tmp_path: Path, is_folder: bool) -> None:
    """What lies above a repository is not its project; at its top it is."""
    below = project(tmp_path)
    git = tmp_path / "src" / ".git"
    if is_folder:
        git.mkdir()
    else:
        git.write_text("gitdir: elsewhere\n")
    assert search(below, "").file is None

    (tmp_path / "src" / "make.toml").write_text(MAKE)
    assert search(below, "").file == tmp_path / "src" / "make.toml"


def test_search_ends_below_the_home_folder(tmp_path: Path) -> None:
    """A make.toml of the home folder takes no folder below it in, and neither does one above."""
    below = project(tmp_path)

    assert search(below, str(tmp_path)).file is None
    assert search(below, str(tmp_path / "src")).file is None
    assert search(tmp_path, str(tmp_path)).file == tmp_path / "make.toml"


def test_search_stays_where_runs_are_recorded(tmp_path: Path) -> None:
    """A folder with records of its own is meant itself, although its make.toml is gone."""
    below = project(tmp_path)
    (below / ".ggen" / "cleanroom").mkdir(parents=True)

    assert search(below, "").file is None


@ROOT_ONLY
@pytest.mark.parametrize("given", ["file", "folder", "link"])
def test_search_believes_no_other_user(tmp_path: Path, given: str) -> None:
    """A file, a link or a folder of another user ends the search, and is named."""
    below = project(tmp_path / "all")
    file = tmp_path / "all" / "make.toml"
    if given == "link":
        file.rename(tmp_path / "real.toml")
        file.symlink_to(tmp_path / "real.toml")
    os.chown(file.parent if given == "folder" else file, 12345, 12345, follow_symlinks=False)

    assert search(below, "") == (None, file)


@ROOT_ONLY
def test_search_believes_the_owner_of_the_folder(tmp_path: Path) -> None:
    """Root in a folder of somebody's project finds that project."""
    below = project(tmp_path / "all")
    for path in (below, tmp_path / "all", tmp_path / "all" / "make.toml"):
        os.chown(path, 12345, 12345)

    assert search(below, "").file == tmp_path / "all" / "make.toml"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_search_ends_below_a_folder_that_everybody_changes(tmp_path: Path, mode: int) -> None:
    """Where anybody can put a file, such as in /tmp, is nobody's project."""
    below = project(tmp_path)
    tmp_path.chmod(mode)

    assert search(below, "") == (None, None)
