"""Where lock files are looked for, and where not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.dependencies.discovery import (
    ALL_MAX,
    DEPTH_MAX,
    FILE_MAX,
    ProjectFolder,
    folders,
    opened,
)
from cleanroom.model.errors import ProjectError


def searched(root: Path, *workspaces: str) -> list[str]:
    with opened(root) as held:
        return [folder.path for folder in folders(held, workspaces)]


def test_folders_of_people_are_searched_and_those_of_tools_are_not(tmp_path: Path):
    """Packages of others, builds, tests and hidden folders hold lock files of somebody else."""
    for name in ("api", "web", "node_modules", ".git", "target", "tests", "vendor"):
        (tmp_path / name).mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "own/pyvenv.cfg").touch()
    assert searched(tmp_path) == ["", "api", "web"]


def test_the_search_ends_a_few_levels_down_but_reaches_workspaces(tmp_path: Path):
    """A declared workspace is looked at however deep it lies."""
    deep = "a/b/c/d/e"
    (tmp_path / deep).mkdir(parents=True)
    assert searched(tmp_path) == ["", "a", "a/b", "a/b/c"]
    assert DEPTH_MAX == 3
    assert deep in searched(tmp_path, deep)


def test_no_link_is_followed(tmp_path: Path):
    """Neither to a folder nor to a file, inside or outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "package-lock.json").write_text("{}")
    project = tmp_path / "project"
    project.mkdir()
    (project / "linked").symlink_to(outside)
    (project / "package-lock.json").symlink_to(outside / "package-lock.json")
    assert searched(project) == [""]
    with opened(project) as held:
        folder = ProjectFolder(held, "")
        assert folder.read("package-lock.json") is None
        assert folder.read("../outside/package-lock.json") is None
        assert folder.read(str(outside / "package-lock.json")) is None


def test_what_is_no_file_is_not_read(tmp_path: Path):
    """A pipe holds nobody up."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with opened(tmp_path) as held:
        folder = ProjectFolder(held, "")
        assert [folder.read(name) for name in ("pipe", "folder", "none")] == [None] * 3


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_a_lock_file_that_is_too_large_is_an_error(tmp_path: Path):
    """It is not left out: its packages would be missing."""
    sparse(tmp_path / "large", FILE_MAX + 1)
    with opened(tmp_path) as held, pytest.raises(ProjectError, match="at most 16 MiB") as caught:
        ProjectFolder(held, "").read("large")
    assert caught.value.code == "CR-FETCH-006"


def test_the_files_of_all_folders_have_one_limit(tmp_path: Path):
    """They are held until packages are laid out, and compress to next to nothing in a repository:
    a project of 32 MB took 32 GiB.
    """
    for number in range(ALL_MAX // FILE_MAX + 1):
        (tmp_path / str(number)).mkdir()
        sparse(tmp_path / str(number) / "lock", FILE_MAX)
    with opened(tmp_path) as held, pytest.raises(ProjectError, match="128 MiB in all"):
        [folder.files(["lock"]) for folder in folders(held)]
