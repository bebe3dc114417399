"""Go's standard library is compiled once for all projects; through the real command, with the real
Go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.command_harness import Project
from support.required_tools import require_or_skip

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]
FILL_SECONDS = 300  # on a machine that runs other tests beside

MAIN = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("works") }\n'
# Each name of a compiled package is a line; what of the cache may be written is tried too.
BUILD = (
    "go build -v -o out ./... && ./out && "
    "find ~/.cache/go-build -name '*-d' -exec sh -c 'echo planted > {}' ';' -quit"
)


def build(project: Project, name: str) -> tuple[dict[str, Any], str]:
    """Build a module of this name; the result, and the output of the phase."""
    (project.root / "go.mod").write_text(f"module example.org/{name}\n\ngo 1.18\n")
    (project.root / "main.go").write_text(MAIN)
    project.write({"build": BUILD}, policy='"Medium"')
    done = subprocess.run(
        project.argv("pipeline", "build", "--output", "json", "--backend", "embedded"),
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=FILL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (log,) = project.root.glob(".ggen/cleanroom/runs/*/logs/build.log")
    return json.loads(done.stdout), log.read_text()


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_second_project_compiles_its_own_packages_alone(project: Project):
    """The first waits once; neither writes what both are shown, and a planted file stays in the
    project that planted it.
    """
    if shutil.which("go") is None:
        require_or_skip("go", "no go on PATH")
    _, first = build(project, "first")
    shared = project.cache / "home-caches/go"
    before = contents(shared)
    assert any("/go-build/" in path for path in before)
    project.root = project.root.with_name("other")
    project.root.mkdir()
    result, second = build(project, "second")
    assert first.split()[0] == "example.org/first"
    assert second.split() == ["example.org/second", "works"]
    assert contents(shared) == before
    assert result["violations"] == []
    own = [path for path in (project.cache / "home-caches").iterdir() if path.name != "go"]
    assert sum(os.path.getsize(path) for home in own for path in home.rglob("*")) < 20 << 20
