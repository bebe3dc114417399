"""For tests of whoever builds on the engine: plans in a line, runs without a disk, and the suite that every backend must pass.

`run_plan` makes no thread and touches only a temporary folder, so it runs in virtual time too (`@pytest.mark.looptime`: an hour's timeout is instant).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from cleanroom.backends.base import Backend, Environment, EnvironmentSpec, ExecResult, Stream, Workspace, WorkspaceSpec
from cleanroom.backends.memory import Fault, Inside, MemoryBackend, Program, Script, forever, succeed
from cleanroom.bus import Bus
from cleanroom.capability import Attempt, Process, Target
from cleanroom.clock import LoopClock
from cleanroom.errors import EnvironmentFailed
from cleanroom.events import Envelope
from cleanroom.plan import PhaseRun, Plan
from cleanroom.plan import Workspace as PlannedWorkspace
from cleanroom.policy import Level, default_policy
from cleanroom.redaction import Redactor
from cleanroom.reports.fold import fold
from cleanroom.reports.result import RunResult
from cleanroom.running import Place, Run, settle
from cleanroom.services import Recipe
from cleanroom.subscribers import monitor, recovery

__all__ = [
    "CHECKS", "CHECK_RUN_ID", "CHECK_SCRIPT", "Bench", "Fault", "Inside", "MemoryBackend", "Outcome", "Program", "Script", "check_backend", "forever", "phase", "plan",
    "run_plan", "succeed",
]  # fmt: skip

EVENTS_MAX = 1_000_000  # of one run: a test that needs more has lost control of itself
CHECK_SECONDS = 60.0  # for one check: a hundred times what the slowest takes
CHECK_RUN_ID = f"check{os.getpid()}"  # of the environments: a backend that is told the run when it is made has to be told this one


class Outcome(NamedTuple):
    """What a run came to, and everything that happened."""

    result: RunResult
    events: tuple[Envelope, ...]
    run: Run


def phase(name: str, *commands: str, **fields: Any) -> PhaseRun:
    """A phase at Medium that runs these commands within ten minutes, unless `fields` say otherwise."""
    return PhaseRun(**{"name": name, "commands": commands, "policy": default_policy(Level.MEDIUM), "timeout_seconds": 600.0, **fields})


def plan(*phases: PhaseRun, root: str = "", **fields: Any) -> Plan:
    """A plan of one workspace on the memory backend. Without `root`, `run_plan` uses a temporary folder."""
    given = {
        "project": "demo", "root": root, "file": "make.toml", "dialect": "A", "environment": "", "backend": "memory",
        "policy": default_policy(Level.MEDIUM), "requested": tuple(phase.name for phase in phases),
        "workspaces": (PlannedWorkspace(name="", path=root, phases=phases),),
    }  # fmt: skip
    return Plan(**{**given, **fields})


async def run_plan(
    plan: Plan,
    backend: MemoryBackend | None = None,
    *,
    recipes: Sequence[Recipe] = (),
    caller: Mapping[str, str] | None = None,
    started: Callable[[Run], None] = lambda run: None,
) -> Outcome:
    """Carry out a plan on the memory backend, with monitor and recovery and without files of evidence. `started` gets the run before it begins."""
    with tempfile.TemporaryDirectory(prefix="cleanroom-test-") as folder:
        there = Path(folder)
        if not plan.root:
            project = there / "project"
            project.mkdir()
            workspaces = tuple(msgspec.structs.replace(w, path=w.path or str(project)) for w in plan.workspaces)
            plan = msgspec.structs.replace(plan, root=str(project), workspaces=workspaces)
        place = Place(
            root=Path(plan.root),
            folder=there / "run",
            audit=there / "audit",
            reports=None,
            scratch=there / "scratch",
            templates=there / "templates",
            home="",
        )
        bus = Bus("run-1", LoopClock())
        heard = bus.subscribe("test", limit=EVENTS_MAX)
        used = backend or MemoryBackend(Script(otherwise=succeed()))
        run = Run(
            plan, place, bus, Redactor(), caller=caller or {"PATH": "/usr/bin:/bin"}, make=lambda name: used, recipes=lambda: tuple(recipes)
        )
        started(run)
        seen = [
            bus.subscribe("monitor", monitor.READS, limit=EVENTS_MAX),
            bus.subscribe("recovery", recovery.READS, limit=EVENTS_MAX),
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_to_its_end, partial(monitor.run, seen[0], bus))
            tasks.start_soon(_to_its_end, partial(recovery.run, seen[1], run.send, seed=plan.seed))
            try:
                await run.as_span(_NoLogs(there))
            finally:
                with anyio.CancelScope(shield=True):
                    await settle(seen)
                    bus.close()
        events = tuple(await heard.batch())
        return Outcome(fold(events), events, run)


async def _to_its_end(work: Callable[[], Awaitable[None]]) -> None:
    """A subscriber outlives the cancellation of what it observes."""
    with anyio.CancelScope(shield=True):
        await work()


class _NoLogs:
    """Log files that nobody will read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        """Forget it: the events hold what a test looks at."""

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.log"


