"""A server in an environment of its own, as a run's services have it, without a project.

It is reached on 127.0.0.1 through the environment's relay, restarted when it dies,
and gone when its block is left or its process is killed.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import ByteStream

from cleanroom.backends import registry
from cleanroom.backends.base import Backend, Stream
from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock, new_run_id
from cleanroom.core.files import LogFiles, hold
from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.core.redaction import Redactor
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.model.capability import CapabilityReport, unmet
from cleanroom.model.errors import PolicyRefused
from cleanroom.model.plan import Plan, ServiceSpec
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.journal import Journal
from cleanroom.servers.addresses import ExecResult
from cleanroom.services import Recipe, TemplateCache, resolve

LEVEL = Level.MEDIUM  # as a project's services have it unless the project says otherwise
HOST = "127.0.0.1"
BACKLOG = 128  # connections that wait to be accepted: as many as a test that opens a pool at once
TIMED_OUT = 124  # as `timeout` exits


class OwnServer:
    """The running server. Its methods run in the loop that it runs in."""

    def __init__(
        self, recipe: Recipe, supervisor: Supervisor, context: RunContext, port: int
    ) -> None:
        self.recipe = recipe
        self.version = recipe.version
        self.host = HOST
        self.port = port
        self._supervisor = supervisor
        self._context = context

    async def dial(self) -> ByteStream:
        """A connection to its socket, once it is ready.

        Raises:
            OSError: nobody listens there.
            CleanroomError: it will not be ready, for this reason.
        """
        environment = await self._supervisor.ready_environment(self.recipe.name)
        return await environment.dial(self.recipe.to)

    async def exec(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout_seconds: float
    ) -> ExecResult:
        """Run a command where the server runs, beside it, with these variables too.

        A program without a folder is looked for beside the server's own first.

        Raises:
            CleanroomError: the server will not be ready, or ended meanwhile.
        """
        output: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

        def collect(stream: Stream, data: bytes) -> None:
            output[stream].extend(data)

        environment = await self._supervisor.ready_environment(self.recipe.name)
        set_variables = [f"{name}={value}" for name, value in variables.items()]
        ended = await environment.exec(
            ("env", *set_variables, self._program(argv[0]), *argv[1:]),
            on_output=collect,
            timeout_seconds=timeout_seconds,
        )
        return ExecResult(
            exit_code=TIMED_OUT if ended.timed_out else ended.exit_code,
            stdout=output["stdout"].decode(errors="replace"),
            stderr=output["stderr"].decode(errors="replace"),
        )

    async def logs(self) -> str:
        """What the server has written so far."""
        path = self._context.logs.path(f"service-{self.recipe.name}")
        return await anyio.to_thread.run_sync(_text, path)

    def _program(self, name: str) -> str:
        beside = Path(self.recipe.server).parent / name
        return str(beside) if "/" not in name and beside.is_file() else name


@asynccontextmanager
async def serve(
    spec: ServiceSpec, folder: str | Path | None, caller: Mapping[str, str]
) -> AsyncIterator[OwnServer]:
    """Run one service under supervision. Its log and journal lie in `folder`.

    Raises:
        CleanroomError: it cannot be started here; see the code.
    """
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        files = (
            Path(folder)
            if folder
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cleanroom-")))
        )
        context, recipe, cache = await _open(stack, spec, files, caller)
        listening = stack.enter_context(socket.create_server((HOST, 0), backlog=BACKLOG))
        supervisor = await stack.enter_async_context(_supervised(context, recipe, cache))
        supervisor.forward(recipe.name, listening)
        try:
            await supervisor.wait_ready((recipe.name,))
            yield OwnServer(recipe, supervisor, context, listening.getsockname()[1])
        # raised below: the task groups in between would make a group of it
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


async def _open(
    stack: AsyncExitStack, spec: ServiceSpec, files: Path, caller: Mapping[str, str]
) -> tuple[RunContext, Recipe, TemplateCache]:
    """The backend and the context of a run's services, without phases and reports."""
    cache = cache_folder(caller)
    stack.enter_context(await anyio.to_thread.run_sync(open_cache, cache))
    templates = TemplateCache(cache / "services")
    work = partial(resolve, (spec,), caller=caller, root=str(files), cache=templates)
    (recipe,) = await anyio.to_thread.run_sync(work)
    clock, redactor = SystemClock(), Redactor()
    redactor.add(*recipe.secrets)
    bus = Bus(new_run_id(clock.wall_ns()), clock, redactor=redactor)
    plan = Plan(
        project=spec.name,
        root=str(files),
        file="",
        dialect="A",
        environment="",
        backend="auto",
        policy=default_policy(LEVEL),
        requested=(),
        workspaces=(),
        services=(spec,),
    )
    scratch = cache / "runs" / bus.run_id
    held = stack.enter_context(hold(files))
    logs = stack.enter_context(LogFiles(held))
    backend = await _enter_backend(
        stack, plan, bus.run_id, scratch, partial(Journal.at, held, f"{bus.run_id}.journal")
    )
    folder = await backend.folder(scratch / "data")
    stack.push_async_callback(_drop, backend, folder)
    context = RunContext(
        run_id=bus.run_id,
        plan=plan,
        bus=bus,
        backend=backend,
        logs=logs,
        redactor=redactor,
        caller=caller,
        scratch=scratch / "data",
        folder=held,
    )
    return context, recipe, templates


async def _enter_backend(
    stack: AsyncExitStack, plan: Plan, run_id: str, scratch: Path, journal: Callable[[], Journal]
) -> Backend:
    """Enter the first backend that can enforce the level.

    Raises:
        PolicyRefused: no backend can.
    """
    make = partial(registry.make, run_id=run_id, scratch=scratch, journal=journal)
    names = registry.candidates(plan.backend)
    backend, _ = await registry.enter_first(stack, names, make, LEVEL, _refusal)
    return backend


def _refusal(report: CapabilityReport) -> PolicyRefused | None:
    lacking = unmet(report, LEVEL)
    if not lacking:
        return None
    first, name = lacking[0], report.backend
    return PolicyRefused(
        "CR-POLICY-004",
        f"a server needs {first.rule}, which backend {name} cannot hold here: {first.why}",
        hint=first.hint or "`cleanroom-engine doctor` tells what this machine holds",
    )


@asynccontextmanager
async def _supervised(
    context: RunContext, recipe: Recipe, cache: TemplateCache
) -> AsyncIterator[Supervisor]:
    """The service under supervision, with monitor and recovery; the bus closes last."""
    from cleanroom.subscribers import monitor, recovery

    judged = context.bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT)
    seen = context.bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(monitor.run, judged, context.bus)
        try:
            async with supervise(context, (recipe,), cache) as supervisor:
                tasks.start_soon(
                    partial(recovery.run, seen, supervisor.send, seed=context.plan.seed)
                )
                yield supervisor
        finally:
            context.bus.close()


async def _drop(backend: Backend, folder: object) -> None:
    with anyio.CancelScope(shield=True):
        await backend.drop_folder(folder)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:  # it has said nothing yet
        return ""
