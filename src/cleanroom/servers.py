"""Real servers for programs on the host, without a project: what the pytest fixtures are made of.

    async with servers.postgres(init=["schema.sql"]) as server, server.database() as database:
        connect(database.url)

A server runs in an environment of its own, as a run's services do,
and is reached on 127.0.0.1 through the environment's relay.
It is restarted when it dies, and gone when its block is left or its process is killed.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends import registry
from cleanroom.backends.base import Backend, Stream
from cleanroom.core.arguments import PATH, PATHS, TEXT, VARIABLES, check, optional
from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock, new_run_id
from cleanroom.core.files import LogFiles, hold
from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.core.redaction import Redactor
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.model.capability import CapabilityReport, unmet
from cleanroom.model.errors import PolicyRefused, ServiceFailed, UsageError
from cleanroom.model.plan import Plan, ServiceKind, ServiceSpec
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.journal import Journal
from cleanroom.services import Recipe, TemplateCache, resolve, resp
from cleanroom.services.postgres import DATABASE, ROLE

LEVEL = Level.MEDIUM  # as a project's services have it unless the project says otherwise
HOST = "127.0.0.1"
STATEMENT_SECONDS = 60.0  # copying a large template database takes seconds
BACKLOG = 128  # connections that wait to be accepted: as many as a test that opens a pool at once
FUNCTIONS_SINCE = 7  # the major version of Redis that keeps functions beside its data


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """A PostgreSQL database and how to reach it."""

    url: str
    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: DATABASE_URL and those of libpq."""
        return {
            "DATABASE_URL": self.url,
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }


