"""Whatever phases do to a tree, the project has it afterwards;
whatever somebody else does meanwhile, nothing of it is lost.

Phases act in the kernel's own overlay, with the workspace of the embedded backend below and above
it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.backends.base import WorkspaceSpec, WrittenBack
from cleanroom.backends.embedded.copied_workspace import CopiedWorkspace
from cleanroom.backends.embedded.workspace import EmbeddedWorkspace, HostWorkspace
from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import merge_layers
from support.layer_harness import open_up, snapshot

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="overlays need Linux"),
]

PATHS = ("a", "b", "a/a", "a/b", "b/a", "a/b/c", "a/b/d", "b/c", "b/a/c")
DEEDS = (
    "write",
    "append",
    "remove",
    "folder",
    "rename",
    "replace",
    "chmod",
    "link",
    "symlink",
    "rebuild",
    "touch",
    "unreturnable",
)
Deed = tuple[str, str, str, int]
deeds = st.tuples(
    st.sampled_from(DEEDS),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
    st.integers(0, 5),
)
phases = st.lists(st.lists(deeds, min_size=1, max_size=6), min_size=2, max_size=4)

# Carries out deeds in a folder, as programs do. What an overlay does otherwise than a plain folder,
# and the engine says so, is left out: writing to one of several names or moving one; only c and d
# are names of files that may have others. And a folder that lies below is moved by copying.
PHASE = r"""
import json, os, shutil, sys
os.chdir(sys.argv[1])
MODES = (0o644, 0o600, 0o755, 0o700, 0o555, 0o444)

def put(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)

def remove(path):
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    else:
        shutil.rmtree(path)

def is_file(path):
    return os.path.isfile(path) and not os.path.islink(path)

def is_folder(path):
    return os.path.isdir(path) and not os.path.islink(path)

def may_have_names(path):
    return path[-1] in "cd"

def carry_out(deed, path, other, digit, text):
    if deed == "write" and not os.path.islink(path):
        remove(path) if os.path.isfile(path) else None
        with open(path, "x") as file:
            file.write(text)
    elif deed == "append" and is_file(path) and not may_have_names(path):
        with open(path, "a") as file:
            file.write(text)
    elif deed == "touch" and is_file(path) and not may_have_names(path):
        os.utime(path)
    elif deed == "remove":
        remove(path)
    elif deed == "folder":
        os.mkdir(path)
    elif deed == "rename" and is_folder(path):
        if not os.path.lexists(other) and not other.startswith(path + "/"):
            shutil.copytree(path, other, symlinks=True)
            remove(path)
    elif deed == "rename" and is_file(path) and may_have_names(path):
        put(other, open(path).read())
        remove(path)
    elif deed == "rename":
        os.rename(path, other)
    elif deed == "replace":
        remove(path)
        os.mkdir(path) if digit % 2 else put(path, text)
    elif deed == "rebuild":
        remove(path)
        os.mkdir(path)
        put(path + "/" + "ab"[digit % 2], text)
    elif deed == "chmod" and is_folder(path):
        os.chmod(path, MODES[digit] | 0o100)
    elif deed == "chmod" and is_file(path) and not may_have_names(path):
        os.chmod(path, MODES[digit])
    elif deed == "link" and is_file(path) and may_have_names(path) and may_have_names(other):
        os.link(path, other)
    elif deed == "symlink":
        os.symlink(("a", "b/a", "c")[digit % 3], path)
    elif deed == "unreturnable" and sys.argv[4] == "layers":
        os.mkfifo("fifo")

for number, (deed, path, other, digit) in enumerate(json.loads(sys.argv[2])):
    try:
        carry_out(deed, path, other, digit, f"{sys.argv[3]}.{number}" * (1 + digit))
    except OSError:
        pass
