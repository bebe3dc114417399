"""What a phase cannot do with the git folder of its project that lies outside."""

from __future__ import annotations

import shutil

import pytest

from support.inside.harness import COLUMNS, inside
from support.inside.rows import ROWS

WORKTREE = next(row for row in ROWS if row.id == "git-worktree")
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(shutil.which("git") is None, reason="no git"),
]


def test_a_commit_is_refused_by_name_and_the_repository_stays():
    """The kernel says read-only, and git says which file."""
    command = (
        "env -u GIT_OPTIONAL_LOCKS git status && "
        "if git -c user.name=a -c user.email=a@b commit --allow-empty -m x 2> said; "
        "then exit 1; fi; grep -q 'main/.git/worktrees/tree/index.lock.*Read-only' said"
    )
    row = WORKTREE._replace(phases=(command,), check="test $(git log --oneline | wc -l) = 1")

    assert inside(row, COLUMNS[0]) == []


def test_nothing_else_of_the_main_project_is_seen():
    """Neither its files, nor hooks, nor the login of a remote."""
    prepare = (
        f"{WORKTREE.prepare} && git remote add o https://u:planted@example.org/x "
        "&& echo secret > ../main/file && echo 'planted' > .git/hooks/pre-commit"
    )
    command = (
        'main=$(dirname "$(git rev-parse --git-common-dir)"); test "$(ls -A $main)" = .git '
        "&& test ! -e $main/.git/hooks && test ! -e $main/.git/logs "
        "&& ! grep -r planted $main/.git/config"
    )
    row = WORKTREE._replace(prepare=prepare, phases=(command,))

    assert inside(row, COLUMNS[0]) == []
