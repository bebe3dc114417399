"""Which ignore files of the host count, against the real git where it has a word in it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from cleanroom.backends.base import Change
from cleanroom.engine.phases.ignore_files import HostIgnores, excludes_file

NOBODY = {"HOME": "/nonexistent"}


def git(root: Path, *words: str) -> None:
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(root)}
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(("git", *identity, *words), cwd=root, env={**os.environ, **nothing}, check=True)


def repository(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", ".")
    return written(root, files)


def written(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def covered(root: Path, *paths: str, variables: dict[str, str] = NOBODY) -> set[str]:
    """Paths that end with a slash are folders."""
    kinds = {True: "directory", False: "file"}
    changes = [Change(path=path.rstrip("/"), kind=kinds[path.endswith("/")]) for path in paths]
    return set(HostIgnores(str(root), variables, time.time_ns()).covered(changes))


def test_without_a_repository_nothing_is_ignored(tmp_path: Path):
    """An ignore file that no repository stands around says nothing."""
    written(tmp_path, {".gitignore": "*"})
    assert covered(tmp_path, "a") == set()


def test_the_nearest_ignore_file_decides(tmp_path: Path):
    """A file in a folder goes before those above it, and before the repository's own exclusions."""
    repository(tmp_path)
    written(tmp_path, {".gitignore": "*.log\n!b.txt\n", "d/.gitignore": "!*.log\nx\n"})
    written(tmp_path, {".git/info/exclude": "b.txt\nc.txt\n"})
    paths = ("a.log", "b.txt", "c.txt", "d/a.log", "d/x", "x", "d/e/x")
    assert covered(tmp_path, *paths) == {"a.log", "c.txt", "d/x", "d/e/x"}


def test_what_lies_in_an_ignored_folder_stays_ignored(tmp_path: Path):
    """No ignore file inside takes it back, as with git; patterns for folders cover nothing else."""
    repository(tmp_path)
    written(tmp_path, {".gitignore": "out/\n", "out/.gitignore": "!*\n"})
    assert covered(tmp_path, "out/", "out/a", "out/b/c", "d/out/") == {
        "out",
        "out/a",
        "out/b/c",
        "d/out",
    }
    assert covered(tmp_path, "d/out") == set()


def test_a_project_below_the_repositorys_top_is_under_its_ignore_files(tmp_path: Path):
    """The ignore files on the way up to `.git` count, with their own places as roots."""
    repository(tmp_path)
    written(tmp_path, {".gitignore": "/apps/one/build\n/build\n*.o\n", "apps/.gitignore": "tmp\n"})
    project = written(tmp_path / "apps/one", {".gitignore": "own\n"})
    paths = ("build/x", "a.o", "tmp", "own", "src")
    assert covered(project, *paths) == {"build/x", "a.o", "tmp", "own"}


def test_tracked_files_are_never_ignored(tmp_path: Path):
    """A file that git tracks although a pattern covers it is no rubbish, in every version of
    the index."""
    repository(tmp_path, **{".gitignore": "*.log\ndeep/\n"})
    tracked = ("kept.log", "deep/er/kept.txt", "deep/er/kept.text", "kept.log.log")
    written(tmp_path, dict.fromkeys(tracked, "x"))
    git(tmp_path, "add", "-f", "--intent-to-add", "kept.log.log")
    git(tmp_path, "add", "-f", *tracked[:3])
    for version in ("2", "3", "4"):
        git(tmp_path, "update-index", "--index-version", version)
        assert covered(tmp_path, *tracked, "deep/er/other", "x.log") == {"deep/er/other", "x.log"}


def test_the_callers_own_ignore_file_counts(tmp_path: Path):
    """The default place, and the one that `core.excludesFile` names; the project's files go
    before it."""
    home = written(tmp_path / "home", {".config/git/ignore": "*~\nb\n"})
    project = repository(tmp_path / "project", **{".gitignore": "!b\n"})
    assert covered(project, "a~", "b", variables={"HOME": str(home)}) == {"a~"}
    settings = '[user]\n\texcludesfile = no\n[core]\n\texcludesFile = "~/mine"\n'
    written(home, {".gitconfig": settings})
    written(home, {"mine": "c\n"})
    assert covered(project, "a~", "c", variables={"HOME": str(home)}) == {"c"}
    assert excludes_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == "/x/git/ignore"


