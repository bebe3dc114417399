"""Projects of strangers that use Go: their phases pass without a network."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from support.strangers import Stranger

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(600),
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


def test_a_module_passes(tmp_path: Path, cache: Path):
    """`go mod download`, `go mod verify`, build, vet and test."""
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
    stranger = Stranger(tmp_path, files, cache)
    stranger.prepare("go get -t golang.org/x/text@v0.31.0 && go mod tidy")
    stranger.passes(("init", "test"))
    assert (stranger.root / "said.txt").read_text() == "\uff17\n"


def test_a_workspace_passes(tmp_path: Path, cache: Path):
    """Two modules, each with sums of its own."""
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
    stranger = Stranger(tmp_path, files, cache)
    stranger.prepare("go get golang.org/x/text@v0.31.0 && go mod tidy", "app")
    stranger.prepare("go get github.com/google/uuid@v1.6.0 && go mod tidy", "lib")
    stranger.prepare("go work init ./app ./lib && go work sync")
    stranger.passes(("init", "test"))
    assert (stranger.root / "said.txt").read_text() == "\uff17\n"
