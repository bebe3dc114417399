"""Packages that are not in the project, and what package managers are told where there is no network."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cleanroom.offline import SWITCHES, switches
from cleanroom.policy import Level, default_policy
from cleanroom.project.dependencies import missing_dependencies
from cleanroom.project.tools import visible_tools

MEDIUM = default_policy(Level.MEDIUM)
OPEN = msgspec.structs.replace(MEDIUM, egress=("example.org:443",))


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


LOCK = '[[package]]\nname = "itoa"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n'
SUM = "github.com/google/uuid v1.6.0 h1:x\n"
PACKAGE = '{"name": "n", "dependencies": {"left-pad": "^1.3.0"}}'


@pytest.mark.parametrize(
    ("command", "files", "helps"),
    [
        ("cargo test", {"Cargo.lock": LOCK}, "cargo vendor"),
        ("cargo test", {"Cargo.lock": LOCK, "vendor/itoa/x": ""}, ""),
        ("cargo test", {"Cargo.lock": LOCK, ".cargo/config.toml": '[source.crates-io]\nreplace-with = "here"'}, ""),
        ("cargo test", {"Cargo.lock": '[[package]]\nname = "mine"\n'}, ""),
        ("cd x && go test ./...", {"go.sum": SUM}, "go mod vendor"),
        ("go vet ./...", {"go.sum": SUM, "vendor/modules.txt": ""}, ""),
        ("npm test", {"package.json": PACKAGE}, "npm ci"),
        ("npm test", {"package.json": PACKAGE, "node_modules/left-pad/x": ""}, ""),
        ("npm test", {"package.json": '{"name": "n", "dependencies": {}}'}, ""),
        ("./cargo-like go.sum", {"Cargo.lock": LOCK, "go.sum": SUM}, ""),
    ],
)
def test_missing_packages_are_named_with_what_brings_them(tmp_path: Path, command: str, files: dict[str, str], helps: str):
    """A lock file that names packages, a command that needs them, and no folder that holds them: the line that helps."""
    found = missing_dependencies(laid_out(tmp_path, files), (command,), MEDIUM)
    assert helps in found
    assert bool(found) == bool(helps)


def test_a_phase_with_egress_misses_nothing(tmp_path: Path):
    """It may fetch its packages."""
    assert not missing_dependencies(laid_out(tmp_path, {"go.sum": SUM}), ("go test",), OPEN)


def test_package_managers_are_told_where_there_is_no_network():
    """From Medium on without egress they are offline; with a network they are left alone."""
    assert switches(MEDIUM) == switches(default_policy(Level.HIGH)) == SWITCHES
    assert switches(OPEN) == {}
    assert switches(default_policy(Level.LOW)) == {}


def test_packages_in_development_are_shown_with_their_virtual_environment(tmp_path: Path):
    """An editable install is part of what its environment points to; a line that is no path is not followed."""
    environment, elsewhere = tmp_path / "project/.venv", tmp_path / "library/src"
    elsewhere.mkdir(parents=True)
    laid_out(
        environment, {"pyvenv.cfg": "", "lib/python3.11/site-packages/_library.pth": f"{elsewhere}\nimport os; os.getcwd()\nrelative\n"}
    )
    assert str(elsewhere) in visible_tools({"PATH": "/usr/bin", "HOME": str(tmp_path)}, tmp_path / "project")
