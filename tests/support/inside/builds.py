"""Rows of incremental builds, which decide inside as outside."""

from __future__ import annotations

from support.inside.row import GIT_FUNCTION, NO_GIT, Row

_GO = "GOCACHE=$PWD/.gocache GOTOOLCHAIN=local GOFLAGS=-buildvcs=false go"
_TSC = "node node_modules/typescript/bin/tsc -b --verbose"
_TOOLS = "python3 -m pip install -q --target tools setuptools-scm 2> pip-log"
_COMMITTED = (
    "git init -q . && mv ../tools .tools && printf '.tools\\nmake.toml\\nversion\\n' > .gitignore "
    "&& echo 1 > a && git add a .gitignore && git commit -qm one && git tag v1.2.3"
)
_SCM = "env -u SETUPTOOLS_SCM_PRETEND_VERSION PYTHONPATH=.tools python3 -m setuptools_scm"

BUILDS = (
    Row(
        "build-make",
        "make decides by times with nanoseconds, there and back",
        "printf 'all: out\\nout: in\\n\\tcp in out; touch built\\n' > Makefile; "
        "touch -d '2024-01-01 00:00:00.500000001' in; make -s all; "
        "touch -d '2024-01-01 00:00:00.500000002' out; rm built",
        ("make -q all", "make -q all && touch in && make -s all && test -e built"),
        "make -q all",
        needs="make",
    ),
    Row(
        "build-cargo",
        "cargo builds nothing anew that was built outside or in an earlier phase",
        'printf \'[package]\\nname = "x"\\nedition = "2021"\\n\' > Cargo.toml; mkdir src; '
        "echo 'fn main() {}' > src/main.rs; cargo build -q 2> log",
        (
            "cargo build -v 2>&1 | tee log && grep -q Fresh log && ! grep -q Compiling log",
            "touch src/main.rs && cargo build 2>&1 | grep -q Compiling",
            "cargo build -v 2>&1 | tee log && ! grep -q Compiling log",
        ),
        "cargo build -v 2>&1 | grep -q Fresh",
        needs="cargo",
        only=("root Medium",),
    ),
    Row(
        "build-times",
        "times of files and new folders with nanoseconds",
        "touch -d '2001-02-03 04:05:06.123456789' a",
        (
            "stat -c %y a | grep -q 06.123456789 && "
            "touch -d '2002-02-03 04:05:06.987654321' b && cp -p a c && mkdir -p d/e "
            "&& cp -p a d/e && touch -d '2002-02-03 04:05:06.987654321' d/e d && chmod 555 d/e",
            "stat -c %y b d d/e | grep -c 06.987654321 | grep -q 3",
        ),
        "stat -c %y a c | grep -c 06.123456789 | grep -q 2 && "
        "stat -c %y b d d/e | grep -c 06.987654321 | grep -q 3",
    ),
    Row(
        "build-folder",
        "make with a folder among the prerequisites that a phase made first",
        "printf 'app: lib\\n\\ttouch app\\nlib: in\\n\\tmkdir -p lib; touch lib/x lib\\n' "
        "> Makefile; touch in",
        ("make -s app", "make -q app"),
        "make -q app",
        needs="make",
    ),
    Row(
        "build-go",
        "go compiles nothing anew that was compiled outside or in an earlier phase",
        "printf 'module x\\ngo 1.21\\n' > go.mod; mkdir lib; "
        "printf 'package lib\\nfunc F() int { return 1 }\\n' > lib/lib.go; "
        "printf 'package main\\nimport \"x/lib\"\\nfunc main() { println(lib.F()) }\\n' > x.go; "
        f"{_GO} build -o x . 2> log",
        (
            f"{_GO} build -x -o x . 2> log && ! grep /compile log",
            "echo 'func G() int { return 2 }' >> lib/lib.go; "
            f"{_GO} build -x -o x . 2> log && test $(grep -c '/compile ' log) = 2",
            f"{_GO} build -x -o x . 2> log && ! grep /compile log",
        ),
        f"{_GO} build -x -o x . 2> log && ! grep /compile log",
        {"E3": "packages of the project are compiled once more: it lies at another path"},
        needs="go",
        only=("root Medium", "root High", "E3"),
        slow=True,
    ),
    Row(
        "build-tsc",
        "tsc -b writes nothing anew that was written outside or in an earlier phase",
        "npm install --silent --no-audit --no-fund typescript@5.9.3; mkdir src; "
        "echo 'export const a: number = 1;' > src/a.ts; echo '"
        '{"compilerOptions": {"incremental": true, "outDir": "out", "types": []}, '
        '"include": ["src"]}\' > tsconfig.json; sleep 0.1; node_modules/.bin/tsc -b',
        (
            f"{_TSC} > log; grep 'is up to date' log && ! grep 'Building project' log",
            "echo 'export const b = 2;' >> src/a.ts; "
            f"{_TSC} > log; grep 'Building project' log && grep 'b = 2' out/a.js",
            f"{_TSC} > log; grep 'is up to date' log && ! grep 'Building project' log",
        ),
        f"{_TSC} > log; grep 'is up to date' log && ! grep 'Building project' log",
        needs="npm",
        only=("root Medium", "user Medium", "root High", "E3"),
    ),
    Row(
        "build-scm",
        "setuptools-scm tells the version from git",
        f"{GIT_FUNCTION}{_TOOLS} && mkdir p && cd p && {_COMMITTED}",
        (f"{_SCM} > version; cat version; test $(cat version) = 1.2.3",),
        f"test $(cat version) = $({_SCM})",
        inside="p",
        needs="git",
    ),
    Row(
        "build-scm-worktree",
        "setuptools-scm in a linked worktree, some commits on",
        f"{GIT_FUNCTION}{_TOOLS} && mkdir main && cd main && {_COMMITTED} "
        "&& echo 2 > a && git commit -qam two && git worktree add -q ../p && mv .tools ../p",
        (f"{_SCM} > version; cat version; grep -q '^1.2.4.dev1+g' version",),
        f"test $(cat version) = $({_SCM})",
        NO_GIT,
        inside="p",
        needs="git",
    ),
    Row(
        "build-scm-subfolder",
        "setuptools-scm in a folder of the repository",
        f"{GIT_FUNCTION}{_TOOLS} && mkdir main && cd main && {_COMMITTED} "
        "&& mkdir p && echo 2 > p/a && git add p && git commit -qm two && mv .tools p",
        (f"{_SCM} --root .. > version; cat version; grep -q '^1.2.4.dev1+g' version",),
        f"test $(cat version) = $({_SCM} --root ..)",
        NO_GIT,
        inside="main/p",
        needs="git",
    ),
)
