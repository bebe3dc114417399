"""Which Go toolchain is compiled for beforehand, and how what was compiled is kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cleanroom.engine.phases import go_standard_library as go


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def installed(root: Path, version: str = "go1.26.8") -> Path:
    """A Go installation; its folder of programs."""
    program(root / "bin/go")
    (root / "VERSION").write_text(f"{version}\ntime 2026-01-01T00:00:00Z\n")
    return root / "bin"


def test_a_toolchain_is_found_through_links(tmp_path: Path):
    """As a distribution links to the one that it chose."""
    real = installed(tmp_path / "lib/go-1.26")
    linked = tmp_path / "bin"
    linked.mkdir()
    (linked / "go").symlink_to(real / "go")
    found = go.find_toolchain(f"{linked}", "/work/p")
    assert found is not None
    assert found.version == "go1.26.8"
    assert found == go.find_toolchain(str(real), "/work/p")


def test_each_toolchain_and_compiler_has_its_own(tmp_path: Path):
    """What one compiled another does not find."""
    first = installed(tmp_path / "a")
    second = installed(tmp_path / "b", "go1.27")
    compiler = program(tmp_path / "cc/gcc").parent
    paths = (f"{first}", f"{second}", f"{first}:{compiler}")
    found = [go.find_toolchain(path, "/work/p") for path in paths]
    assert len({toolchain.key for toolchain in found if toolchain}) == 3


def test_the_projects_own_go_is_none(tmp_path: Path):
    """Nor is a program that belongs to no installation: a shim, or none at all."""
    project = installed(tmp_path / "project/tools")
    shim = program(tmp_path / "shims/go").parent
    for path, root in ((project, tmp_path / "project"), (shim, tmp_path), (tmp_path, tmp_path)):
        assert go.find_toolchain(str(path), str(root)) is None


def test_an_entry_is_neither_copied_nor_trimmed_by_go(tmp_path: Path):
    """Its time lies in the future, for a file alone; a link that was made is not followed."""
    work, outside = tmp_path / "work", tmp_path / "outside"
    (work / "go-build/00").mkdir(parents=True)
    (work / "go-build/00/x-d").touch()
    outside.touch()
    before = outside.stat().st_mtime
    (work / "go-build/00/link").symlink_to(outside)
    kept = tmp_path / "go/0-0/key"
    go._keep(work, kept, None)
    assert (kept / "go-build/00/x-d").stat().st_mtime > time.time() + 365 * 86400
    assert outside.stat().st_mtime == before
    assert not work.exists()


def test_who_comes_second_changes_nothing(tmp_path: Path):
    """Two runs may have compiled it at once."""
    kept = tmp_path / "go/0-0/key"
    for text in ("first", "second"):
        work = tmp_path / text
        (work / "go-build").mkdir(parents=True)
        (work / "go-build/x").write_text(text)
        go._keep(work, kept, None)
    assert (kept / "go-build/x").read_text() == "first"


def test_those_of_toolchains_that_are_gone_are_removed(tmp_path: Path):
    """When another is added; one in use has a time of now."""
    caches = tmp_path / "go/0-0"
    for name in ("old", "used"):
        (caches / name / "go-build").mkdir(parents=True)
        os.utime(caches / name, (0, 0))
    assert go._is_filled(caches / "used")
    work = tmp_path / "work"
    work.mkdir()
    go._keep(work, caches / "new", None)
    assert sorted(path.name for path in caches.iterdir()) == ["new", "used"]


@pytest.mark.parametrize("layer", ["0", "1"])
def test_a_project_that_compiled_it_already_is_not_made_to_wait(tmp_path: Path, layer: str):
    """Its own cache has it; an empty one, or none, has not."""
    home = tmp_path / "Medium"
    assert not go._has_build_cache(home)
    (home / layer).mkdir(parents=True)
    assert not go._has_build_cache(home)
    (home / layer / "go-build").mkdir()
    assert go._has_build_cache(home)


def test_only_modules_and_workspaces_have_a_use_for_it(tmp_path: Path):
    """Other projects pay two looks at a file."""
    path = str(installed(tmp_path / "go"))
    project = tmp_path / "p"
    project.mkdir()
    assert go._toolchain_for(str(project), str(project), path) is None
    (project / "go.mod").touch()
    assert go._toolchain_for(str(project), str(project), path) is not None
