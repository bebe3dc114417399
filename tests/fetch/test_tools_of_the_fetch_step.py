"""Tools that the fetch step runs, and entries that it leaves out, through the real command."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.store import Store

NEEDS = pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
pytestmark = [pytest.mark.sandbox, NEEDS]

MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'
LOCK = """
[[package]]
name = "a"
version = "1"
source = { registry = "https://pypi.example/simple" }
wheels = [{ url = "https://files.example/a-1-py3-none-any.whl", hash = "sha256:00" }]
"""
CONNECTS = """#!/bin/sh
exec python3 -c 'import socket; socket.create_connection(("192.0.2.1", 9))'
"""


class Said(NamedTuple):
    code: int
    err: str


def run(tmp_path: Path, files: dict[str, str], uv: str, *words: str) -> Said:
    """The command in a project with these files, with this program in the place of uv."""
    project, tools = tmp_path / "project", tmp_path / "tools"
    for folder in (project, tools):
        folder.mkdir()
    for name, text in {"make.toml": MAKE, **files}.items():
        (project / name).write_text(text)
    if uv:
        (tools / "uv").write_text(uv)
        (tools / "uv").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom", *(words or ("pipeline", "test"))],
        cwd=project,
        env={
            "PATH": f"{tools}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "CLEANROOM_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=90,
    )
    return Said(done.returncode, done.stderr)


@pytest.mark.parametrize("uv", ["", "#!/bin/sh\necho it is broken >&2\nexit 3\n"])
def test_a_tool_that_is_missing_or_fails_is_a_warning(tmp_path: Path, uv: str):
    """Phases may not need it; its own words are in the warning."""
    said = run(tmp_path, {"uv.lock": LOCK, "pyproject.toml": ""}, uv)
    assert said.code == 0, said.err
    assert "CR-FETCH-009" in said.err
    assert ("it is broken" in said.err) == bool(uv)


def test_a_tool_that_cannot_lay_its_packages_out_is_a_warning(tmp_path: Path):
    """As one that fails earlier; `fetch` says 5."""
    fails = (
        "#!/bin/sh\n"
        'if [ "$1" = python ]; then exec sh -c "command -v python3"; fi\n'
        "echo no sync >&2; exit 3\n"
    )
    said = run(tmp_path, {"uv.lock": "package = []\n", "pyproject.toml": ""}, fails)
    assert said.code == 0, said.err
    assert "CR-FETCH-009" in said.err
    assert "no sync" in said.err


def test_offline_names_the_file_whose_packages_are_missing(tmp_path: Path):
    """Which words pip would have been asked with says nothing to a reader."""
    said = run(tmp_path, {"requirements.txt": "six\n"}, "", "pipeline", "test", "--offline")
    assert said.code == 0, said.err
    assert "pip: not in the store: what requirements.txt asks for" in said.err


def test_a_tool_that_tries_what_nobody_declared_ends_the_run(tmp_path: Path):
    """It is the caller's own, but what it reads came with the project."""
    said = run(tmp_path, {"uv.lock": LOCK, "pyproject.toml": ""}, CONNECTS)
    assert said.code == 5, said.err
    assert "CR-FETCH-007" in said.err
    assert "192.0.2.1" in said.err


def test_a_tool_sees_nothing_of_the_project_but_its_lock(tmp_path: Path):
    """And nothing of the caller's home."""
    (tmp_path / ".netrc").write_text("machine x login y password z\n")
    looks = '#!/bin/sh\nls -A >&2; cat "$HOME/.netrc" >&2; exit 3\n'
    files = {"uv.lock": LOCK, "pyproject.toml": "", "secret.txt": "x"}
    said = run(tmp_path, files, looks)
    assert "secret.txt" not in said.err
    assert "password" not in said.err


def test_a_tool_sees_of_the_store_what_it_is_served(tmp_path: Path):
    """It may be of a registry that the project names, and others' packages lie there too."""
    store = Store(tmp_path / "cache")
    for body in (b"the project's", b"another one's"):
        (tmp_path / "file").write_bytes(body)
        store.add(Artifact(name="a", version="1", file="a", url=""), tmp_path / "file")
    wheel = hashlib.sha256(b"the project's").hexdigest()
    looks = (
        "#!/bin/sh\n"
        'if [ "$1" = python ]; then exec sh -c "command -v python3"; fi\n'
        f"echo sees $(find {tmp_path}/cache -type f | xargs cat | wc -c) bytes >&2; exit 3\n"
    )
    lock = LOCK.replace("sha256:00", f"sha256:{wheel}")
    said = run(tmp_path, {"uv.lock": lock, "pyproject.toml": ""}, looks)
    assert f"sees {len(b'the project+s')} bytes" in said.err


def test_an_entry_that_is_not_fetched_is_named(tmp_path: Path):
    """CR-FETCH-008, with what helps."""
    lock = '{"packages": {"node_modules/a": {"version": "1"}}}'
    said = run(tmp_path, {"package-lock.json": lock}, "")
    assert said.code == 0, said.err
    assert "CR-FETCH-008" in said.err
    assert "node_modules/a" in said.err


def test_a_lock_that_cannot_be_read_is_an_error_of_the_project(tmp_path: Path):
    """CR-FETCH-006, exit 2."""
    said = run(tmp_path, {"package-lock.json": "{"}, "")
    assert said.code == 2, said.err
    assert "CR-FETCH-006" in said.err
    assert "package-lock.json:1:1" in said.err


def test_a_phase_with_a_network_is_left_to_it(tmp_path: Path):
    """Where no phase is offline nothing is fetched, and no lock is read."""
    make = MAKE + 'cleanroom.egress = ["192.0.2.1:9"]\n'
    said = run(tmp_path, {"make.toml": make, "package-lock.json": "{"}, "")
    assert said.code == 0, said.err
