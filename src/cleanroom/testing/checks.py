"""The suite that every backend must pass.

Each check's docstring is its line in `docs/backends.md`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec

from cleanroom.backends.base import (
    Backend,
    Environment,
    EnvironmentSpec,
    ExecResult,
    PortForward,
    Stream,
    Workspace,
    WorkspaceSpec,
)
from cleanroom.core.beneath import Folder
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import Level, Policy, default_policy

# for one check: only a hang reaches it; twenty containers at once take a tenth of it on a small
# machine
CHECK_SECONDS = 240.0
# The run of the environments: a backend that takes a run id when it is made must get this one.
CHECK_RUN_ID = f"check{os.getpid()}"

MakeBackend = Callable[[Path], Backend]  # from a scratch folder that is removed afterwards


class Bench:
    """A project, an entered backend, and environments of it, for one check."""

    def __init__(self, backend: Backend, root: Path, scratch: Path, image: str = "") -> None:
        self.backend = backend
        self.root = root
        self._scratch = scratch
        self._image = image
        self._number = 0
        self.output: dict[Stream, bytes] = {}

    def workspace_spec(self) -> WorkspaceSpec:
        return WorkspaceSpec(root=str(self.root), scratch=str(self._scratch / "workspace"))

    def spec(self, **fields: Any) -> EnvironmentSpec:
        self._number += 1
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
        given = {
            "id": f"check-{self._number}",
            "run_id": CHECK_RUN_ID,
            "role": "phase",
            "policy": default_policy(Level.MEDIUM),
            "variables": variables,
            "working_directory": str(self.root),
            "workspace": self.workspace_spec(),
            "image": self._image,
        }
        return EnvironmentSpec(**{**given, **fields})

    async def run(
        self, environment: Environment, *argv: str, timeout_seconds: float | None = None
    ) -> ExecResult:
        """Run a command (one word: a shell's text) and store its output in `output`."""
        received: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        words = ("sh", "-c", *argv) if len(argv) == 1 else argv
        result = await environment.exec(
            words,
            on_output=lambda stream, data: received[stream].extend(data),
            timeout_seconds=timeout_seconds,
        )
        self.output = {stream: bytes(data) for stream, data in received.items()}
        return result


Check = Callable[[Bench], Awaitable[None]]
Pair = tuple[Workspace, Environment]


async def check_backend(
    make_backend: MakeBackend, checks: Sequence[Check] = (), *, image: str = ""
) -> None:
    """Run every check, or these, on a backend of its own each, and the ledger after each one.

    `image` is the image for container backends.

    Raises:
        AssertionError: the backend does not keep the protocol.
    """
    for check in checks or CHECKS:
        with tempfile.TemporaryDirectory(prefix="cleanroom-check-") as folder:
            root, scratch = Path(folder, "project"), Path(folder, "scratch")
            root.mkdir()  # noqa: ASYNC240 -- a moment, in a test
            backend = make_backend(scratch)
            with anyio.fail_after(CHECK_SECONDS):
                async with backend:
                    await check(Bench(backend, root, scratch, image))
                created, removed, left = await backend.ledger()
            assert not left, f"{check.__name__}: left behind: {left}"
            assert created == removed, f"{check.__name__}: created {created}, removed {removed}"
            assert created > 0, f"{check.__name__}: nothing was counted"


async def _opened(bench: Bench, stack: AsyncExitStack, **fields: Any) -> Pair:
    workspace = await stack.enter_async_context(bench.backend.workspace(bench.workspace_spec()))
    environment = await stack.enter_async_context(bench.backend.environment(bench.spec(**fields)))
    return workspace, environment


EXIT, KILLED, OUTPUT, BINARY, LARGE = (
    "exit 7",
    "kill -9 $$",
    "printf a; printf b; printf c; printf x >&2",
    r"printf '\000\377\376'",
    ("head -c 104857600 /dev/zero | tr '\\000' x"),
)
LARGE_BYTES = 100 << 20
WRITE, READ, DELETE = "echo kept > made.txt", "cat made.txt", "rm old.txt"
HIDE, SEEK = "echo mine > /tmp/only-here", "cat /tmp/only-here"
WAIT, TOGETHER, LEAVE = (
    "echo started; exec sleep 1000",
    "echo together",
    "sleep 1000 > /dev/null 2>&1 &",
)
ADDRESS, PORT = "192.0.2.1", 9
CONNECT = f"python3 -c 'import socket; socket.create_connection((\"{ADDRESS}\", {PORT}), 1)'"


# an environment without a project
BARE: dict[str, Any] = {"workspace": None, "working_directory": "/"}
CANCELLED_MOMENTS = 8
SERVE = """exec python3 -c '
import socket
listening = socket.create_server(("127.0.0.1", 5555))
print("listening", flush=True)
while True:
    listening.accept()[0].sendall(b"hello")
'"""
ASK = """python3 -c '
import socket
print(socket.create_connection(("127.0.0.1", 7000), 5).recv(9).decode())
'"""
ASK_BY_NAME = ASK.replace("127.0.0.1", "echo")
ALLOCATE = "python3 -c 'bytearray(200 << 20)'"
FORK = "for number in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 3 & done; wait"


async def reports_how_a_command_ended(bench: Bench) -> None:
    """Exit statuses are those of a shell: its own, 128+n for a signal,
    127 for a program that is not there.
    """
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        assert (await bench.run(environment, EXIT)).exit_code == 7
        assert (await bench.run(environment, KILLED)).exit_code == 137
        assert (await bench.run(environment, "no-such-program", "argument")).exit_code == 127


async def gives_output_as_it_was(bench: Bench) -> None:
    """Bytes of both streams arrive whole and in order: without a line end, not text,
    and a hundred million of them.
    """
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        await bench.run(environment, OUTPUT)
        assert bench.output == {"stdout": b"abc", "stderr": b"x"}
        await bench.run(environment, BINARY)
        assert bench.output["stdout"] == b"\0\xff\xfe"
        await bench.run(environment, LARGE)
        assert bench.output["stdout"] == b"x" * LARGE_BYTES


async def gives_exactly_the_environment(bench: Bench) -> None:
    """A command's variables are those of the spec and no other,
    and it starts in the working directory.
    """
    async with AsyncExitStack() as stack:
        variables = {"PATH": "/usr/bin:/bin", "ODD": "a b\n=c", "EMPTY": ""}
        _, environment = await _opened(bench, stack, variables=variables)
        await bench.run(environment, "env", "-0")
        found = dict(
            entry.split("=", 1) for entry in bench.output["stdout"].decode().split("\0") if entry
        )
        assert found == variables
        await bench.run(environment, "pwd")
        assert bench.output["stdout"].decode().strip() == str(bench.root)


async def hands_files_on_and_back(bench: Bench) -> None:
    """The next environment sees the files that one writes; the project gets them
    when they are written back.
    """
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(bench.backend.workspace(bench.workspace_spec()))
        async with bench.backend.environment(bench.spec()) as first:
            assert (await bench.run(first, WRITE)).exit_code == 0
        assert [change.path for change in await workspace.changes()] == ["made.txt"]
        assert not (bench.root / "made.txt").exists(), (
            "the project was written before anything was brought back"
        )
        async with bench.backend.environment(bench.spec()) as second:
            await bench.run(second, READ)
            assert bench.output["stdout"] == b"kept\n"
        async with bench.backend.environment(bench.spec()) as third:
            await bench.run(third, WRITE)
        await workspace.changes()
        with Folder.at(bench.root.parent) as run:
            back = await workspace.write_back(None, run)
        assert back.files == 1
        assert not back.conflicts
        assert (bench.root / "made.txt").read_bytes() == b"kept\n"


async def brings_deletions_back(bench: Bench) -> None:
    """A file deleted inside exists on the host until the deletion is written back,
    and not afterwards.
    """
    (bench.root / "old.txt").write_text("old")
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(bench.backend.workspace(bench.workspace_spec()))
        async with bench.backend.environment(bench.spec()) as environment:
            assert (await bench.run(environment, DELETE)).exit_code == 0
        assert [(change.path, change.kind) for change in await workspace.changes()] == [
            ("old.txt", "deleted")
        ]
        assert (bench.root / "old.txt").exists()
        with Folder.at(bench.root.parent) as run:
            back = await workspace.write_back(None, run)
        assert back.deleted == 1
        assert not (bench.root / "old.txt").exists()


async def kills_what_is_cancelled(bench: Bench) -> None:
    """A cancelled command does not go on."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        with anyio.CancelScope() as scope:
            await environment.exec(
                ("sh", "-c", WAIT), on_output=lambda stream, data: scope.cancel()
            )
        assert scope.cancelled_caught
        assert await environment.left_over() == ()


async def ends_what_takes_too_long(bench: Bench) -> None:
    """At its timeout a command is ended, and the result says so."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        result = await bench.run(environment, WAIT, timeout_seconds=0.2)
        assert result.timed_out
        assert result.exit_code in (137, 143)
        assert await environment.left_over() == ()


async def runs_twenty_commands_at_once(bench: Bench) -> None:
    """Commands at the same time keep their own output and status."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        received = [bytearray() for _ in range(20)]
        statuses: list[int] = []

        async def one(number: int) -> None:
            result = await environment.exec(
                ("sh", "-c", TOGETHER), on_output=lambda stream, data: received[number].extend(data)
            )
            statuses.append(result.exit_code)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)
        assert statuses == [0] * 20
        assert [bytes(output) for output in received] == [b"together\n"] * 20


async def keeps_environments_apart(bench: Bench) -> None:
    """Files that one environment writes outside the workspace
    are not visible in another one at the same time.
    """
    async with AsyncExitStack() as stack:
        _, first = await _opened(bench, stack)
        second = await stack.enter_async_context(
            bench.backend.environment(bench.spec(workspace=None, working_directory="/"))
        )
        assert (await bench.run(first, HIDE)).exit_code == 0
        assert (await bench.run(first, SEEK)).exit_code == 0
        assert (await bench.run(second, SEEK)).exit_code != 0


async def names_what_was_left_running(bench: Bench) -> None:
    """A process that outlives its command is named, and does not outlive its environment."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        assert await environment.left_over() == ()
        await bench.run(environment, LEAVE)
        assert [left.kind for left in await environment.left_over()] == ["process"]


async def can_be_killed(bench: Bench) -> None:
    """`kill` ends a running command, and the environment with it."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        running = anyio.Event()
        ends: list[int | EnvironmentFailed] = []

        async def run() -> None:
            try:
                result = await environment.exec(
                    ("sh", "-c", WAIT), on_output=lambda stream, data: running.set()
                )
                ends.append(result.exit_code)
            except EnvironmentFailed as error:
                ends.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await running.wait()
            await environment.kill()
        assert ends == [137] or isinstance(ends[0], EnvironmentFailed)
        try:
            await bench.run(environment, EXIT)
        except EnvironmentFailed:
            return
        raise AssertionError("a command ran in an environment that was killed")


async def attributes_attempts(bench: Bench) -> None:
    """Where it claims to attribute network attempts: a connection out is refused,
    and the attempt names process and target.
    """
    report = await bench.backend.probe(Level.MEDIUM)
    claims = {row.dimension: row.attributed for row in report.dimensions}
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        if claims["network"] != "yes":
            return
        canaries = await environment.prove()
        assert canaries
        assert [canary for canary in canaries if canary.result != "passed"] == []
        assert (await bench.run(environment, CONNECT)).exit_code != 0
        async for attempt in environment.attempts():
            if "canary" not in attempt.tags:
                assert attempt.rule == "network.egress"
                assert (attempt.target.ip, attempt.target.port) == (ADDRESS, PORT)
                assert attempt.process is not None
                return
        raise AssertionError("the attempt was not reported")


async def leads_to_declared_services(bench: Bench) -> None:
    """A service's declared port is reached at 127.0.0.1 and by its name,
    and only from where it is declared.
    """
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            bench.backend.environment(bench.spec(role="service", **BARE))
        )
        forward = PortForward(service="echo", port=7000, environment=service.id, to="tcp:5555")
        listening, tasks = anyio.Event(), await stack.enter_async_context(anyio.create_task_group())

        async def serve() -> None:
            await service.exec(("sh", "-c", SERVE), on_output=lambda stream, data: listening.set())

        tasks.start_soon(serve)
        await listening.wait()
        client = await stack.enter_async_context(
            bench.backend.environment(bench.spec(port_forwards=(forward,), **BARE))
        )
        for command in (ASK, ASK_BY_NAME):
            assert (await bench.run(client, command)).exit_code == 0
            assert bench.output["stdout"] == b"hello\n"
        undeclared = await stack.enter_async_context(bench.backend.environment(bench.spec(**BARE)))
        assert (await bench.run(undeclared, ASK)).exit_code != 0
        tasks.cancel_scope.cancel()


async def bounds_memory(bench: Bench) -> None:
    """Where it claims to enforce limits: a command that uses more memory than its limit is killed,
    and the result says why.
    """
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(
            bench.backend.environment(bench.spec(policy=_limited(memory_bytes=64 << 20), **BARE))
        )
        if not await _claims_limits(bench):
            return
        result = await bench.run(environment, ALLOCATE)
        assert (result.exit_code, result.killed_for) == (137, "memory")
        assert (await bench.run(environment, EXIT)).exit_code == 7


async def bounds_processes(bench: Bench) -> None:
    """Where it claims to enforce limits: a process beyond the limit is refused and reported,
    and harms no other process.
    """
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(
            bench.backend.environment(bench.spec(policy=_limited(pids=16), **BARE))
        )
        if not await _claims_limits(bench):
            return
        assert (await bench.run(environment, FORK)).exit_code != 0
        async for attempt in environment.attempts():
            if attempt.rule == "resource.pids":
                return
        raise AssertionError("the refused processes were not reported")


async def makes_twenty_environments_at_once(bench: Bench) -> None:
    """Twenty environments, made, used and left at the same time."""
    statuses: list[int] = []

    async def one() -> None:
        async with bench.backend.environment(bench.spec(**BARE)) as environment:
            statuses.append(
                (
                    await environment.exec(
                        ("sh", "-c", TOGETHER), on_output=lambda stream, data: None
                    )
                ).exit_code
            )

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)
    assert statuses == [0] * 20


async def leaves_nothing_when_cancelled(bench: Bench) -> None:
    """Cancelled at moments from before an environment is requested until it is left:
    the ledger is even after each.
    """

    async def use_environment() -> None:
        async with AsyncExitStack() as stack:
            _, environment = await _opened(bench, stack)
            await bench.run(environment, TOGETHER)

    began = time.monotonic()
    await use_environment()
    duration_seconds = time.monotonic() - began
    for moment in range(CANCELLED_MOMENTS):
        with anyio.move_on_after(duration_seconds * moment / CANCELLED_MOMENTS):
            await use_environment()
        _, _, left = await bench.backend.ledger()
        assert left == (), f"cancelled after {moment} of {CANCELLED_MOMENTS} parts: {left}"
    await use_environment()


async def _claims_limits(bench: Bench) -> bool:
    report = await bench.backend.probe(Level.MEDIUM)
    return {row.dimension: row.enforced for row in report.dimensions}["resource"] == "yes"


def _limited(**limits: int) -> Policy:
    policy = default_policy(Level.MEDIUM)
    return msgspec.structs.replace(policy, limits=msgspec.structs.replace(policy.limits, **limits))


CHECKS: tuple[Check, ...] = (
    reports_how_a_command_ended,
    gives_output_as_it_was,
    gives_exactly_the_environment,
    hands_files_on_and_back,
    brings_deletions_back,
    kills_what_is_cancelled,
    ends_what_takes_too_long,
    runs_twenty_commands_at_once,
    keeps_environments_apart,
    names_what_was_left_running,
    can_be_killed,
    leads_to_declared_services,
    bounds_memory,
    bounds_processes,
    makes_twenty_environments_at_once,
    leaves_nothing_when_cancelled,
    attributes_attempts,
)
