"""Where lock files are looked for, and where not."""

from __future__ import annotations

import os
from pathlib import Path

from cleanroom.dependencies.discovery import DEPTH_MAX, FILE_MAX, ProjectFolder, folders, opened


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


def test_a_file_that_is_too_large_or_none_is_not_read(tmp_path: Path):
    """A pipe holds nobody up."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(FILE_MAX + 1)
    (tmp_path / "folder").mkdir()
    with opened(tmp_path) as held:
        folder = ProjectFolder(held, "")
        assert [folder.read(name) for name in ("pipe", "large", "folder", "none")] == [None] * 4