def test_a_worktree_and_a_submodule_find_their_repository(tmp_path: Path):
    """Where `.git` is a file, its repository's exclusions count; those of a worktree are the
    main one's."""
    main = repository(tmp_path / "main", **{"a": "a"})
    git(main, "add", "a")
    git(main, "commit", "-qm", "a")
    git(main, "worktree", "add", "-q", str(tmp_path / "other"))
    written(main, {".git/info/exclude": "x\n"})
    assert covered(tmp_path / "other", "x", "y") == {"x"}


def test_an_ignore_file_that_a_phase_wrote_does_not_count(tmp_path: Path):
    """What was written since the run began is the run's word; what lies below it is not
    ignored by any other."""
    repository(tmp_path, **{".gitignore": "*.log\n"})
    ignores = HostIgnores(str(tmp_path), NOBODY, time.time_ns())
    written(tmp_path, {"d/.gitignore": "*\n"})
    os.utime(tmp_path / "d/.gitignore", (0, 0))
    changes = [Change(path=path, kind="file") for path in ("a.log", "d/a", "d/b.log", "d/e/c")]
    assert ignores.covered(changes) == {"a.log"}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_nothing_in_the_place_of_an_ignore_file_is_waited_for(tmp_path: Path, make):
    """A FIFO, a folder or a link there is no ignore file."""
    repository(tmp_path, **{"d/.gitignore": "x\n"})
    make(tmp_path / ".gitignore")
    assert covered(tmp_path, "a", "d/x") == {"d/x"}


def test_a_repository_of_somebody_else_is_not_believed(tmp_path: Path):
    """Its ignore file would choose what a failed phase brings back; git refuses it too."""
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    repository(tmp_path, **{".gitignore": "*\n"})
    project = written(tmp_path / "project", {"a": "a"})
    os.chown(tmp_path / ".git", 4242, 4242)
    assert covered(project, "b") == set()


def test_no_program_is_started_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder that looks like a repository, with a hook and a filter in its configuration,
    starts nothing."""
    marker = tmp_path / "started"
    program = tmp_path / "bin/git"
    written(tmp_path, {"bin/git": f"#!/bin/sh\ntouch {marker}\n"})
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    project = tmp_path / "project"
    git(tmp_path, "init", "-q", "--bare", str(project))
    marker.unlink(missing_ok=True)
    command = f"touch {marker}"
    settings = f'[core]\nfsmonitor = {command}\n[filter "f"]\nclean = {command}\n'
    written(project, {"config": settings})
    assert covered(project, "a", "b/c") == set()
    assert not marker.exists()


def test_paths_of_any_depth_are_judged(tmp_path: Path):
    """Two thousand folders in each other are no recursion of ours."""
    repository(tmp_path, **{".gitignore": "/a/a/a/\nb\n"})
    deep = "/".join(["a"] * 2000)
    assert covered(tmp_path, deep + "/x", "c/" * 1990 + "b") == {deep + "/x", "c/" * 1990 + "b"}


def test_the_outermost_ignored_folder_is_known_whether_it_changed_or_not(tmp_path: Path):
    """It stands above what is ignored, also for a project below its repository's top."""
    root = repository(tmp_path / "r", **{".gitignore": ".venv/\n*.log\n"})
    (root / "sub").mkdir()
    changes = [
        Change(path="a/x.log", kind="file"),
        Change(path=".venv/lib/x/y.py", kind="file"),
    ]
    for project in (root, root / "sub"):
        ignores = HostIgnores(str(project), NOBODY, time.time_ns())
        above = ignores.folders_above(ignores.covered(changes))
        assert ".venv" in above
        assert "a" not in above
