"""Projects of strangers in containers of an image that has their tools: Docker's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cleanroom.backends.containers import images
from support.container_harness import lacking, require
from support.strangers import Stranger

pytestmark = [pytest.mark.slow, pytest.mark.sandbox, pytest.mark.timeout(600)]

IMAGE = "cleanroom-tests/tools"
PACKAGES = ("python3", "python3-pip", "python3-venv", "git", "ca-certificates")
PLAN = images.ImagePlan(name=IMAGE, packages=(*PACKAGES, "npm", "golang-go", "cargo"))
MAKE = """[project]
name = "p"
[cleanroom]
image = "{image}"
[lifecycle.init]
command = "{init}"
[lifecycle.test]
command = "{test}"
"""
INTEGRITY = (
    "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9"
    "cGvNp6NZWZUBlbGXYxxng=="
)
MANIFEST = {"name": "p", "version": "1.0.0", "dependencies": {"is-number": "^7.0.0"}}
LOCK = {
    "name": "p",
    "version": "1.0.0",
    "lockfileVersion": 3,
    "packages": {
        "": MANIFEST,
        "node_modules/is-number": {"version": "7.0.0", "integrity": INTEGRITY},
    },
}


def make(init: str, test: str) -> str:
    return MAKE.format(image=IMAGE, init=init, test=test)


PROJECTS = {
    "pip": {
        "requirements.txt": "iniconfig==2.0.0 --hash="
        "sha256:b6a85871a79d2e3b22d2d1b94ac2824226a63c6b741c88f7ae975f18b6778374\n",
        ".gitignore": ".venv/\n",
        "make.toml": make(
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
            ".venv/bin/python -c 'import iniconfig'",
        ),
    },
    "npm": {
        "package.json": json.dumps(MANIFEST),
        "package-lock.json": json.dumps(LOCK),
        "index.js": "if (!require('is-number')(7)) process.exit(1);\n",
        ".gitignore": "node_modules\n",
        "make.toml": make("npm ci", "node index.js"),
    },
    "go": {
        "go.mod": "module example.com/app\n\ngo 1.19\n\nrequire github.com/google/uuid v1.6.0\n",
        "go.sum": "github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\n"
        "github.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=\n",
        "main.go": 'package main\n\nimport "github.com/google/uuid"\n\n'
        "func main() { println(uuid.Nil.String()) }\n",
        "make.toml": make("go mod download && go mod verify", "go run ."),
    },
    "cargo": {
        "Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
        '[dependencies]\nitoa = "=1.0.5"\n',
        "Cargo.lock": 'version = 3\n\n[[package]]\nname = "app"\nversion = "0.1.0"\n'
        'dependencies = [\n "itoa",\n]\n\n[[package]]\nname = "itoa"\nversion = "1.0.5"\n'
        'source = "registry+https://github.com/rust-lang/crates.io-index"\n'
        'checksum = "fad582f4b9e86b6caa621cabeb0963332d92eea04729ab12892c2533951e6440"\n',
        "src/main.rs": 'fn main() { assert_eq!(itoa::Buffer::new().format(7), "7"); }\n',
        ".gitignore": "target/\n",
        "make.toml": make("cargo fetch --locked", "cargo run -q --locked"),
    },
}


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Docker has the image; it is built from Debian's packages where there is none."""
    require("docker")
    if lacking("docker", IMAGE):
        built = images.build(PLAN, tmp_path_factory.mktemp("image"))
        load = ["docker", "load", "--quiet", "--input", built.archive]
        subprocess.run(load, check=True, timeout=300)
        Path(built.archive).unlink()


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("manager", PROJECTS)
def test_a_project_passes(tmp_path: Path, cache: Path, manager: str):
    """With the tools of the image, and nothing from caches of this machine's own tools."""
    stranger = Stranger(tmp_path, PROJECTS[manager], cache)
    stranger.backend = "docker"
    stranger.caller["CARGO_HOME"] = str(tmp_path / "own/cargo")
    cold, *_ = stranger.passes(("init", "test"), anew=("node_modules", ".venv", "target"))
    assert cold.fetched.get(manager)
