"""Containers from beginning to end: what engines make of them,
and what is left when somebody dies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from cleanroom.backends.base import Environment, EnvironmentSpec, WorkspaceSpec
from cleanroom.backends.containers.client import ContainerClient, EngineName
from cleanroom.model.errors import CleanroomError, EnvironmentFailed, PolicyRefused, ProjectError
from cleanroom.model.policy import Level, default_policy
from support.container_harness import CACHE, ENGINES, IMAGE, backend, labelled, require

# a busy machine starts twenty containers in a minute
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

RUN_ID = f"c{os.getpid()}"


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    require(request.param)
    name: EngineName = request.param
    return name


def spec(**fields: object) -> EnvironmentSpec:
    given = {
        "id": "phase",
        "run_id": RUN_ID,
        "role": "phase",
        "policy": default_policy(Level.MEDIUM),
        "variables": {"LC_ALL": "C"},
        "image": IMAGE,
    }
    return EnvironmentSpec(**(given | fields))  # type: ignore[arg-type]


async def run(environment: Environment, text: str) -> tuple[int, str]:
    said = bytearray()
    result = await environment.exec(
        ("sh", "-c", text), on_output=lambda stream, piece: said.extend(piece)
    )
    return result.exit_code, said.decode(errors="replace")


async def test_canaries_pass_and_name_who_tried(engine: EngineName, tmp_path: Path):
    """Every canary of Medium with the container's own limits among them,
    and an attempt afterwards bears process and target.
    """
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec()) as environment,
    ):
        canaries = await environment.prove()
        assert [one for one in canaries if one.result != "passed"] == []
        assert {
            "tcp",
            "mount",
            "the container's own memory limit",
            "one byte too many in a file",
        } <= {one.name for one in canaries}
        assert (await run(environment, "echo x > /usr/mine; mount -t tmpfs none /mnt"))[0] != 0
        await environment.kill()
        seen = [attempt async for attempt in environment.attempts()]
        written = next(attempt for attempt in seen if str(attempt.target) == "/usr/mine")
        assert (written.rule, written.process is not None) == ("filesystem.write", True)
        (called,) = [attempt.process for attempt in seen if attempt.rule == "process.syscalls"]
        assert called is not None
        assert (called.comm, called.argv[-1]) == ("mount", "/mnt")


async def test_a_container_has_a_loopback_of_its_own_and_no_other_link(
    engine: EngineName, tmp_path: Path
):
    """A network namespace that is not the host's; `lo` is up in it, and it is all there is."""
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec()) as environment,
    ):
        _, links = await run(environment, "tail -n +3 /proc/net/dev | cut -d: -f1")
        _, own = await run(environment, "readlink /proc/self/ns/net")
        listened, said = await run(
            environment,
            (
                "python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); "
                "socket.create_connection(s.getsockname()); print('up')\""
            ),
        )
    assert (links.split(), listened, said) == (["lo"], 0, "up\n")
    assert own.strip() != os.readlink("/proc/self/ns/net")


async def test_the_ledger_waits_for_what_is_still_being_removed(engine: EngineName, tmp_path: Path):
    """Leaving an environment does not wait for the engine;
    whoever counts does, and so does leaving the backend.
    """
    async with backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made:
        async with made.environment(spec()):
            pass
        await made.ledger()
        assert labelled(engine, RUN_ID) == []
        async with made.environment(spec(id="again")):
            pass
    assert labelled(engine, RUN_ID) == []
    created, removed, left = await made.ledger()
    assert (created - removed, left) == (0, ())


async def test_a_start_that_comes_late_makes_no_folder_again(
    engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A cancelled start reaches the engine when the environment's folder has been removed:
    it fails, and the folder stays away.
    """
    door = tmp_path / "s/roots/phase/door"
    start = ContainerClient.start
    found: list[bool] = []

    async def start_late(client: ContainerClient, name: str) -> None:
        found.append(door.is_dir())
        shutil.rmtree(door)
        try:
            await start(client, name)
        finally:
            found.append(door.exists())

    monkeypatch.setattr(ContainerClient, "start", start_late)
    async with backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made:
        with pytest.raises(CleanroomError):
            async with made.environment(spec()):
                pass
        _, _, left = await made.ledger()
    assert (found, left) == ([True, False], ())


async def test_an_environment_sees_its_image_and_its_workspace(engine: EngineName, tmp_path: Path):
    """Debian's files from the image, the project's at their own path,
    and neither the host's home folders nor the engine's socket.
    """
    project = tmp_path / "project"
    project.mkdir()
    (project / "file").write_text("as it was\n")
    workspace = WorkspaceSpec(root=str(project), scratch=str(tmp_path / "cache/s/w"))
    async with (
        backend(engine, RUN_ID, tmp_path / "cache/s", tmp_path / "j") as made,
        made.workspace(workspace) as shown,
    ):
        async with made.environment(
            spec(workspace=workspace, working_directory=str(project))
        ) as environment:
            status, said = await run(
                environment,
                (
                    "cat file; test -e /var/lib/dpkg/status && ls -A /root; ls /run/docker.sock "
                    "/var/run/docker.sock; echo new > file"
                ),
            )
            assert (status, said.splitlines()[0]) == (0, "as it was")
            assert said.count("No such file") == 2
        assert (project / "file").read_text() == "as it was\n"
        assert [change.path for change in await shown.changes()] == ["file"]


async def test_a_path_is_the_images_own(engine: EngineName, tmp_path: Path):
    """Where a spec names none."""
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec()) as environment,
    ):
        assert (await run(environment, "echo $PATH"))[
            1
        ].strip() == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def test_memory_beyond_the_limit_ends_the_command_and_is_told(
    engine: EngineName, tmp_path: Path
):
    """By the container's own group: killed for memory, while the container goes on."""
    policy = default_policy(Level.MEDIUM)
    policy = msgspec.structs.replace(
        policy, limits=msgspec.structs.replace(policy.limits, memory_bytes=64 << 20)
    )
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec(policy=policy)) as environment,
    ):
        result = await environment.exec(
            ("python3", "-c", "bytearray(200 << 20)"), on_output=lambda stream, piece: None
        )
        assert (result.exit_code, result.killed_for) == (137, "memory")
        assert (await run(environment, "echo on"))[1] == "on\n"


