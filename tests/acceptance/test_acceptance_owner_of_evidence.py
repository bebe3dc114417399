"""Whose `.ggen` is, where root ran in a project of somebody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cleanroom.core.beneath import Folder
from cleanroom.engine.own_folder import check_writable
from cleanroom.model.errors import ProjectError
from support.command_harness import Project
from support.ordinary_user import ORDINARY

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="root's run in another's project"
)


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY, follow_symlinks=False)


def not_theirs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.lstat().st_uid != ORDINARY]


@pytest.mark.sandbox
def test_what_roots_run_records_belongs_to_the_projects_owner(project: Project) -> None:
    """Events, logs, state, reports, audit log and what the cache remembers; its owner can write
    each folder then.
    """
    project.write({"test": "echo said", "bad": "echo x > made; exit 3"})
    project.add('cleanroom.cache.inputs = ["make.toml"]\n')
    give(project.root)
    assert project.call("run", "test").code == 0
    assert project.call("run", "bad").code == 1
    assert not_theirs(project.root) == []
    assert list(project.root.glob(".ggen/cleanroom/runs/*/logs/*.log"))
    with as_user(ORDINARY), Folder.at(project.root) as root:
        check_writable(root)


def test_what_init_writes_belongs_to_the_projects_owner(project: Project) -> None:
    """make.toml and .gitignore, which its owner is to edit."""
    subprocess.run(["git", "init", "-q", "."], cwd=project.root, check=True)
    give(project.root)
    done = subprocess.run(
        project.argv("init"), cwd=project.root, env=project.variables(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert {"make.toml", ".gitignore"} <= {path.name for path in project.root.iterdir()}
    assert not_theirs(project.root) == []


@pytest.mark.parametrize("name", [".ggen", ".ggen/cleanroom/runs", ".ggen/cleanroom/state.lock"])
def test_what_is_roots_since_before_is_named_with_the_command_that_mends_it(
    tmp_path: Path, name: str
) -> None:
    """To the project's owner, who would otherwise read of a permission denied."""
    tmp_path.chmod(0o755)
    root = tmp_path / "project"
    (root / ".ggen/cleanroom/runs").mkdir(parents=True)
    (root / ".ggen/cleanroom/state.lock").touch(mode=0o600)
    give(root)
    os.chown(root, ORDINARY, ORDINARY)
    os.chown(root / name, 0, 0)
    held = Folder.at(root)
    with held, as_user(ORDINARY), pytest.raises(ProjectError, match="belongs to root") as caught:
        check_writable(held)
    assert (caught.value.code, caught.value.where) == ("CR-STATE-005", f"{name}:1:1")
    assert f"`sudo chown -R {ORDINARY} {root}/.ggen`" in caught.value.hint
    with Folder.at(root) as again:
        check_writable(again)  # root may


def test_who_does_not_own_the_project_is_told_who_does(tmp_path: Path) -> None:
    """No command of theirs would help."""
    root = tmp_path / "project"
    (root / ".ggen").mkdir(parents=True)
    give(root)
    os.chown(root, ORDINARY, ORDINARY)
    held = Folder.at(root)
    with held, as_user(ORDINARY + 1), pytest.raises(ProjectError) as caught:
        check_writable(held)
    assert f"run as {ORDINARY}, who owns the project" in caught.value.hint
