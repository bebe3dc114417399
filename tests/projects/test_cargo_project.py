"""Projects of strangers that use cargo: their phases pass without a network."""

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
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed"),
]

WORKSPACE = {
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
    ".gitignore": "target/\n",
    "make.toml": '[project]\nname = "p"\n'
    '[lifecycle.init]\ncommand = "cargo fetch --locked"\n'
    '[lifecycle.test]\ncommand = "cargo test -q --workspace && cargo say > said.txt"\n',
}


def test_a_workspace_with_a_patch_passes(tmp_path: Path, cache: Path):
    """Members that depend on each other, and a crate that the project replaces by its own."""
    stranger = Stranger(tmp_path, WORKSPACE, cache)
    stranger.prepare("cargo generate-lockfile -q")
    stranger.passes(("init", "test"))
    assert (stranger.root / "said.txt").read_text() == "7\n"