"""


def own_space(script: str, *words: str) -> None:
    """Run a shell's text as root of a user namespace, in a mount namespace."""
    argv = ["unshare", "-Urm", "sh", "-ec", script, "sh", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def act(place: Path, what: list[Deed], name: str, where: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PHASE, str(place), json.dumps(what), name, where)


class LayeredRun:
    """A run's workspace on a project, whose phases act in an overlay."""

    workspace: HostWorkspace

    def __init__(self, base: Path, project: Path) -> None:
        (base / "merged").mkdir(parents=True)
        self.base, self.project = base, project
        spec = WorkspaceSpec(root=str(project), scratch=str(base / "scratch"))
        self.workspace = self.layered = EmbeddedWorkspace(spec, os.geteuid())

    def phase(self, what: list[Deed], name: str) -> None:
        """In a layer of its own."""
        stack = anyio.run(self.layered.push)
        lower = ":".join([*(f"{layer}/upper" for layer in stack[1:]), str(self.project)])
        place = self.base / "merged"
        upper = f"upperdir={stack[0]}/upper,workdir={stack[0]}/work,userxattr"
        mount = f'mount -t overlay overlay -o "lowerdir={lower},{upper}" {place} && exec "$@"'
        own_space(mount, *act(place, what, name, "layers"))

    def write_back(self) -> WrittenBack:
        """All that the last phase changed."""

        async def bring() -> WrittenBack:
            await self.workspace.changes()
            with Folder.at(self.base) as run:
                return await self.workspace.write_back(None, run)

        return anyio.run(bring)


class CopiedRun(LayeredRun):
    """One whose phases act in a copy."""

    def __init__(self, base: Path, project: Path) -> None:
        base.mkdir()
        self.base = base
        spec = WorkspaceSpec(root=str(project), scratch=str(base / "scratch"))
        self.workspace = self.copied = CopiedWorkspace(spec, base / "copy", os.geteuid())

    def phase(self, what: list[Deed], name: str) -> None:
        own_space('exec "$@"', *act(self.copied.place, what, name, "layers"))


RUNS = pytest.mark.parametrize("kind", [LayeredRun, CopiedRun])


def begin(project: Path) -> None:
    for name in ("a/b", "b"):
        (project / name).mkdir(parents=True)
    for name in ("a/a", "a/b/c", "b/a"):
        (project / name).write_text(f"project {name}")
    os.link(project / "a/b/c", project / "a/b/d")


@contextmanager
def layers_max(number: int) -> Iterator[None]:
    """So that few layers are folded."""
    before, merge_layers.LAYERS_MAX = merge_layers.LAYERS_MAX, number
    try:
        yield
    finally:
        merge_layers.LAYERS_MAX = before


@RUNS
@settings(
    max_examples=int(os.environ.get("EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(run_phases=phases)
def test_layers_brought_back_are_a_plain_run(
    kind: type[LayeredRun],
    tmp_path_factory: pytest.TempPathFactory,
    run_phases: list[list[Deed]],
) -> None:
    """Types, bytes, modes, targets, names of one file, empty folders: the same, and no conflict."""
    base = tmp_path_factory.mktemp("run")
    plain, project = base / "plain", base / "project"
    begin(plain)
    begin(project)
    run = kind(base / "run", project)
    with layers_max(2):
        for number, what in enumerate(run_phases):
            own_space('exec "$@"', *act(plain, what, f"{number}", "plain"))
            run.phase(what, f"{number}")
            back = run.write_back()
            assert (back.conflicts, back.failed) == ((), ())
            assert snapshot(project) == snapshot(plain)
    open_up(base)


HOST = st.tuples(
    st.sampled_from(
        ("write", "same", "add", "rename over", "swap folders", "remove", "chmod", "link")
    ),
    st.sampled_from(PATHS),
    st.sampled_from(PATHS),
)


def meddle(project: Path, deed: str, path: Path, other: Path, token: str) -> None:
    """What somebody else does to the project, if it can be done."""
    if deed == "write":
        path.write_text(token)
    elif deed == "same":  # what the first deed of a phase writes
        path.write_text("0.0")
    elif deed == "add":
        (path / "theirs").write_text(token)
    elif deed in ("rename over", "swap folders"):
        made = project.parent / "made"
        if deed == "swap folders":
            made.mkdir()
            (made / "c").write_text(token)
            path.rename(project.parent / f"away{token}")
        else:
            made.write_text(token)
            os.utime(made, (1, 1))
        made.rename(path)
    elif deed == "remove":
        path.unlink()
    elif deed == "chmod":
        path.chmod(0o700 if path.is_dir() else 0o640)
    elif deed == "link":
        os.link(path, other)


def theirs(project: Path) -> set[str]:
    """Texts of somebody else's that are in the project."""
    files = [path for path in project.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    return {text for path in files if (text := path.read_text()).startswith("theirs")}


@RUNS
@settings(
    max_examples=int(os.environ.get("EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(run_phases=phases, edits=st.lists(st.lists(HOST, max_size=2), min_size=8, max_size=8))
def test_nothing_of_somebody_else_s_is_lost(
    kind: type[LayeredRun],
    tmp_path_factory: pytest.TempPathFactory,
    run_phases: list[list[Deed]],
    edits: list[list[tuple[str, str, str]]],
) -> None:
    """What was written on the host during a run is there after each bringing back,
    at whatever path.
    """
    base = tmp_path_factory.mktemp("run")
    project = base / "project"
    begin(project)
    run = kind(base / "run", project)
    moments = iter(edits)

    def edit() -> None:
        for number, (deed, path, other) in enumerate(next(moments)):
            token = f"theirs {number} {len(os.listdir(base / 'run'))} {os.urandom(4).hex()}"
            try:
                meddle(project, deed, project / path, project / other, token)
            except OSError:
                pass

    with layers_max(2):
        for number, what in enumerate(run_phases):
            edit()
            run.phase(what, f"{number}")
            edit()
            before = theirs(project)
            run.write_back()
            assert before <= theirs(project)
    open_up(base)
