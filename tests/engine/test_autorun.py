"""What tools of the host start by themselves."""

from __future__ import annotations

import pytest

from cleanroom.engine.phases.autorun import TABLE, started_by


@pytest.mark.parametrize(
    ("path", "by"),
    [
        (".envrc", "direnv"),
        ("deep/er/.envrc", "direnv"),
        (".VSCode/Tasks.json", "Visual Studio Code"),
        (".husky/pre-commit", "managers of git hooks"),
        (".github/workflows/ci.yml", "continuous integration"),
        (".venv/bin/python", "whatever a PATH leads to"),
        ("node_modules/.bin/tsc", "whatever a PATH leads to"),
        (".venv/lib/python3.11/site-packages/x.pth", "Python"),
        ("sitecustomize.py", "Python"),
        ("tests/conftest.py", "pytest"),
        (".cargo/config.toml", "cargo and rust-analyzer"),
        (".gitconfig", "git"),
        ("app/gradle.properties", "JVM build tools"),
        (".bsp/tool.json", "JVM build tools"),
        ("home/.config/mise.toml", "version managers"),
    ],
)
def test_what_starts_by_itself_is_known_at_any_depth_and_in_any_case(path: str, by: str):
    """Names of the table count wherever they lie, as a tool would find them there."""
    assert started_by(path) == by


NO_NEWS = ["src/main.c", "bin/Debug/net8/app.dll", "Makefile", "package.json", ".github/x", "a/pth"]


@pytest.mark.parametrize("path", NO_NEWS)
def test_what_a_person_starts_or_builds_is_not_counted(path: str):
    """Sources and what is built by name are no news."""
    assert started_by(path) == ""


@pytest.mark.parametrize("package", ["node_modules/x", "lib/site-packages/x"])
def test_installed_packages_count_for_what_still_starts_there(package: str):
    """Programs in them do, and the settings that their authors' tools read do not."""
    assert started_by(f"{package}/.travis.yml") == ""
    assert started_by(f"{package}/bin/x") != ""


def test_a_link_in_the_place_of_a_folder_counts():
    """A link called .husky is one; a folder of that name starts nothing by itself."""
    assert started_by(".husky") != ""
    assert started_by(".husky", is_folder=True) == ""


def test_every_name_of_the_table_can_be_found():
    """No row is written in a form that nothing looks up."""
    for row in TABLE:
        for name in row.names.split():
            path = f"a/{name}".replace("*", "x") + "b" * name.endswith("/")
            assert started_by(path), name
