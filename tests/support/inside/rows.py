"""The rows of what programs do inside and outside.

A row is carried out twice: by a shell outside, and by phases of the real command.
`check` has to hold in the project after both.
To add one: a `Row` in the list of its kind; what differs in a column is its `gaps`.
`docs/inside.md` is made of them.
"""

from __future__ import annotations

from support.inside.builds import BUILDS
from support.inside.connections import CONNECTIONS
from support.inside.machine import CHILDREN, MACHINE
from support.inside.network import NETWORK
from support.inside.row import GIT_FUNCTION, NO_GIT, Row, python_program

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

# The folder was copied up for the rename, and the descriptor is of the one below.
_STALE = "ENOENT, where it is a folder of the project that no phase has renamed before"
_IN_RUST = (
    'use std::fs; fn main() { let e = fs::rename("pkg", "full").unwrap_err(); '
    "assert_eq!(e.kind(), std::io::ErrorKind::DirectoryNotEmpty); "
    'fs::rename("pkg", "lib").unwrap(); assert!(fs::metadata("lib/sub/b").is_ok()); }'
)
_IN_C = r"""#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int there = open("there", O_PATH | O_DIRECTORY);
    if (renameat2(AT_FDCWD, "pkg", AT_FDCWD, "full", RENAME_NOREPLACE) != -1 || errno != EEXIST)
        return 1;
    if (renameat2(AT_FDCWD, "pkg", AT_FDCWD, "none", RENAME_EXCHANGE) != -1 || errno != ENOENT)
        return 2;
    return renameat2(AT_FDCWD, "pkg", there, "lib", RENAME_NOREPLACE) == 0 ? 0 : 3;
}
"""
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
        "rename-exchange-file",
        "RENAME_EXCHANGE of a folder and a file, across folders",
        f"{_PKG}; mkdir other && echo 5 > other/e",
        (_renameat2("pkg/sub", "other/e", 2), _renameat2("other/e", "pkg", 2)),
        "test $(cat pkg/b) = 2 && test $(cat other/e/sub) = 5 && test $(cat other/e/a) = 1",
        NO_COPY_UP,
    ),
    Row(
        "rename-c",
        "renameat2 of a program in C, into a folder that it holds open",
        f"{_PKG}; mkdir there full && echo 1 > full/x "
        f"&& printf '%s' '{_IN_C}' > r.c && cc -o r r.c",
        ("./r",),
        "test ! -e pkg && test $(cat there/lib/sub/b) = 2 && test -f full/x",
        NO_COPY_UP | {"root High": "a program of the project is not started"},
        needs="cc",
    ),
    Row(
        "rename-rust",
        "fs::rename of a folder in Rust, over an empty one, and an error over another",
        f"{_PKG}; mkdir full lib && echo 1 > full/x "
        f"&& printf '%s' '{_IN_RUST}' > r.rs && rustc r.rs",
        ("./r",),
        f"{_MOVED} && test -f full/x",
        NO_COPY_UP | {"root High": "a program of the project is not started"},
        needs="rustc",
        only=("root Medium", "root High", "E3"),
    ),
    Row(
        "rename-open",
        "what is opened below a folder that was opened before it was renamed",
        _PKG,
        (
            python_program(
                "import os",
                "held = os.open('pkg', os.O_RDONLY)",
                "os.rename('pkg', 'lib')",
                "os.close(os.open('sub/b', os.O_RDONLY, dir_fd=held))",
            ),
        ),
        _MOVED,
        NO_COPY_UP | dict.fromkeys(("root Medium", "user Medium", "root High"), _STALE),
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
        NO_COPY_UP
        | {
            "E3": "a folder that nobody may write comes back with the owner's right to write, "
            "and names that were renamed part from one that stayed"
        },
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
        # The same seeds outside: the same answers of all calls, and the same tree.
        "mkdir o && cd o && python3 ../random_tree.py 7 60 log0 && "
        "python3 ../random_tree.py 71 300 log1 && python3 ../random_tree.py 72 300 log2 && "
        "cmp log1 ../log1 && cmp log2 ../log2 && listed() { find $1 -printf '%y %m %n %s %P %l\\n' "
        "| sed 's/^d \\([0-9]*\\) [0-9]* [0-9]*/d \\1/' | sort; } && listed tree > ours "
        "&& listed ../tree > theirs && cmp ours theirs && grep -c 'rename.*: ok' log2",
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

# What people and build tools ask git.
_ASKED = (
    'test -z "$(git status --porcelain --untracked-files=no)" && git describe --always --dirty '
    "&& git log -1 --format=%s && git rev-parse HEAD && git diff --quiet && git ls-files"
)

GIT = (
    Row(
        "git-worktree",
        "git in a linked worktree",
        f"{GIT_FUNCTION} git init -q main && cd main && echo 1 > a && git add a "
        "&& git commit -qm one && git tag -am v1 v1 && git worktree add -q ../tree",
        (f"{_ASKED} && git describe | grep -q v1",),
        _ASKED,
        NO_GIT,
        inside="tree",
        needs="git",
    ),
    Row(
        "git-submodule",
        "git in a submodule",
        f"{GIT_FUNCTION} git init -q lib && echo 1 > lib/a && git -C lib add a "
        "&& git -C lib commit -qm l && git init -q super && cd super "
        '&& git submodule --quiet add "$(cd ../lib; pwd)" mod',
        (_ASKED,),
        _ASKED,
        NO_GIT,
        inside="super/mod",
        needs="git",
    ),
    Row(
        "git-subfolder",
        "git in a folder of the repository",
        f"{GIT_FUNCTION} git init -q . && mkdir sub && echo 1 > sub/a && echo 2 > b "
        "&& git add sub b && git commit -qm one",
        (_ASKED,),
        _ASKED,
        NO_GIT,
        inside="sub",
        needs="git",
    ),
    Row(
        "git-link",
        "git where .git is a link",
        f"{GIT_FUNCTION} git init -q p && cd p && echo 1 > a && git add a && git commit -qm one "
        "&& mv .git ../p.git && ln -s ../p.git .git",
        (_ASKED,),
        _ASKED,
        NO_GIT,
        inside="p",
        needs="git",
    ),
)


_APPEND = "subprocess.run(['sh', '-c', 'echo two >> log'], check=True)"
OPEN_FILES = (
    Row(
        "open-follow",
        "reading on from a file that was opened before its first write",
        "echo one > log",
        (
            python_program(
                "import subprocess",
                "f = open('log'); assert f.read() == 'one\\n'",
                _APPEND,
                "assert f.read() == 'two\\n'",
            ),
        ),
        "test $(wc -l < log) = 2",
    ),
    Row(
        "open-flock",
        "flock of a file that another process opens for writing",
        "echo one > log",
        (
            python_program(
                "import fcntl, subprocess, sys",
                "f = open('log'); fcntl.flock(f, fcntl.LOCK_EX)",
                "code = 'import fcntl; f = open(\\'log\\', \\'a\\'); "
                "fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)'",
                "done = subprocess.run([sys.executable, '-c', code], capture_output=True)",
                "assert b'BlockingIOError' in done.stderr, done",
            ),
        ),
        "true",
    ),
    Row(
        "open-fcntl",
        "fcntl locks of readers and writers",
        "echo one > log",
        (
            python_program(
                "import fcntl, subprocess, sys",
                "f = open('log'); fcntl.lockf(f, fcntl.LOCK_SH)",
                "code = 'import fcntl; f = open(\\'log\\', \\'r+\\'); "
                "fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)'",
                "done = subprocess.run([sys.executable, '-c', code], capture_output=True)",
                "assert b'BlockingIOError' in done.stderr, done",
            ),
        ),
        "true",
    ),
    Row(
        "open-sqlite",
        "an SQLite database in WAL mode, written by four processes in two phases",
        python_program(
            "import sqlite3",
            "c = sqlite3.connect('db'); c.execute('pragma journal_mode=wal')",
            "c.execute('create table t (n)'); c.commit()",
        ),
        (
            python_program(
                "import subprocess, sys",
                "code = 'import sqlite3; c = sqlite3.connect(\\'db\\', timeout=30); "
                "[(c.execute(\\'insert into t values (1)\\'), c.commit()) for _ in range(25)]'",
                "ran = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(4)]",
                "assert not any(p.wait() for p in ran)",
            ),
        )
        * 2,
        python_program(
            "import sqlite3",
            "c = sqlite3.connect('db'); n = c.execute('select count(*) from t').fetchone()[0]",
            "assert n == 200 and c.execute('pragma integrity_check').fetchone()[0] == 'ok', n",
        ),
    ),
    Row(
        "open-inotify",
        "inotify of a file and a folder of the project",
        "mkdir d; echo one > d/log",
        (
            python_program(
                "import ctypes, os, struct, subprocess",
                "c = ctypes.CDLL(None); i = c.inotify_init1(0o4000)",
                "w = [c.inotify_add_watch(i, p, 0x102) for p in (b'd/log', b'd')]",
                "subprocess.run(['sh', '-c', 'echo two >> d/log; : > d/new'], check=True)",
                "raw, seen = os.read(i, 4096), []",
                "while raw:",
                "    wd, mask, _, n = struct.unpack_from('iIII', raw)",
                "    seen.append((w.index(wd), mask, raw[16:16 + n].rstrip(bytes(1))))",
                "    raw = raw[16 + n:]",
                "assert (0, 2, b'') in seen and (1, 256, b'new') in seen, seen",
            ),
        ),
        "test -f d/new",
    ),
)

# title of a table of docs/inside.md -> its rows
GROUPS: dict[str, tuple[Row, ...]] = {
    "Folders that are renamed": RENAMES,
    "Hard links": HARD_LINKS,
    "Git": GIT,
    "Files that are open": OPEN_FILES,
    "Builds": BUILDS,
    "The machine": MACHINE,
    "Children that are looked at": CHILDREN,
    "Names and addresses": NETWORK,
    "Connections to services": CONNECTIONS,
}
ROWS = tuple(row for rows in GROUPS.values() for row in rows)
