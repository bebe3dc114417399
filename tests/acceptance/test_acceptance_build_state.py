"""What build tools and package managers keep in a project lives from phase to phase and from run to
run, and is whole on the host; with the real tools, through the real command."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.command_harness import Project
from support.required_tools import require_or_skip

pytestmark = [pytest.mark.sandbox, pytest.mark.slow]

CARGO_FILES = {
    "Cargo.toml": '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n',
    "build.rs": 'fn main() { println!("cargo:rustc-env=MADE=built"); }\n',
    "src/main.rs": 'fn main() { println!("{}", env!("MADE")); }\n',
}
NPM_FILES = {
    "package.json": '{"name": "x", "version": "1.0.0", "scripts": {"test": "tool"}, '
    '"dependencies": {"tool": "file:./tool"}}',
    "tool/package.json": '{"name": "tool", "version": "1.0.0", "bin": {"tool": "cli.js"}}',
    "tool/cli.js": '#!/usr/bin/env node\nconsole.log("tool works")\n',
}


def fill(project: Project, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = project.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def passes(project: Project, *phases: str) -> str:
    """Run the phases; the log of the last one."""
    said = project.call("pipeline", *phases)
    assert said.code == 0, said.err
    assert said.result["violations"] == []
    run = said.result["run_id"]
    log = project.root / f".ggen/cleanroom/runs/{run}/logs/{phases[-1]}.log"
    return log.read_text() if log.exists() else ""


def on_host(project: Project, *argv: str) -> str:
    done = subprocess.run(
        argv, cwd=project.root, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def broken_links(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink() and not path.exists()]


def need(program: str) -> None:
    if shutil.which(program) is None:
        require_or_skip(program, f"no {program} on PATH")


def test_a_virtual_environment_that_a_phase_made(project: Project):
    """The next phase and the next run use it, and so does the host: its interpreter, its scripts
    and its links.
    """
    script = "test -d .venv || python3 -m venv .venv"
    project.write({"init": script, "test": ".venv/bin/pip --version"}, policy='"Medium"')
    first, second = passes(project, "init", "test"), passes(project, "test")
    where = str(project.root / ".venv/lib")
    assert where in first
    assert first == second
    assert where in on_host(project, ".venv/bin/pip", "--version")
    prefix = on_host(project, ".venv/bin/python", "-c", "import sys; print(sys.prefix)")
    assert prefix.strip() == str(project.root / ".venv")
    assert broken_links(project.root / ".venv") == []


def test_what_cargo_built_is_not_built_again(project: Project):
    """Neither in the next run, nor by the host after it, nor in a run after the host's build."""
    need("cargo")
    fill(project, CARGO_FILES)
    home = os.path.expanduser("~")
    project.caller = {"RUSTUP_HOME": os.environ.get("RUSTUP_HOME", f"{home}/.rustup")}
    project.write({"build": "cargo build 2>&1 && target/debug/hello"}, policy='"Medium"')
    assert "Compiling" in passes(project, "build")
    assert "Compiling" not in passes(project, "build")
    assert "Compiling" not in on_host(project, "cargo", "build", "--offline")
    assert passes(project, "build").endswith("built\n")
    assert on_host(project, "target/debug/hello") == "built\n"


def test_links_of_node_modules_lead_to_their_programs(project: Project):
    """In the next phase, in the next run and on the host."""
    need("npm")
    fill(project, NPM_FILES)
    (project.root / "tool/cli.js").chmod(0o755)
    project.write({"init": "npm install", "test": "npm test"}, policy='"Medium"')
    assert "tool works" in passes(project, "init", "test")
    assert "tool works" in passes(project, "test")
    assert on_host(project, "node_modules/.bin/tool") == "tool works\n"
    assert broken_links(project.root / "node_modules") == []