class KeyValue(msgspec.Struct, frozen=True, kw_only=True):
    """A Valkey or Redis server and how to reach it."""

    url: str
    host: str
    port: int
    password: str
    database: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: REDIS_URL."""
        return {"REDIS_URL": self.url}


class _Server:
    """A running server."""

    def __init__(self, recipe: Recipe, supervisor: Supervisor, port: int) -> None:
        self.version = recipe.version
        self.host = HOST
        self.port = port
        self._recipe = recipe
        self._supervisor = supervisor


class PostgresServer(_Server):
    """Gives out databases.

    Each begins as the server's own one, which the init files filled,
    and belongs to an ordinary role.
    """

    _made = 0

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """A database of its own, dropped at the end; connections that are open then are ended.

        Raises:
            ServiceFailed: the server did not make or drop it, or is gone.
        """
        self._made += 1
        name = f"test_{self._made}"
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {DATABASE} OWNER {ROLE}")
        try:
            yield self._database(name)
        finally:
            with anyio.CancelScope(shield=True):
                await self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    def _database(self, name: str) -> Database:
        password = self._recipe.phase_variables["PGPASSWORD"]
        url = f"postgresql://{ROLE}:{password}@{self.host}:{self.port}/{name}"
        return Database(
            url=url, host=self.host, port=self.port, user=ROLE, password=password, database=name
        )

    async def _administer(self, statement: str) -> None:
        output = bytearray()

        def collect(stream: Stream, data: bytes) -> None:
            output.extend(data)

        environment = await self._supervisor.ready_environment(self._recipe.name)
        argv = (*self._recipe.administer, statement)
        result = await environment.exec(argv, on_output=collect, timeout_seconds=STATEMENT_SECONDS)
        if result.exit_code:
            reason = output.decode(errors="replace").strip() or f"exit status {result.exit_code}"
            raise ServiceFailed(
                "CR-SERVICE-030",
                f"{statement}: {reason}",
                hint="is something still connected, or the disk full?",
            )


class RedisServer(_Server):
    """One server, emptied between its users."""

    @property
    def keyvalue(self) -> KeyValue:
        """How to reach it."""
        (password,) = self._recipe.secrets
        return KeyValue(
            url=f"redis://:{password}@{self.host}:{self.port}/0",
            host=self.host,
            port=self.port,
            password=password,
        )

    async def clear(self) -> None:
        """End every connection and remove all keys, scripts and functions, in all databases.

        Raises:
            ServiceFailed: the server did not do it, or is gone.
        """
        commands = [
            ("CLIENT", "KILL", "TYPE", "normal"),
            ("CLIENT", "KILL", "TYPE", "pubsub"),
            ("FLUSHALL",),
            ("SCRIPT", "FLUSH"),
        ]
        if int(self.version.partition(".")[0]) >= FUNCTIONS_SINCE:
            commands.append(("FUNCTION", "FLUSH"))
        environment = await self._supervisor.ready_environment(self._recipe.name)
        try:
            async with await environment.dial(self._recipe.to) as stream:
                answers = await resp.send_commands(stream, self.keyvalue.password, *commands)
        except (OSError, anyio.BrokenResourceError) as error:
            raise ServiceFailed(
                "CR-SERVICE-030",
                f"emptying {self._recipe.name!r}: {error}",
                hint="it may just be restarting",
            ) from error
        refused = [answer for answer in answers if answer.startswith("-")]
        if refused or len(answers) != len(commands) + 1:
            raise ServiceFailed(
                "CR-SERVICE-030",
                f"emptying {self._recipe.name!r}: {'; '.join(refused) or 'the connection ended'}",
            )


@asynccontextmanager
async def postgres(
    *,
    init: Sequence[str | Path] = (),
    version: str = "",
    folder: str | Path | None = None,
    caller: Mapping[str, str] | None = None,
) -> AsyncIterator[PostgresServer]:
    """A PostgreSQL server whose own database the SQL files fill (once: the result is cached).

    Its log and journal lie in `folder`.

    Raises:
        UsageError: an argument is not what it has to be.
        CleanroomError: it cannot be started here; see the code.
    """
    check("servers.postgres: init", init, PATHS)
    _check("servers.postgres", version, folder, caller)
    async with _serve(_spec("postgres", version, init), folder, caller) as (
        recipe,
        supervisor,
        port,
    ):
        yield PostgresServer(recipe, supervisor, port)


@asynccontextmanager
async def redis(
    *, version: str = "", folder: str | Path | None = None, caller: Mapping[str, str] | None = None
) -> AsyncIterator[RedisServer]:
    """A Valkey or Redis server. Its log and journal lie in `folder`. Raises as `postgres` does."""
    _check("servers.redis", version, folder, caller)
    async with _serve(_spec("redis", version), folder, caller) as (recipe, supervisor, port):
        yield RedisServer(recipe, supervisor, port)


def _check(place: str, version: Any, folder: Any, caller: Any) -> None:
    check(f"{place}: version", version, TEXT)
    check(f"{place}: folder", folder, optional(PATH))
    check(f"{place}: caller", caller, optional(VARIABLES))


def _spec(kind: ServiceKind, version: str, init: Sequence[str | Path] = ()) -> ServiceSpec:
    paths = tuple(os.path.abspath(path) for path in init)  # noqa: PTH100 -- without resolving links
    return ServiceSpec(name=kind, kind=kind, version=version, init=paths)


@asynccontextmanager
async def _serve(
    spec: ServiceSpec, folder: str | Path | None, caller: Mapping[str, str] | None
) -> AsyncIterator[tuple[Recipe, Supervisor, int]]:
    """Run one service under supervision; yields it with the host's port that is forwarded to it."""
    given = os.environ if caller is None else caller
    if outer := given.get("CLEANROOM_RUN_ID"):
        raise UsageError(
            "CR-SERVICE-031",
            f"this is inside a run ({outer}), which cannot start a server of its own",
            hint=f'name the service in the phase: cleanroom.containers = ["{spec.name}"]',
        )
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        files = (
            Path(folder)
            if folder
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cleanroom-")))
        )
        context, recipe, cache = await _open(stack, spec, files, given)
        listening = stack.enter_context(socket.create_server((HOST, 0), backlog=BACKLOG))
        supervisor = await stack.enter_async_context(_supervised(context, recipe, cache))
        supervisor.forward(recipe.name, listening)
        try:
            await supervisor.wait_ready((recipe.name,))
            yield recipe, supervisor, listening.getsockname()[1]
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
