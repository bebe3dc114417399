"""Level High in real environments of the embedded backend, through its own mounts,
filter and recorder.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cleanroom.backends.base import EnvironmentSpec, Mount, WorkspaceSpec
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.model.capability import Attempt, unmet
from cleanroom.model.policy import Level, default_policy

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

POLICY = default_policy(Level.HIGH)


class Inside:
    """An environment at High, and what is asked of it."""

    def __init__(self, environment: EmbeddedEnvironment) -> None:
        self.environment = environment

    async def run(self, command: str) -> tuple[int, str]:
        """The command's exit status and all that it said."""
        said = bytearray()
        result = await self.environment.exec(
            ("sh", "-c", command), on_output=lambda _, piece: said.extend(piece), timeout_seconds=20
        )
        return result.exit_code, said.decode()

    async def attempts(self) -> list[Attempt]:
        """What was recorded, without the habits of the C library; ends the environment."""
        await self.environment.kill()
        return [
            attempt
            async for attempt in self.environment.attempts()
            if "resolver" not in attempt.tags
        ]


@pytest.fixture
def inside(entered: Any, phase: Callable[..., EnvironmentSpec]) -> Any:
    @asynccontextmanager
    async def enter(**changes: object) -> AsyncIterator[Inside]:
        async with entered() as backend:
            if lacking := unmet(await backend.probe(Level.HIGH), Level.HIGH):
                pytest.skip(f"this machine cannot hold High: {lacking[0].rule}: {lacking[0].why}")
            # whose layers belong to the run's user
            spec = phase(**{"policy": POLICY, "run_id": f"t{os.getpid()}", **changes})
            assert isinstance(spec.workspace, WorkspaceSpec)
            async with backend.workspace(spec.workspace), backend.environment(spec) as environment:
                yield Inside(environment)

    return enter


async def test_every_canary_of_high_is_stopped_and_seen(inside: Any):
    """Reads, programs and ports outside the list are proven in the very environment,
    beside all that Medium proves.
    """
    async with inside() as high:
        canaries = await high.environment.prove()
        attempts = await high.attempts()
    assert [canary for canary in canaries if canary.result != "passed"] == []
    assert {"filesystem.reads", "process.exec", "network.listen"} <= {
        canary.rule for canary in canaries
    }
    assert attempts == []


async def test_the_workspace_starts_nothing_but_what_lies_in_its_build_folder(
    inside: Any, project: Path
):
    """PROC-01, PROC-02: a folder of `outputs` is the only one that was written where programs
    run.
    """
    shutil.copy("/bin/true", project / "tool")
    async with inside(build_outputs=("target/", "*.txt")) as high:
        built = await high.run(
            "mkdir target && cp tool target/tool && target/tool && mv target/tool "
            "target/other && target/other"
        )
        refused = [
            await high.run(f"cp tool {place} 2>/dev/null; {place}")
            for place in ("./tool", "/tmp/tool", "/dev/shm/tool", "~/tool")
        ]
        attempts = await high.attempts()
    assert built == (0, "")
    assert [status for status, _ in refused] == [126] * 4
    assert {attempt.rule for attempt in attempts} == {"process.exec"}
    assert all(attempt.process and attempt.errno == "EACCES" for attempt in attempts)


async def test_a_build_removes_and_renames_its_folder(inside: Any, project: Path):
    """`rm -rf dist` and `mv dist old` work; programs run in the new folder,
    and not in the old one.
    """
    (project / "dist").mkdir()
    shutil.copy("/bin/true", project / "dist/tool")
    async with inside(build_outputs=("dist/",)) as high:
        moved = await high.run("mv dist old && mkdir dist && cp old/tool dist/ && dist/tool")
        removed = await high.run(
            "rm -rf dist && mkdir -p dist/deep && cp old/tool dist/deep/ && dist/deep/tool"
        )
        old = await high.run("old/tool")
        attempts = await high.attempts()
    assert (moved, removed, old[0]) == ((0, ""), (0, ""), 126)
    assert [(a.rule, Path(a.target.path).name) for a in attempts] == [("process.exec", "tool")]
    assert "/old/" in attempts[0].target.path


async def test_a_declared_folder_that_no_phase_made_does_not_appear(
    entered: Any, phase: Callable[..., EnvironmentSpec], project: Path, tmp_path: Path
):
    """Neither inside nor among what the phase changed."""
    spec = phase(policy=POLICY, run_id=f"t{os.getpid()}", build_outputs=("dist/", "deep/er/"))
    async with entered() as backend:
        if lacking := unmet(await backend.probe(Level.HIGH), Level.HIGH):
            pytest.skip(f"this machine cannot hold High: {lacking[0].rule}")
        async with backend.workspace(spec.workspace) as workspace:
            async with backend.environment(spec) as environment:
                assert (await Inside(environment).run("ls"))[1].split() == ["file", "sub"]
            assert await workspace.changes() == ()


