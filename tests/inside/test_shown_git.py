"""What a phase cannot do with the git folder of its project that lies outside."""

from __future__ import annotations

import shutil

import pytest

from support.attacks.host_harness import Column
from support.container_harness import require
from support.inside.harness import COLUMNS, CONTAINERS, inside
from support.inside.rows import ROWS

WORKTREE = next(row for row in ROWS if row.id == "git-worktree")
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(shutil.which("git") is None, reason="no git"),
]
COLUMN = pytest.mark.parametrize(
    "column", [COLUMNS[0], *CONTAINERS], ids=lambda column: column.name
)


def _require(column: Column) -> None:
    if column in CONTAINERS:
        require("docker", "cleanroom/base")


@COLUMN
def test_a_commit_is_refused_by_name_and_the_repository_stays(column: Column):
    """The kernel says read-only, and git says which file."""
    _require(column)
    command = (
        "env -u GIT_OPTIONAL_LOCKS git status && "
        "if git -c user.name=a -c user.email=a@b commit --allow-empty -m x 2> said; "
        "then exit 1; fi; "
        "grep -Eq 'main/.git/worktrees/tree/index.lock.*(Read-only|Permission)' said"
    )
    row = WORKTREE._replace(phases=(command,), check="test $(git log --oneline | wc -l) = 1")

    assert inside(row, column) == []


@COLUMN
def test_nothing_else_of_the_main_project_is_seen(column: Column):
    """Neither its files, nor hooks, nor the login of a remote."""
    _require(column)
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

    assert inside(row, column) == []
