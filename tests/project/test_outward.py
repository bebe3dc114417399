"""What leads out of a project: links and manifests, and what nobody is told to show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom.project import outward


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = Path(os.path.realpath(tmp_path)) / "work/project"
    made.mkdir(parents=True)
    (made.parent / "lib").mkdir()
    (made.parent / "lib/file").write_text("1\n")
    return made


def found(project: Path, *shown: str, home: str = "/home/nobody") -> list[tuple[str, str]]:
    items = outward.find(str(project), shown, home)
    return [(item.name, os.path.relpath(item.to, project.parent)) for item in items]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("Cargo.toml", '[dependencies]\nlib = { path = "../lib" }\n', 2),
        ("go.mod", "module m\n\nreplace example.org/lib => ../lib\n", 3),
        ("go.work", "use (\n\t.\n\t../lib\n)\n", 3),
        ("package.json", '{"dependencies": {\n"lib": "file:../lib"}}', 2),
        ("requirements-dev.txt", "-e ../lib\n", 1),
        ("requirements.txt", "lib @ file:../lib#egg=lib\n", 1),
        ("pyproject.toml", '[tool.uv.sources]\nlib = { path = "../lib", editable = true }\n', 2),
        ("settings.gradle", "includeBuild '../lib'\n", 1),
    ],
)
def test_a_path_dependency_is_found_in_its_line(project: Path, name: str, text: str, line: int):
    """Each manager's way to say it."""
    (project / name).write_text(text)

    assert found(project) == [(f"{name}:{line}", "lib")]


def test_links_and_linked_packages_are_found(project: Path):
    """Those in the project, and those that package managers make for folders beside it."""
    (project / "node_modules/@scope").mkdir(parents=True)
    (project / "shared").symlink_to("../lib")
    (project / "node_modules/@scope/lib").symlink_to("../../../lib")
    (project / "one").symlink_to("../lib/file")

    names = ["node_modules/@scope/lib", "one", "shared"]
    assert [name for name, _ in found(project)] == names
    line = outward.described(outward.find(str(project), (), ""))
    assert f'`cleanroom.tools = ["{project.parent}/lib"]`' in line


def test_what_is_shown_or_lies_inside_is_not_listed(project: Path):
    """Nor what does not exist, nor a folder around the project."""
    (project / "inner").mkdir()
    (project / "a").symlink_to("inner")
    (project / "b").symlink_to("../gone")
    (project / "c").symlink_to("..")
    (project / "d").symlink_to("../lib")
    (project / "inner/package.json").write_text('{"x": "file:../inner"}')

    assert found(project, str(project.parent / "lib")) == []


def test_nobody_is_told_to_show_credentials(project: Path):
    """A link of a stranger's project may name them."""
    home = project.parent / "home"
    (home / ".ssh").mkdir(parents=True)
    (project / "key").symlink_to("../home/.ssh")
    (project / "all").symlink_to("../home")

    assert found(project, home=str(home)) == []


def test_a_manifest_that_would_block_is_not_read(project: Path):
    """A FIFO in its place, or a link."""
    os.mkfifo(project / "Cargo.toml")
    (project / "go.mod").symlink_to("Cargo.toml")

    assert found(project) == []


def test_a_hostile_project_costs_no_more_than_it_may(project: Path):
    """Twenty are enough."""
    for number in range(50):
        (project / f"l{number}").symlink_to("../lib")

    assert len(found(project)) == outward.FOUND_MAX
