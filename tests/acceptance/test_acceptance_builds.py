"""At High a build starts what it built where the project says so, with real Go and Rust; through
the real command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.command_harness import Project
from support.required_tools import require_or_skip

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]
BUILDS = "`cleanroom.builds = true`"
GO_FILES = {
    "go.mod": "module example.org/sum\n\ngo 1.18\n",
    # Nothing of the standard library but what a test binary needs: it is compiled first.
    "sum_test.go": 'package sum\n\nimport "testing"\n\nfunc TestSum(t *testing.T) {}\n',
}
CARGO_FILES = {
    "Cargo.toml": '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n',
    "build.rs": 'fn main() { println!("cargo:rustc-env=MADE=built"); }\n',
    "src/main.rs": 'fn main() { println!("{}", env!("MADE")); }\n',
}


def fill(project: Project, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = project.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def installation(program: str, *query: str) -> str:
    """The folder of a real toolchain, asked from its program."""
    if shutil.which(program) is None:
        require_or_skip(program, f"no {program} on PATH")
    done = subprocess.run([program, *query], capture_output=True, text=True, check=False)
    if done.returncode:
        require_or_skip(program, done.stderr)
    return done.stdout.strip()


def test_go_test_starts_the_binary_that_it_built(project: Project):
    """It lies in the folder for temporary files; without the line the phase fails and names it."""
    root = installation("go", "env", "GOROOT")
    fill(project, GO_FILES)
    for builds, code in (("false", 1), ("true", 0)):
        project.write(
            {"test": "go test ./..."}, policy='"High"', tools=f'["{root}"]', builds=builds
        )
        # Without the standard library of all projects, which takes longer on a busy machine.
        said = project.call("pipeline", "test", "--fresh")
        assert said.code == code, said.err
        assert (BUILDS in said.phase("test")["reason"]) is (code == 1)


def test_cargo_starts_build_scripts_and_the_project_its_program(project: Project):
    """They lie in `target/`, a declared output; without the line the phase fails and names it."""
    root = Path(installation("rustc", "--print", "sysroot"))
    fill(project, CARGO_FILES)
    for builds, code in (("false", 1), ("true", 0)):
        project.write(
            {"build": f"export PATH={root}/bin:$PATH; cargo build && target/debug/hello"},
            policy='"High"',
            tools=f'["{root}"]',
            outputs='["target/"]',
            builds=builds,
        )
        said = project.call("pipeline", "build")
        assert said.code == code, said.err
        assert (BUILDS in said.phase("build")["reason"]) is (code == 1)
