"""Projects of strangers that use Go: their phases pass without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
    pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed"),
]

MAIN = """package main

import "golang.org/x/text/width"

func main() { println(width.Widen.String("7")) }
"""
TEST = """package main

import "testing"

func TestNothing(t *testing.T) {}
"""
LIBRARY = """package lib

import "github.com/google/uuid"

var Nobody = uuid.Nil
"""
MAKE = """[project]
name = "p"
[lifecycle.init]
command = "{init}"
[lifecycle.test]
command = "{test}"
"""


def prepared(root: Path, files: dict[str, str], *commands: tuple[str, str]) -> None:
    """The project, as its authors left it: (folder, command) made the sums."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for folder, command in commands:
        subprocess.run(command, shell=True, cwd=root / folder, check=True, timeout=180)


def passes_twice(tmp_path: Path, root: Path) -> None:
    """From an empty cache, and offline; the project's files stay as they were."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    variables = {**os.environ, "CLEANROOM_CACHE": str(tmp_path / "cache")}
    for further in ((), ("--offline",)):
        done = subprocess.run(
            [sys.executable, "-m", "cleanroom", "pipeline", "init", "test", *further],
            cwd=root,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (root / "said.txt").read_text() == "\uff17\n"
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.timeout(600)
def test_a_module_passes(tmp_path: Path):
    """`go mod download`, `go mod verify`, build, vet and test."""
    root = tmp_path / "project"
    files = {
        "go.mod": "module example.com/app\n\ngo 1.24.0\n",
        "main.go": MAIN,
        "main_test.go": TEST,
        "make.toml": MAKE.format(
            init="go mod download && go mod verify",
            test="go build -o /tmp/app ./... && go vet ./... && go test ./... "
            "&& go run . 2> said.txt",
        ),
    }
    prepared(root, files, ("", "go get -t golang.org/x/text@v0.31.0 && go mod tidy"))
    passes_twice(tmp_path, root)


@pytest.mark.timeout(600)
def test_a_workspace_passes(tmp_path: Path):
    """Two modules, each with sums of its own."""
    root = tmp_path / "project"
    files = {
        "app/go.mod": "module example.com/app\n\ngo 1.24.0\n",
        "app/main.go": MAIN,
        "lib/go.mod": "module example.com/lib\n\ngo 1.24.0\n",
        "lib/lib.go": LIBRARY,
        "make.toml": MAKE.format(
            init="go work sync",
            test="go build -o /tmp/out/ ./app/... ./lib/... && go run ./app 2> said.txt",
        ),
    }
    prepared(
        root,
        files,
        ("app", "go get golang.org/x/text@v0.31.0 && go mod tidy"),
        ("lib", "go get github.com/google/uuid@v1.6.0 && go mod tidy"),
        ("", "go work init ./app ./lib && go work sync"),
    )
    passes_twice(tmp_path, root)
