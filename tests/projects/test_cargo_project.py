"""A project of a stranger that uses cargo: its phases pass without a network."""

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
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed"),
]

FILES = {
    "Cargo.toml": '[workspace]\nmembers = ["app", "lib"]\nresolver = "2"\n'
    '[patch.crates-io]\ncfg-if = { path = "patched" }\n',
    "app/Cargo.toml": '[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
    '[dependencies]\nlib = { path = "../lib" }\nitoa = "1"\ncfg-if = "1"\n',
    "app/src/main.rs": 'fn main() { println!("{}", itoa::Buffer::new().format(lib::seven())); }\n',
    "lib/Cargo.toml": '[package]\nname = "lib"\nversion = "0.1.0"\nedition = "2021"\n'
    '[dev-dependencies]\nwasi = "=0.11.1"\n',
    "lib/src/lib.rs": "pub fn seven() -> u32 { 7 }\n#[test]\nfn is() { assert_eq!(seven(), 7); }\n",
    "patched/Cargo.toml": '[package]\nname = "cfg-if"\nversion = "1.0.99"\nedition = "2021"\n',
    "patched/src/lib.rs": "",
    ".cargo/config.toml": '[alias]\nsay = "run -q -p app --"\n',
    "make.toml": '[project]\nname = "p"\n'
    '[lifecycle.init]\ncommand = "cargo fetch --locked"\n'
    '[lifecycle.test]\ncommand = "cargo test -q --workspace && cargo say > said.txt"\n',
}


def test_its_phases_pass_and_its_lock_stays(tmp_path: Path):
    """From an empty cache; again offline, with nothing fetched; its files as they were."""
    root = tmp_path / "project"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["cargo", "generate-lockfile", "-q"], cwd=root, check=True, timeout=120)
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
        assert (root / "said.txt").read_text() == "7\n"
    assert {path: path.read_bytes() for path in before} == before
