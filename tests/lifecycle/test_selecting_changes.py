"""Which changes come back."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cleanroom.backends.base import Change
from cleanroom.workspaces import git_ignored, selected


def files(*paths: str) -> list[Change]:
    return [Change(path=path, kind="file") for path in paths]


def test_a_passed_phase_brings_everything_but_history():
    """Without outputs every change comes back, never `.git` and `.ggen`."""
    assert selected(files("a", ".git/HEAD", ".ggen/state.json", "d/e"), passed=True, outputs=None) == ("a", "d/e")


def test_declared_outputs_are_all_that_comes_back():
    """Outputs select paths and what is below them, by prefix of whole parts or pattern, also under `.ggen` where declared."""
    changes = files("target/a", "targets/b", "x.log", "sub/y.log", ".ggen/out", "top")
    assert selected(changes, passed=True, outputs=("target/", "*.log", ".ggen/out")) == ("target/a", "x.log", "sub/y.log", ".ggen/out")


def test_a_failed_phase_brings_outputs_and_ignored_paths():
    """Of a phase that failed nothing else comes back."""
    changes = files("src/a", "out/b", "cache/c", ".git/x")
    assert selected(changes, passed=False, outputs=("out",), ignored=frozenset({"cache/c", ".git/x"})) == ("out/b", "cache/c")
    assert selected(changes, passed=False, outputs=None) == ()


def test_new_folders_above_a_chosen_path_come_with_it():
    """A file in new folders can be written only when they are made."""
    changes = [
        Change(path="a", kind="directory"),
        Change(path="a/b", kind="directory"),
        Change(path="z", kind="directory"),
        *files("a/b/c"),
    ]
    assert selected(changes, passed=True, outputs=("a/b/c",)) == ("a", "a/b", "a/b/c")


@given(st.lists(st.from_regex(r"[abg.]{1,3}(/[abg.]{1,3}){0,2}", fullmatch=True), unique=True), st.booleans())
def test_nothing_is_chosen_that_did_not_change(paths, passed):
    """The selection is a subset in the same order."""
    changes = files(*(path for path in paths if "." not in path.split("/") and ".." not in path.split("/")))
    chosen = selected(changes, passed=passed, outputs=("a",), ignored=frozenset(paths))
    assert list(chosen) == [change.path for change in changes if change.path in chosen]


def test_the_hosts_ignore_files_decide(tmp_path: Path):
    """Ignored by the host's `.gitignore`; tracked files never; no repository, nothing."""
    changes = [Change(path="target", kind="directory"), *files("target/x", "src.py", "kept.log")]
    assert git_ignored(str(tmp_path), changes) == frozenset()
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("target/\n*.log\n")
    (tmp_path / "kept.log").write_text("tracked")
    subprocess.run(["git", "add", "-f", "kept.log"], cwd=tmp_path, check=True)
    assert git_ignored(str(tmp_path), changes) == {"target", "target/x"}
