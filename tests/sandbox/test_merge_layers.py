"""Folding layers: the kernel's own overlay shows the same before and after."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.sandbox.filesystem import layers, merge_layers

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="overlays need Linux"),
]

NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/b/c"])
DEEDS = st.tuples(st.sampled_from(["write", "remove", "folder", "replace"]), NAMES)
# Carries out the deeds of one layer inside a mounted overlay, as a phase would.
PHASE = """
import os, shutil, sys
os.chdir(sys.argv[1])
for word in sys.argv[2:]:
    deed, name = word.split(":")
    try:
        if deed in ("remove", "replace"):
            shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
        if deed == "write":
            open(name, "w").write(word + str(sys.argv))
        if deed in ("folder", "replace"):
            os.mkdir(name)
    except OSError:
        pass
"""
LIST = """
import os, sys
for where, folders, files in os.walk(sys.argv[1]):
    for name in sorted(folders):
        print("folder", os.path.relpath(os.path.join(where, name), sys.argv[1]))
    for name in sorted(files):
        path = os.path.join(where, name)
        print("file", os.path.relpath(path, sys.argv[1]), open(path).read())
"""


def inside(project: Path, stack: list[Path], program: str, *words: str) -> str:
    """Run a program beside the overlay of these layers, oldest first;
    its first argument is where that is mounted.
    """
    lower = ":".join([*(str(layer / "upper") for layer in reversed(stack[:-1])), str(project)])
    newest, place = stack[-1], project.parent / "merged"
    place.mkdir(exist_ok=True)
    options = f"lowerdir={lower},upperdir={newest}/upper,workdir={newest}/work,userxattr"
    mount = f'mount -t overlay overlay -o {options} {place} && exec "$@"'
    argv = [
        "unshare",
        "-Urm",
        "sh",
        "-ec",
        mount,
        "sh",
        sys.executable,
        "-c",
        program,
        str(place),
        *words,
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def layer(folder: Path, project: Path) -> Path:
    layers.make(folder, project)
    return folder


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(DEEDS, min_size=1, max_size=4), min_size=2, max_size=5))
def test_a_folded_stack_shows_what_the_stack_showed(
    tmp_path_factory: pytest.TempPathFactory, phases: list[list[tuple[str, str]]]
):
    """Files, folders, deletions and folders that replace others,
    in any order over several phases.
    """
    folder = tmp_path_factory.mktemp("stack")
    project = folder / "project"
    for name in ("a/b", "b"):
        (project / name).mkdir(parents=True)
    for name in ("a/a", "a/b/c", "b/a"):
        (project / name).write_text("project")
    stack: list[Path] = []
    for number, deeds in enumerate(phases):
        stack.append(layer(folder / f"layer-{number}", project))
        inside(project, stack, PHASE, *(f"{deed}:{name}" for deed, name in deeds))
    before = inside(project, [*stack, layer(folder / "before", project)], LIST)
    folded = merge_layers.merge(stack)
    assert inside(project, [folded, layer(folder / "after", project)], LIST) == before
    assert [path for path in stack if path.exists()] == [folded]


def test_folders_keep_their_mode_and_time(tmp_path: Path):
    """What is closed to its owner is folded too, and is closed afterwards."""
    one, two = layer(tmp_path / "1", tmp_path), layer(tmp_path / "2", tmp_path)
    for made in (one, two):
        (made / "upper/closed").mkdir()
    (one / "upper/closed/file").touch()
    os.utime(two / "upper/closed", (1, 2))
    (two / "upper/closed").chmod(0)
    merge_layers.merge([one, two])
    info = (two / "upper/closed").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_mtime) == (0, 2)
    (two / "upper/closed").chmod(0o700)
    assert (two / "upper/closed/file").exists()
