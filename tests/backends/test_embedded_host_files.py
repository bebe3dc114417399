"""What a phase cannot do to files that are the host's own and stay:
the workspace at Low, the home's `.cache`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom.backends.base import EnvironmentSpec, WorkspaceSpec
from cleanroom.model.policy import Level, default_policy
from support.embedded_harness import Entered, Phase, run

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]
LOW = {
    "policy": default_policy(Level.LOW),
    "variables": {"PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"},
}
BITS = stat.S_ISUID | stat.S_ISGID


@pytest.fixture
def spec(phase: Phase, project: Path, tmp_path: Path) -> Callable[..., EnvironmentSpec]:
    """A phase of the project, whose layers belong to the run's user."""
    shared = WorkspaceSpec(root=str(project), scratch=str(tmp_path / "cache/runs/t/workspace"))
    return lambda **changes: phase(**{"workspace": shared, "run_id": f"t{os.getpid()}", **changes})


async def told(entered: Entered, spec: EnvironmentSpec, command: str) -> tuple[str, list[str]]:
    """What a command says, and the targets of what was recorded."""
    async with entered() as backend, backend.workspace(spec.workspace) as workspace:
        async with backend.environment(spec) as environment:
            _, said = await run(environment, command)
            await environment.kill()
            attempts = [attempt async for attempt in environment.attempts()]
        await workspace.finish_home(True)
    return said, [f"{a.rule} {a.target.path}" for a in attempts if not a.tags]


async def test_no_file_of_the_project_gets_such_a_bit_at_low(
    entered: Entered, spec: Callable[..., EnvironmentSpec], project: Path
):
    """By chmod, install and cp -p; other modes are set as they are asked for."""
    commands = (
        "umask 0; cp /bin/true own; chmod 4755 own; install -m 2755 own installed; "
        "cp /bin/true /tmp/t && chmod 6755 /tmp/t && cp -p /tmp/t copied; chmod 750 file; ls"
    )
    said, attempts = await told(entered, spec(**LOW), commands)
    assert {"own", "copied", "file"} <= set(said.split())
    assert [path.name for path in project.iterdir() if path.stat().st_mode & BITS] == []
    assert stat.S_IMODE((project / "file").stat().st_mode) == 0o750
    assert f"filesystem.metadata {project}/own" in attempts


async def test_a_folder_s_group_goes_to_what_is_made_in_it(
    entered: Entered, spec: Callable[..., EnvironmentSpec], project: Path
):
    """A folder that has the bit keeps it through chmod, and hands it to folders that are made in
    it.
    """
    os.chmod(project / "sub", 0o2755)
    commands = "mkdir sub/deep; chmod 2775 sub; chmod u+w sub/deep; echo x > sub/deep/file"
    _, attempts = await told(entered, spec(**LOW), commands)
    modes = [stat.S_IMODE((project / name).stat().st_mode) for name in ("sub", "sub/deep")]
    assert modes == [0o2775, 0o2755]
    assert not (project / "sub/deep/file").stat().st_mode & BITS
    assert attempts == []


@pytest.mark.parametrize("level", [Level.LOW, Level.MEDIUM])
async def test_no_file_of_the_home_s_cache_gets_one(
    entered: Entered, spec: Callable[..., EnvironmentSpec], tmp_path: Path, level: Level
):
    """It outlives the run, as the project does."""
    cache, home = tmp_path / "kept/project/level", tmp_path / "home"
    (home / ".cache").mkdir(parents=True)
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    if level is Level.MEDIUM:
        variables["HOME"] = "/home/cleanroom"
    changed = spec(policy=default_policy(level), home=str(cache), variables=variables)
    command = "cd ~/.cache && cp /bin/true own && chmod 4755 own; ls"
    said, attempts = await told(entered, changed, command)
    assert "own" in said
    (kept,) = cache.rglob("own")
    assert not kept.stat().st_mode & BITS
    assert attempts == [f"filesystem.metadata {variables['HOME']}/.cache/own"]


RACE = """
import ctypes, os, threading
call = ctypes.CDLL(None, use_errno=True).rename
os.makedirs("other", exist_ok=True)
path = ctypes.create_string_buffer(b".ggen", 16)
going = True
def flip():
    while going:
        path.value = b"other"
        path.value = b".ggen"
threading.Thread(target=flip).start()
for _ in range(3000):
    if call(path, b"moved") == 0 and os.path.isdir("moved"):
        if os.path.exists("moved/cleanroom"):
            print("moved")
            break
        os.rename("moved", "other")
going = False
"""


async def test_who_races_the_look_does_not_move_the_engine_s_folder_at_low(
    entered: Entered, spec: Callable[..., EnvironmentSpec], project: Path
):
    """Another thread exchanges the path after it was looked at: the kernel refuses by itself."""
    (project / ".ggen/cleanroom").mkdir(parents=True)
    said, attempts = await told(entered, spec(**LOW), f"python3 - <<'END'\n{RACE}\nEND")
    assert said == ""
    assert (project / ".ggen/cleanroom").is_dir()
    assert set(attempts) == {f"filesystem.write {project}/.ggen"}


async def test_the_kernel_alone_holds_the_engine_s_folder(
    entered: Entered, spec: Callable[..., EnvironmentSpec], project: Path
):
    """Where no call is held, as in a service: a mount point is not renamed and not removed."""
    (project / ".ggen/cleanroom").mkdir(parents=True)
    (project / "other").mkdir()
    command = "mv .ggen x; rmdir .ggen; mv -T other .ggen; mv .ggen/cleanroom x; ls .ggen"
    said, _ = await told(entered, spec(role="service"), command)
    assert said.count("busy") == 4, said
    assert said.splitlines()[-1] == "cleanroom"