async def test_a_container_that_somebody_removes_fails_its_environment(
    engine: EngineName, tmp_path: Path
):
    """Nobody waits for ever, and nothing is left."""
    from cleanroom.backends.containers.client import find_socket
    from cleanroom.sandbox.processes import container_cleanup

    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec()) as environment,
    ):
        (name,) = await asyncio.to_thread(labelled, engine, RUN_ID)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                asyncio.to_thread, container_cleanup.remove, find_socket(engine, os.environ), name
            )
            with pytest.raises(EnvironmentFailed):
                await run(environment, "sleep 100")
    created, removed, left = await made.ledger()
    assert (created, left) == (removed, ())


async def test_a_missing_image_is_the_projects_to_mend(engine: EngineName, tmp_path: Path):
    """With the way to get it; nothing is pulled."""
    async with backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made:
        for name, hint in (
            ("cleanroom/nothing", "image build"),
            ("registry.invalid/some:1", "pull"),
        ):
            with pytest.raises(ProjectError) as found:
                async with made.environment(spec(image=name)):
                    pass
            assert (found.value.code, hint in found.value.hint) == ("CR-CONTAINER-006", True)
        with pytest.raises(ProjectError) as unnamed:
            async with made.environment(spec(image="")):
                pass
        assert unnamed.value.code == "CR-CONTAINER-009"
    assert (await made.ledger())[2] == ()


async def test_an_ordinary_user_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """By name, before anything is made: nobody but root can see what is tried in a container."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PolicyRefused) as refused:
        async with backend("docker", RUN_ID, tmp_path / "s", tmp_path / "j"):
            pass
    assert refused.value.code == "CR-CONTAINER-007"


DIE = """
import asyncio, os, sys
from pathlib import Path
from cleanroom.backends.base import EnvironmentSpec
from cleanroom.backends.registry import make
from cleanroom.model.policy import Level, default_policy
engine, run_id, folder, cache, image = sys.argv[1:]
async def main():
    async with make(engine, run_id=run_id, scratch=Path(folder, "s"), journal=journal_at(Path(folder, "j")), cache=Path(cache), caller=os.environ) as backend:
        spec = EnvironmentSpec(id="one", run_id=run_id, role="phase", policy=default_policy(Level.MEDIUM), variables={}, image=image)
        print("entered", flush=True)
        async with backend.environment(spec) as environment:
            await environment.exec(("sh", "-c", "echo; exec sleep 1000"), on_output=lambda stream, piece: print("running", flush=True))
asyncio.run(main())
"""  # noqa: E501


@pytest.mark.parametrize(
    "moment",
    [lambda said: said.readline() and said.readline(), lambda said: said.readline()],
    ids=["running", "being made"],
)
def test_a_killed_engines_containers_are_removed(
    engine: EngineName, tmp_path: Path, moment: Callable[..., object]
):
    """By the keeper, within seconds: also one whose creation was asked for and not answered yet."""
    import subprocess
    import time

    run_id = f"{RUN_ID}k"
    words = [sys.executable, "-c", DIE, engine, run_id, str(tmp_path), str(CACHE), IMAGE]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as child:
        assert child.stdout is not None
        moment(child.stdout)
        child.send_signal(signal.SIGKILL)
        child.wait()
        deadline = time.monotonic() + 30
        settled = 0
        while time.monotonic() < deadline and settled < 5:
            settled = (
                settled + 1
                if labelled(engine, run_id) == [] and not (tmp_path / "s").exists()
                else 0
            )
            time.sleep(0.1)
    assert labelled(engine, run_id) == []
    assert not (tmp_path / "s").exists(), "the keeper removes its folders last"