# --- one suite for every backend


MakeBackend = Callable[[Path], Backend]  # from a scratch folder that is removed afterwards


class Bench:
    """A project, an entered backend, and environments of it, for one check."""

    def __init__(self, backend: Backend, root: Path, scratch: Path, image: str = "") -> None:
        self.backend = backend
        self.root = root
        self._scratch = scratch
        self._image = image
        self._number = 0
        self.said: dict[Stream, bytes] = {}

    def workspace_spec(self) -> WorkspaceSpec:
        return WorkspaceSpec(root=str(self.root), scratch=str(self._scratch / "workspace"))

    def spec(self, **fields: Any) -> EnvironmentSpec:
        self._number += 1
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
        given = {
            "id": f"check-{self._number}", "run_id": CHECK_RUN_ID, "role": "phase", "policy": default_policy(Level.MEDIUM), "variables": variables,
            "working_directory": str(self.root), "workspace": self.workspace_spec(), "image": self._image,
        }  # fmt: skip
        return EnvironmentSpec(**{**given, **fields})

    async def run(self, environment: Environment, *argv: str, timeout_seconds: float | None = None) -> ExecResult:
        """Run a command (one word: a shell's text) and keep what it says in `said`."""
        heard: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        words = ("sh", "-c", *argv) if len(argv) == 1 else argv
        result = await environment.exec(words, on_output=lambda stream, data: heard[stream].extend(data), timeout_seconds=timeout_seconds)
        self.said = {stream: bytes(data) for stream, data in heard.items()}
        return result


Check = Callable[[Bench], Awaitable[None]]
Pair = tuple[Workspace, Environment]


async def check_backend(make_backend: MakeBackend, checks: Sequence[Check] = (), *, image: str = "") -> None:
    """Run every check, or these, on a backend of its own each, and the ledger after each one. `image` is what backends of containers run it in.

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
    ("head -c 10485760 /dev/zero | tr '\\000' x"),
)
LARGE_BYTES = 10 << 20
WRITE, READ, DELETE = "echo kept > made.txt", "cat made.txt", "rm old.txt"
HIDE, SEEK = "echo mine > /tmp/only-here", "cat /tmp/only-here"
WAIT, TOGETHER, LEAVE = "echo started; exec sleep 1000", "echo together", "sleep 1000 > /dev/null 2>&1 &"
ADDRESS, PORT = "192.0.2.1", 9
CONNECT = f"python3 -c 'import socket; socket.create_connection((\"{ADDRESS}\", {PORT}), 1)'"


async def reports_how_a_command_ended(bench: Bench) -> None:
    """Exit statuses are those of a shell: its own, 128+n for a signal, 127 for a program that is not there."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        assert (await bench.run(environment, EXIT)).exit_code == 7
        assert (await bench.run(environment, KILLED)).exit_code == 137
        assert (await bench.run(environment, "no-such-program", "argument")).exit_code == 127


async def gives_output_as_it_was(bench: Bench) -> None:
    """Bytes of both streams arrive whole and in order: without a line end, not text, and ten million of them."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        await bench.run(environment, OUTPUT)
        assert bench.said == {"stdout": b"abc", "stderr": b"x"}
        await bench.run(environment, BINARY)
        assert bench.said["stdout"] == b"\0\xff\xfe"
        await bench.run(environment, LARGE)
        assert bench.said["stdout"] == b"x" * LARGE_BYTES


async def gives_exactly_the_environment(bench: Bench) -> None:
    """A command's variables are those of the spec and no other, and it starts in the working directory."""
    async with AsyncExitStack() as stack:
        variables = {"PATH": "/usr/bin:/bin", "ODD": "a b\n=c", "EMPTY": ""}
        _, environment = await _opened(bench, stack, variables=variables)
        await bench.run(environment, "env", "-0")
        found = dict(entry.split("=", 1) for entry in bench.said["stdout"].decode().split("\0") if entry)
        assert found == variables
        await bench.run(environment, "pwd")
        assert bench.said["stdout"].decode().strip() == str(bench.root)


async def hands_files_on_and_back(bench: Bench) -> None:
    """What one environment writes the next one sees, the project does not, until it is brought back."""
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(bench.backend.workspace(bench.workspace_spec()))
        async with bench.backend.environment(bench.spec()) as first:
            assert (await bench.run(first, WRITE)).exit_code == 0
        assert [change.path for change in await workspace.changes()] == ["made.txt"]
        assert not (bench.root / "made.txt").exists(), "the project was written before anything was brought back"
        async with bench.backend.environment(bench.spec()) as second:
            await bench.run(second, READ)
            assert bench.said["stdout"] == b"kept\n"
        async with bench.backend.environment(bench.spec()) as third:
            await bench.run(third, WRITE)
        await workspace.changes()
        back = await workspace.bring_back(None, bench.root.parent / "conflicts")
        assert back.files == 1
        assert not back.conflicts
        assert (bench.root / "made.txt").read_bytes() == b"kept\n"


