"""The rows of what programs do inside and outside.

A row is carried out twice: by a shell outside, and by phases of the real command.
`check` has to hold in the project after both.
To add one: a `Row` in the list of its kind; what differs in a column is its `gaps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One thing that programs do."""

    id: str
    kind: str
    # in the project, before: shell
    prepare: str
    # one command for each phase of one run; they follow each other
    phases: tuple[str, ...]
    # in the project, afterwards: shell
    check: str
    # column -> how it differs there; the row is then not carried out in it
    gaps: Mapping[str, str] = {}
    # folder of the project below the one in which `prepare` runs
    inside: str = "."
    # a program without which the row is skipped
    needs: str = ""


# In containers pid 1 is a program in C, which copies nothing up.
NO_COPY_UP = {"docker": "EXDEV: a program that falls back to copying works"}
SPLIT = {"docker": "the name that is written to becomes a file of its own; a warning names it"}

_EXCHANGE = (
    "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
    "r = c.renameat2(-100, b'{}', -100, b'{}', {}); print(r, ctypes.get_errno())"
)


def _renameat2(old: str, new: str, flags: int) -> str:
    return f'python3 -c "{_EXCHANGE.format(old, new, flags)}"'


_PKG = "mkdir -p pkg/sub && echo 1 > pkg/a && echo 2 > pkg/sub/b"
_MOVED = "test ! -e pkg && test $(cat lib/a) = 1 && test $(cat lib/sub/b) = 2"

RENAMES = (
    Row(
        "rename-python",
        "os.rename of a folder of the project",
        _PKG,
        ("python3 -c \"import os; os.rename('pkg', 'lib')\"",),
        _MOVED,
        NO_COPY_UP,
    ),
    Row(
        "rename-mv",
        "mv of a folder into another one",
        f"{_PKG}; mkdir over",
        ("mv pkg over/",),
        "test ! -e pkg && test $(cat over/pkg/sub/b) = 2",
    ),
    Row(
        "rename-git",
        "git mv of a folder",
        f"git init -q . && {_PKG} && git add pkg && "
        "git -c user.name=a -c user.email=a@example.org commit -qm one",
        ("git mv pkg lib || exit 1; test -d lib/sub",),
        _MOVED,
        NO_COPY_UP,
        needs="git",
    ),
    Row(
        "rename-node",
        "fs.renameSync of a folder",
        _PKG,
        ("node -e \"require('fs').renameSync('pkg', 'lib')\"",),
        _MOVED,
        NO_COPY_UP,
        needs="node",
    ),
    Row(
        "rename-phases",
        "a folder of an earlier phase, and back",
        _PKG,
        (
            "mkdir made && echo 3 > made/c && python3 -c \"import os; os.rename('pkg', 'lib')\"",
            "python3 -c \"import os; os.rename('made', 'lib/made'); os.rename('lib/sub', 'sub')\"",
            "python3 -c \"import os; os.rename('sub', 'lib/sub')\"",
        ),
        f"{_MOVED} && test ! -e made && test $(cat lib/made/c) = 3 && test ! -e sub",
        NO_COPY_UP,
    ),
    Row(
        "rename-exchange",
        "RENAME_EXCHANGE of two folders",
        f"{_PKG}; mkdir other && echo 5 > other/e",
        (_renameat2("pkg", "other", 2),),
        "test $(cat other/sub/b) = 2 && test $(cat pkg/e) = 5 && test ! -e pkg/a",
        NO_COPY_UP,
    ),
    Row(
        "rename-noreplace",
        "RENAME_NOREPLACE of a folder: EEXIST, then done",
        f"{_PKG}; mkdir there",
        (f'test "$({_renameat2("pkg", "there", 1)})" = "-1 17" && {_renameat2("pkg", "lib", 1)}',),
        f"{_MOVED} && test -d there",
        NO_COPY_UP,
    ),
    Row(
        "rename-over-empty",
        "rename over an empty folder, and ENOTEMPTY over another",
        f"{_PKG}; mkdir full lib && echo 1 > full/x",
        (
            "python3 -c \"import os, errno\ntry: os.rename('pkg', 'full')\n"
            "except OSError as e: assert e.errno == errno.ENOTEMPTY, e\n"
            "else: raise SystemExit(1)\nos.rename('pkg', 'lib')\"",
        ),
        f"{_MOVED} && test -f full/x",
        NO_COPY_UP,
    ),
    Row(
        "rename-keeps",
        "modes, times with nanoseconds, links and hard links of a renamed folder",
        "mkdir -p pkg/sub/deep && echo 1 > pkg/a && ln pkg/a pkg/sub/b && ln pkg/a outer "
        "&& ln -s a pkg/l && chmod 640 pkg/a && touch -d '2001-02-03 04:05:06.123456789' pkg/a "
        "&& touch -d '2002-02-03 04:05:06.987654321' pkg/sub/deep pkg/sub && chmod 555 pkg/sub",
        ("python3 -c \"import os; os.rename('pkg', 'lib')\"",),
        "test $(stat -c %a lib/sub) = 555 && test $(stat -c %h lib/a) = 3 && test lib/a -ef outer "
        "&& test lib/a -ef lib/sub/b && test $(readlink lib/l) = a && test $(stat -c %a lib/a) = "
        "640 && stat -c %y lib/a | grep -q 05:06.123456789",
        NO_COPY_UP,
    ),
    Row(
        "rename-busy",
        "a folder in which another process makes files meanwhile",
        _PKG,
        (
            "(i=0; while test $i -lt 300; do echo 1 > pkg/x$i; i=$((i+1)); done) 2> errors & "
            "python3 -c \"import os; os.rename('pkg', 'lib')\" && wait && test ! -e pkg",
        ),
        f"{_MOVED} && test -z \"$(find . -name '.cleanroom-*' -not -path './.ggen/*')\"",
        NO_COPY_UP,
    ),
    Row(
        "rename-random",
        "random renames, exchanges, creations and removals in two phases",
        "python3 random_tree.py 7 60 log0",
        ("python3 random_tree.py 71 300 log1", "python3 random_tree.py 72 300 log2"),
        "find tree -printf '%y %m %s %P %l\\n' | sed 's/^d \\([0-9]*\\) [0-9]*/d \\1/' "
        "| sort -k4 > /dev/null",
        NO_COPY_UP,
    ),
)