@pytest.mark.skipif(
    not Path("/lib/x86_64-linux-gnu/libz.so.1").exists(), reason="no library to copy"
)
async def test_a_library_is_loaded_from_the_build_folder_alone(inside: Any, project: Path):
    """Also where the workspace's mount lets programs be started:
    mapping it as a program is refused, and named.
    """
    shutil.copy("/lib/x86_64-linux-gnu/libz.so.1", project / "mine.so")
    load = "python3 -c 'import ctypes; ctypes.CDLL(\"{}\")'"
    async with inside(build_outputs=("dist/",)) as high:
        made = await high.run("mkdir dist && cp mine.so dist/")
        good = await high.run(load.format("./dist/mine.so"))
        bad = await high.run(load.format("./mine.so"))
        attempts = await high.attempts()
    assert (made, good, bad[0]) == ((0, ""), (0, ""), 1)
    assert [(a.rule, Path(a.target.path).name, a.errno) for a in attempts] == [
        ("process.exec", "mine.so", "EPERM")
    ]


async def test_tmp_starts_programs_where_the_project_says_so(inside: Any):
    """PROC-02: with `tmp_exec` programs of /tmp run at High."""
    async with inside(policy=msgspec.structs.replace(POLICY, tmp_exec=True)) as high:
        assert await high.run("cp /bin/true /tmp/tool && /tmp/tool") == (0, "")


async def test_a_tool_of_the_workspace_runs_and_cannot_be_changed(inside: Any, project: Path):
    """A declared folder of the project, such as its virtual environment,
    is read-only and may start programs.
    """
    (project / ".venv/bin").mkdir(parents=True)
    shutil.copy("/bin/true", project / ".venv/bin/tool")
    folder = str(project / ".venv")
    async with inside(mounts=(Mount(source=folder, target=folder),)) as high:
        assert await high.run(".venv/bin/tool") == (0, "")
        assert (await high.run("cp /bin/false .venv/bin/tool"))[0] != 0
        assert [attempt.rule for attempt in await high.attempts()] == ["filesystem.write"]


async def test_what_is_not_listed_is_not_there_and_looking_for_it_is_seen(inside: Any):
    """FS-18, FS-19: the host's other folders do not exist inside;
    reading a file of theirs is an attempt with process and path.
    """
    async with inside() as high:
        assert (await high.run("ls / | grep -E 'opt|srv|boot'"))[0] == 1
        assert (await high.run("cat /etc/shadow"))[0] == 1
        (attempt,) = await high.attempts()
    assert (attempt.rule, attempt.target.path, attempt.errno) == (
        "filesystem.reads",
        "/etc/shadow",
        "ENOENT",
    )
    assert attempt.process is not None
    assert attempt.process.argv == ("cat", "/etc/shadow")


async def test_ordinary_work_is_no_attempt(inside: Any):
    """FS-37 at High: shells, git and an interpreter of the system work,
    and nothing of it is held against the phase.
    """
    lines = (
        "ls -la >/dev/null",
        "git init -q . && git add file && git status --short",
        "python3 -c 'import ssl, sqlite3, json'",
        "cp -a sub other && rm -rf other",
    )
    async with inside() as high:
        done = [
            await high.run(line)
            for line in lines
            if shutil.which(line.split()[0], path="/usr/bin:/bin")
        ]
        attempts = await high.attempts()
    assert ([status for status, _ in done], attempts) == ([0] * len(done), [])


async def test_only_a_declared_port_is_listened_on(inside: Any):
    """NET-13: what the policy declares is listened on, every other port is refused and named."""
    serve = "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", {}))'"
    if not shutil.which("python3", path="/usr/bin:/bin"):
        pytest.skip("no interpreter in the system's folders")
    async with inside(policy=msgspec.structs.replace(POLICY, listen=(3000,))) as high:
        assert (await high.run(serve.format(3000)))[0] == 0
        assert (await high.run(serve.format(3001)))[0] == 1
        (attempt,) = await high.attempts()
    assert (attempt.rule, attempt.target.port) == ("network.listen", 3001)


async def test_proc_hides_init(inside: Any):
    """P1: /proc shows one's own processes and not the first one."""
    async with inside() as high:
        assert (await high.run("ls -d /proc/1"))[0] != 0


async def test_a_folder_below_the_homes_cache_is_read_and_starts_nothing(
    inside: Any, project: Path, tmp_path: Path
):
    """What the engine compiled for all projects is there; what is written above it goes with the
    phase, and no program of it is started.
    """
    below, owner = tmp_path / "below", project.stat()
    (below / "go-build").mkdir(parents=True)
    shutil.copy("/bin/true", below / "go-build/tool")
    for path in (below, *below.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    async with inside(home_below=str(below)) as high:
        assert await high.run("cd ~/.cache/go-build && test -s tool && touch mine") == (0, "")
        refused = await high.run("~/.cache/go-build/tool 2> /dev/null")
        attempts = await high.attempts()
    assert refused[0] == 126
    assert [attempt.rule for attempt in attempts] == ["process.exec"]
    assert [path.name for path in (below / "go-build").iterdir()] == ["tool"]
