"""Packages that are not in the project, and what package managers are told where there is no
network.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cleanroom.engine.phases.offline import SWITCHES, switches
from cleanroom.model.policy import Level, default_policy
from cleanroom.project.dependencies import missing_dependencies
from cleanroom.project.tools import editable_installs, visible_tools

MEDIUM = default_policy(Level.MEDIUM)
OPEN = msgspec.structs.replace(MEDIUM, egress=("example.org:443",))


def laid_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


LOCK = (
    '[[package]]\nname = "itoa"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n'
)
SUM = "github.com/google/uuid v1.6.0 h1:x\n"
PACKAGE = '{"name": "n", "dependencies": {"left-pad": "^1.3.0"}}'


@pytest.mark.parametrize(
    ("command", "files", "helps"),
    [
        ("cargo test", {"Cargo.lock": LOCK}, "cargo vendor"),
        ("cargo test", {"Cargo.lock": LOCK, "vendor/itoa/x": ""}, ""),
        (
            "cargo test",
            {"Cargo.lock": LOCK, ".cargo/config.toml": '[source.crates-io]\nreplace-with = "here"'},
            "",
        ),
        ("cargo test", {"Cargo.lock": '[[package]]\nname = "mine"\n'}, ""),
        ("cd x && go test ./...", {"go.sum": SUM}, "go mod vendor"),
        ("go vet ./...", {"go.sum": SUM, "vendor/modules.txt": ""}, ""),
        ("npm test", {"package.json": PACKAGE}, "npm ci"),
        ("npm test", {"package.json": PACKAGE, "node_modules/left-pad/x": ""}, ""),
        ("npm test", {"package.json": '{"name": "n", "dependencies": {}}'}, ""),
        ("./cargo-like go.sum", {"Cargo.lock": LOCK, "go.sum": SUM}, ""),
    ],
)
def test_missing_packages_are_named_with_what_brings_them(
    tmp_path: Path, command: str, files: dict[str, str], helps: str
):
    """A lock file that names packages, a command that needs them, and no folder that holds them:
    the line that helps.
    """
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


def test_packages_in_development_are_named_and_not_shown(tmp_path: Path):
    """What a project's own virtual environment says of folders outside is its word,
    not the caller's: they are named, a line that is no path is not.
    """
    environment, elsewhere = tmp_path / "project/.venv", tmp_path / "library/src"
    elsewhere.mkdir(parents=True)
    lines = f"{elsewhere}\nimport os; os.getcwd()\nrelative\n"
    laid_out(environment, {"pyvenv.cfg": "", "lib/python3.11/site-packages/_library.pth": lines})
    assert str(elsewhere) not in visible_tools(
        {"PATH": "/usr/bin", "HOME": str(tmp_path)}, tmp_path / "project"
    )
    assert editable_installs(tmp_path / "project") == (str(elsewhere),)


def test_packages_in_development_of_the_callers_environment_are_shown(tmp_path: Path):
    """A virtual environment outside of the project, which the caller's variable names,
    is the caller's word, and so is what it uses.
    """
    environment, elsewhere = tmp_path / "environment", tmp_path / "library/src"
    elsewhere.mkdir(parents=True)
    laid_out(
        environment,
        {"pyvenv.cfg": "", "lib/python3.11/site-packages/_library.pth": f"{elsewhere}\n"},
    )
    caller = {"PATH": "/usr/bin", "HOME": str(tmp_path / "home"), "VIRTUAL_ENV": str(environment)}
    assert str(elsewhere) in visible_tools(caller, tmp_path / "project")


@pytest.mark.parametrize(
    "files",
    [
        {"project/.venv/pyvenv.cfg": "home = {secret}\n"},
        {"project/.venv/pyvenv.cfg": "executable = {secret}/key\n"},
        {"project/.venv/pyvenv.cfg": "base-executable = {secret}/bin/tool\n"},
        {
            "project/.venv/pyvenv.cfg": "",
            "project/.venv/lib/python3.11/site-packages/x.pth": "{secret}\n",
        },
    ],
    ids=["home", "executable", "a bin folder", "pth"],
)
def test_a_file_of_the_project_cannot_have_a_folder_shown(tmp_path: Path, files: dict[str, str]):
    """A phase, or the repository, may write any of these; the next run shows no folder for it that
    is no interpreter's.
    """
    secret = tmp_path / "secret"
    laid_out(secret, {"key": "k", "bin/tool": "t", "lib/data": "d"})
    (secret / "bin/tool").chmod(0o755)
    laid_out(tmp_path, {name: text.format(secret=secret) for name, text in files.items()})
    assert (
        visible_tools(
            {"PATH": f"{tmp_path}/project/.venv/bin:/usr/bin", "HOME": str(tmp_path / "home")},
            tmp_path / "project",
        )
        == ()
    )


def test_a_link_of_the_project_cannot_have_a_folder_shown(tmp_path: Path):
    """Neither by a program that is a link, nor as a folder that is one,
    wherever it stands on PATH.
    """
    secret = tmp_path / "secret"
    laid_out(secret, {"key": "k", "bin/tool": "t", "lib/data": "d"})
    (secret / "bin/tool").chmod(0o755)
    laid_out(tmp_path, {"project/.venv/pyvenv.cfg": "", "project/tools/x": ""})
    (tmp_path / "project/.venv/bin").mkdir()
    (tmp_path / "project/.venv/bin/python").symlink_to(secret / "key")
    (tmp_path / "project/.venv/bin/tool").symlink_to(secret / "bin/tool")
    (tmp_path / "project/bin").symlink_to(secret / "bin")
    path = f"{tmp_path}/project/bin:{tmp_path}/project/.venv/bin:/usr/bin"
    assert visible_tools({"PATH": path, "HOME": str(tmp_path / "home")}, tmp_path / "project") == ()


def test_the_interpreter_of_the_projects_environment_is_shown(tmp_path: Path):
    """With its library, and nothing else that lies beside it."""
    python = tmp_path / "python"
    laid_out(python, {"bin/python3": "", "lib/python3.11/os.py": "", "share/x": ""})
    (python / "bin/python3").chmod(0o755)
    laid_out(tmp_path, {"project/.venv/pyvenv.cfg": f"home = {python}/bin\n"})
    (tmp_path / "project/.venv/bin").mkdir()
    (tmp_path / "project/.venv/bin/python").symlink_to(python / "bin/python3")
    assert visible_tools(
        {"PATH": "/usr/bin", "HOME": str(tmp_path / "home")}, tmp_path / "project"
    ) == (str(python),)