HARD_LINKS = (
    Row(
        "links-append",
        "writing to one of three names, in other folders",
        "mkdir d e; echo 1 > a; ln a d/b; ln a e/c",
        ("echo 2 >> d/b && cmp a d/b && cmp a e/c",),
        "cmp a d/b && cmp a e/c && test $(stat -c %h a) = 3 && grep -q 2 a",
        SPLIT,
    ),
    Row(
        "links-phases",
        "names that one phase makes, one that the next removes, and writes",
        "true",
        ("mkdir d; echo 1 > a; ln a d/b; ln a c", "rm c; echo 2 >> a; cmp a d/b", "cmp a d/b"),
        "cmp a d/b && test $(stat -c %h a) = 2 && test ! -e c",
        SPLIT,
    ),
    Row(
        "links-build",
        "pairs in target/ and node_modules/",
        "mkdir -p target/debug/deps node_modules/p && echo 1 > target/debug/deps/x-1 "
        "&& ln target/debug/deps/x-1 target/debug/x && echo 1 > node_modules/p/i "
        "&& ln node_modules/p/i node_modules/p/j",
        (
            "echo 2 > target/debug/deps/x-1 && cmp target/debug/deps/x-1 target/debug/x "
            "&& chmod 600 node_modules/p/i && test $(stat -c %a node_modules/p/j) = 600",
        ),
        "cmp target/debug/deps/x-1 target/debug/x && test $(stat -c %h target/debug/x) = 2 "
        "&& test node_modules/p/i -ef node_modules/p/j",
        SPLIT,
    ),
)

_GIT = (
    "git() { command git -c user.name=a -c user.email=a@example.org "
    '-c protocol.file.allow=always "$@"; }; '
)
# What people and build tools ask git.
_ASKED = (
    'test -z "$(git status --porcelain --untracked-files=no)" && git describe --always --dirty '
    "&& git log -1 --format=%s && git rev-parse HEAD && git diff --quiet && git ls-files"
)
NO_GIT_E3 = {"E3": "its configuration is not shown, so git refuses", "docker": "not shown"}

GIT = (
    Row(
        "git-worktree",
        "git in a linked worktree",
        f"{_GIT} git init -q main && cd main && echo 1 > a && git add a && git commit -qm one "
        "&& git tag -am v1 v1 && git worktree add -q ../tree",
        (f"{_ASKED} && git describe | grep -q v1",),
        _ASKED,
        NO_GIT_E3,
        inside="tree",
        needs="git",
    ),
    Row(
        "git-submodule",
        "git in a submodule",
        f"{_GIT} git init -q lib && echo 1 > lib/a && git -C lib add a && git -C lib commit -qm l "
        '&& git init -q super && cd super && git submodule --quiet add "$(cd ../lib; pwd)" mod',
        (_ASKED,),
        _ASKED,
        NO_GIT_E3,
        inside="super/mod",
        needs="git",
    ),
    Row(
        "git-subfolder",
        "git in a folder of the repository",
        f"{_GIT} git init -q . && mkdir sub && echo 1 > sub/a && echo 2 > b "
        "&& git add sub b && git commit -qm one",
        (_ASKED,),
        _ASKED,
        NO_GIT_E3,
        inside="sub",
        needs="git",
    ),
    Row(
        "git-link",
        "git where .git is a link",
        f"{_GIT} git init -q p && cd p && echo 1 > a && git add a && git commit -qm one "
        "&& mv .git ../p.git && ln -s ../p.git .git",
        (_ASKED,),
        _ASKED,
        NO_GIT_E3,
        inside="p",
        needs="git",
    ),
)

ROWS = (*RENAMES, *HARD_LINKS, *GIT)