async def brings_deletions_back(bench: Bench) -> None:
    """A file deleted inside is there on the host until that is brought back, and gone afterwards."""
    (bench.root / "old.txt").write_text("old")
    async with AsyncExitStack() as stack:
        workspace = await stack.enter_async_context(bench.backend.workspace(bench.workspace_spec()))
        async with bench.backend.environment(bench.spec()) as environment:
            assert (await bench.run(environment, DELETE)).exit_code == 0
        assert [(change.path, change.kind) for change in await workspace.changes()] == [("old.txt", "deleted")]
        assert (bench.root / "old.txt").exists()
        back = await workspace.bring_back(None, bench.root.parent / "conflicts")
        assert back.deleted == 1
        assert not (bench.root / "old.txt").exists()


async def kills_what_is_cancelled(bench: Bench) -> None:
    """A cancelled command does not go on."""
    async with AsyncExitStack() as stack:
        _, environment = await _opened(bench, stack)
        with anyio.CancelScope() as scope:
            await environment.exec(("sh", "-c", WAIT), on_output=lambda stream, data: scope.cancel())
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
        heard = [bytearray() for _ in range(20)]
        statuses: list[int] = []

        async def one(number: int) -> None:
            result = await environment.exec(("sh", "-c", TOGETHER), on_output=lambda stream, data: heard[number].extend(data))
            statuses.append(result.exit_code)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)
        assert statuses == [0] * 20
        assert [bytes(said) for said in heard] == [b"together\n"] * 20


async def keeps_environments_apart(bench: Bench) -> None:
    """What one environment writes outside the workspace, another one at the same time does not see."""
    async with AsyncExitStack() as stack:
        _, first = await _opened(bench, stack)
        second = await stack.enter_async_context(bench.backend.environment(bench.spec(workspace=None, working_directory="/")))
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
                result = await environment.exec(("sh", "-c", WAIT), on_output=lambda stream, data: running.set())
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
    """Where it claims to attribute network attempts: a connection out is refused, and the attempt names process and target."""
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
        raise AssertionError("the attempt was not told")


CHECKS: tuple[Check, ...] = (
    reports_how_a_command_ended, gives_output_as_it_was, gives_exactly_the_environment, hands_files_on_and_back, brings_deletions_back,
    kills_what_is_cancelled, ends_what_takes_too_long, runs_twenty_commands_at_once, keeps_environments_apart, names_what_was_left_running,
    can_be_killed, attributes_attempts,
)  # fmt: skip


# --- the same commands for the memory backend


async def _output(inside: Inside) -> int:
    inside.write(b"abc")
    inside.write(b"x", "stderr")
    return 0


async def _variables(inside: Inside) -> int:
    inside.write(b"".join(f"{name}={value}\0".encode() for name, value in inside.variables.items()))
    return 0


async def _where(inside: Inside) -> int:
    inside.write(inside.working_directory.encode() + b"\n")
    return 0


async def _read(inside: Inside) -> int:
    inside.write(inside.read_file("made.txt") or b"")
    return 0


async def _delete(inside: Inside) -> int:
    inside.delete_file("old.txt")
    return 0


async def _hide(inside: Inside) -> int:
    inside.environment.private["only-here"] = b"mine"
    return 0


async def _seek(inside: Inside) -> int:
    return 0 if "only-here" in inside.environment.private else 1


async def _wait(inside: Inside) -> int:
    inside.write(b"started\n")
    return await forever(inside)


async def _leave(inside: Inside) -> int:
    inside.leave("sleep 1000")
    return 0


async def _connect(inside: Inside) -> int:
    inside.attempt(egress_attempt(ADDRESS, PORT))
    return 1


def egress_attempt(ip: str, port: int) -> Attempt:
    """A refused connection, as a backend that attributes tells it."""
    return Attempt(
        environment="", dimension="network", rule="network.egress", outcome="blocked", mechanism="script", certainty="held_syscall",
        target=Target(ip=ip, port=port, proto="tcp"), process=Process(pid=4242, exe="/usr/bin/python3", comm="python3"), syscall="connect",
        errno="ECONNREFUSED",
    )  # fmt: skip


CHECK_SCRIPT = Script(
    programs={
        EXIT: succeed(exit_code=7), KILLED: succeed(exit_code=137), OUTPUT: _output, BINARY: succeed(b"\0\xff\xfe"), LARGE: succeed(b"x" * LARGE_BYTES),
        "env -0": _variables, "pwd": _where, WRITE: succeed(files={"made.txt": b"kept\n"}), READ: _read, DELETE: _delete, HIDE: _hide, SEEK: _seek,
        WAIT: _wait, TOGETHER: succeed(b"together\n"), LEAVE: _leave, CONNECT: _connect,
    },
)  # fmt: skip
