"""The holder: a process that supervises services for all runs that join it,
until its owner ends or nobody has used it for long.

Its own evidence, the events of its services and their output,
lies under the project's `.ggen/cleanroom/sessions/ID`.
It has a backend and a keeper of its own, so that what it made is gone however it ends.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends import registry
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.clock import SystemClock
from cleanroom.core.files import LineWriter, LogFiles
from cleanroom.core.redaction import Redactor
from cleanroom.engine.own_folder import SESSIONS, check_own_folders, own_folder
from cleanroom.engine.sealed import seal
from cleanroom.engine.shared_services.ancestry import wait_ended
from cleanroom.engine.shared_services.client import (
    JoinAnswer,
    ServiceGrant,
    ServiceRequest,
    WireError,
    attached,
)
from cleanroom.engine.shared_services.databases import Databases
from cleanroom.engine.shared_services.discovery import CONFIG_FILE, ServerConfig
from cleanroom.engine.shared_services.pool import PooledService, PoolStatus
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import Service
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Finished,
    Note,
    Recovery,
    Started,
    Subject,
    Violation,
    encode_lines,
)
from cleanroom.model.plan import BackendName, Plan
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link
from cleanroom.sandbox.journal import Journal
from cleanroom.sandbox.kernel import syscalls
from cleanroom.services import TemplateCache, new_secret, postgres
from cleanroom.subscribers import monitor, recovery

WRITTEN = (
    Started,
    Finished,
    Violation,
    Assertion,
    Recovery,
    Artifact,
    Note,
)  # not Output, which has its log, nor Metric: a pool lives for days
REPEATED = (Recovery, Violation)  # what concerns every run that uses the service
LIMIT = 200_000
# servers in which each run of a pool has a part of its own;
# any other is lent to one run at a time, whole
DIVIDED = ("postgres",)
IDLE_LOOK_SECONDS = 0.5  # how exact the end of idle time is


def main(folder: str) -> None:
    """Entry point. Standard input is the listening socket."""
    os.setsid()
    syscalls.set_process_name("cleanroom-hold")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal's, which are meant for its runs
    listening = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    config = msgspec.json.decode(Path(folder, CONFIG_FILE).read_bytes(), type=ServerConfig)
    anyio.run(_Process(config, Path(folder), listening).hold)


class _Client:
    """One run that has joined."""

    def __init__(self) -> None:
        self.link: Link[channel.Message] | None = None
        self.services: set[str] = set()
        self.doors: list[tuple[str, socket.socket]] = []
        self.awaited: set[str] = set()  # services in which a database is just being made for it
        # service, and the database there; "" where the whole server is this run's
        self.leases: list[tuple[str, str]] = []
        # what a run is given while it leaves is complete before it is taken back
        self.joining = anyio.Lock()

    def send(self, message: channel.Message) -> None:
        assert self.link is not None
        with suppress(OSError):  # a run that is gone is noticed by its end of the channel
            self.link.send(message)


class _Process:
    def __init__(self, config: ServerConfig, folder: Path, listening: socket.socket) -> None:
        self._config = config
        self._folder = folder
        self._listening = listening
        self._clients: set[_Client] = set()
        self._leaving: set[_Client] = set()  # gone, their databases not yet
        self._configurations: dict[str, str] = {}
        self._services: dict[str, Service] = {}
        self._redactor = Redactor()
        self._ended = anyio.Event()
        self._whole: set[str] = set()  # servers that one run has
        self._began_ns = SystemClock().wall_ns()
        self._bus: Bus
        self._context: RunContext
        self._supervisor: Supervisor
        self._databases: Databases
        self._tasks: TaskGroup

    # --- life

    async def hold(self) -> None:
        """Open everything in order, serve until the end, leave in reverse."""
        config, identity = self._config, self._folder.name
        self._bus = Bus(identity, SystemClock(), redactor=self._redactor)
        with Folder.at(Path(config.root)) as root:
            check_own_folders(root)
            evidence = own_folder(root, f"{SESSIONS}/{identity}")
        with evidence, evidence.folder("logs", make=True) as place, LogFiles(place) as logs:
            made = registry.make(
                config.backend,
                run_id=identity,
                scratch=self._folder,
                journal=partial(Journal.at, evidence),
                cache=config.cache,
                caller=config.caller,
            )
            async with made as backend:
                data = self._folder / "data"
                thing = await backend.folder(data)
                self._context = RunContext(
                    run_id=identity,
                    plan=_plan(config),
                    bus=self._bus,
                    backend=backend,
                    logs=logs,
                    redactor=self._redactor,
                    caller={},
                    scratch=data,
                    folder=evidence,
                )
                try:
                    await self._supervised(evidence)
                finally:
                    with anyio.CancelScope(shield=True):
                        await backend.drop_folder(thing)

    async def _supervised(self, evidence: Folder) -> None:
        """The services under supervision, and those who react to what happens to them;
        the bus closes last.
        """
        bus = self._bus
        log = bus.subscribe("log", WRITTEN, limit=LIMIT)
        judged = bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT)
        troubled = bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT)
        repeated = bus.subscribe("repeater", REPEATED, limit=LIMIT)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write, log, evidence)
            tasks.start_soon(monitor.run, judged, bus)
            tasks.start_soon(self._repeat, repeated)
            try:
                async with supervise(
                    self._context, (), TemplateCache(Path(self._config.templates))
                ) as self._supervisor:
                    self._databases = Databases(self._supervisor, self._context)
                    tasks.start_soon(
                        partial(
                            recovery.run, troubled, self._supervisor.send, seed=self._config.seed
                        )
                    )
                    # Before the first run is answered: its phases may write where we lie.
                    await anyio.to_thread.run_sync(seal, (self._config.root,))
                    async with anyio.create_task_group() as self._tasks:
                        self._watch(self._tasks)
                        await self._ended.wait()
                        self._tasks.cancel_scope.cancel()
            finally:
                bus.close()

    def _watch(self, tasks: TaskGroup) -> None:
        """Everything that may happen from outside."""
        import asyncio

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        self._listening.setblocking(False)
        loop.add_reader(self._listening.fileno(), self._accept)
        if self._config.owner:
            tasks.start_soon(self._watch_owner)
        if self._config.idle_seconds:
            tasks.start_soon(self._watch_idle)

    async def _watch_owner(self) -> None:
        """End with the process that the services are for."""
        await wait_ended(self._config.owner)
        self._ended.set()

    async def _watch_idle(self) -> None:
        """End when no run has used it for so long."""
        used = anyio.current_time()
        while (left := used + self._config.idle_seconds - anyio.current_time()) > 0:
            await anyio.sleep(min(left, IDLE_LOOK_SECONDS))
            if any(client.services for client in self._clients):
                used = anyio.current_time()
        self._ended.set()

    # --- runs

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            end, _ = self._listening.accept()
            client = _Client()
            client.link = Link(
                channel.widened(end),
                channel.receive,
                partial(self._heard, client),
                partial(self._left, client),
            )
            self._clients.add(client)

    def _heard(self, client: _Client, message: channel.Message, descriptors: list[int]) -> None:
        match message["op"]:
            case "join":
                with os.fdopen(descriptors.pop(0), "rb") as file:
                    file.seek(0)
                    wanted = msgspec.json.decode(file.read(), type=dict[str, ServiceRequest])
                self._tasks.start_soon(
                    self._join, client, wanted, self._config.leases and message["lease"]
                )
            case "status":
                client.send({"status": msgspec.to_builtins(self._status())})
            case "leave":
                self._tasks.start_soon(self._take_back, client)
            case "end":
                self._ended.set()
            case "door":
                listening = socket.socket(fileno=descriptors.pop(0))
                client.doors.append((message["service"], listening))
                self._supervisor.admit(message["service"], listening)
        for descriptor in descriptors:
            os.close(descriptor)

    def _left(self, client: _Client) -> None:
        """A run has ended, and with it everyone who could come through its doors."""
        self._clients.discard(client)
        self._close_doors(client)
        self._leaving.add(client)
        self._tasks.start_soon(self._take_back, client)

    def _close_doors(self, client: _Client) -> None:
        for name, listening in client.doors:
            self._supervisor.dismiss(name, listening)
            listening.close()
        client.doors.clear()

    async def _take_back(self, client: _Client) -> None:
        """End what was leased to a run that leaves, or is gone."""
        async with client.joining:
            self._close_doors(client)
            client.services.clear()
            while client.leases:
                service, database = client.leases[-1]
                if database:
                    await self._end_lease(service, database)
                else:
                    self._renew(service)
                client.leases.pop()  # it counts until it is ended
        self._leaving.discard(client)
        client.send({"left": True})

    async def _join(self, client: _Client, wanted: dict[str, ServiceRequest], lease: bool) -> None:
        async with client.joining:
            await self._give(client, wanted, lease)

    async def _give(self, client: _Client, wanted: dict[str, ServiceRequest], lease: bool) -> None:
        """Start what is not there yet, and say how everything is reached.

        A service of that name with another configuration is not given.

        A database that is not there yet is made afterwards:
        the run starts its environments meanwhile, and waits for the server as for any.
        """
        given: dict[str, ServiceGrant] = {}
        others, lent = [], []
        for name, want in wanted.items():
            service = self._services.get(name)
            if service is None or service.failure is not None:
                if lease:
                    continue  # a pool has what `pool start` asked for; the run has its own
                service = self._start(name, want)
            elif self._configurations[name] != want.configuration:
                others.append(name)
                continue
            divided = service.recipe.kind in DIVIDED
            if lease and not divided:
                if name in self._whole:
                    continue  # another run has it; this one has its own
                self._whole.add(name)
                client.leases.append((name, ""))
            await service.begun.wait()
            client.services.add(name)
            given[name] = self._given(service)
            if lease and divided:
                database, password, there = await self._databases.take(service)
                if there:
                    client.leases.append((name, database))
                else:
                    client.awaited.add(name)
                    lent.append((service, database, password))
                given[name] = _lent(given[name], service, database, password)
        answer = JoinAnswer(
            services=given,
            others=tuple(others),
            resources=(f"process {os.getpid()} ({self._folder.name})", f"folder {self._folder}"),
        )
        client.send({"joined": msgspec.to_builtins(answer)})
        for name in given:
            client.send(_state(client, self._services[name]))
        for service, database, password in lent:
            await self._lend(client, service, database, password)

    def _start(self, name: str, want: ServiceRequest) -> Service:
        self._redactor.add(*want.recipe.secrets)
        self._configurations[name] = want.configuration
        service = self._services[name] = self._supervisor.add(want.recipe)
        self._tasks.start_soon(self._tell, service)
        if self._config.leases and want.recipe.kind in DIVIDED:
            self._tasks.start_soon(self._databases.prepare, service)
        return service

    def _given(self, service: Service) -> ServiceGrant:
        recipe, context = service.recipe, self._context
        assert service.span is not None, "it has begun"
        fact = attached(
            self._config.kind,
            self._folder.name,
            recipe.name,
            version=recipe.version,
            port=recipe.port,
            server_sha256=recipe.server_sha256,
            started_unix_ns=service.begun_unix_ns,
            trace_id=service.span.trace_id,
            span_id=service.span.span_id,
            log=context.log_path(f"service-{recipe.name}"),
        )
        return ServiceGrant(
            environment=f"{self._folder.name}/{service.environment_id}",
            folder=str(context.scratch / "services" / service.environment_id),
            variables=recipe.phase_variables,
            secrets=recipe.secrets,
            attached=fact,
            resources=(f"environment {service.environment_id}",),
        )

    async def _lend(self, client: _Client, service: Service, name: str, password: str) -> None:
        """Make a database for this run, for which the service is ready only then.

        Where the service fails meanwhile, its state tells the run.
        """
        try:
            await self._databases.make(service, name, password)
            client.leases.append((service.recipe.name, name))
        except CleanroomError as error:
            service.change(failure=error)
        client.awaited.discard(service.recipe.name)
        client.send(_state(client, service))

    async def _end_lease(self, service: str, name: str) -> None:
        try:
            await self._databases.drop(self._services[service], name)
        except CleanroomError as error:
            note = Note(
                subject=Subject("service", service),
                level="warning",
                text=f"database {name} was not removed: {error}",
                code=error.code,
            )
            self._bus.publish(note)
        self._tasks.start_soon(self._databases.prepare, self._services[service])

    def _renew(self, name: str) -> None:
        """A server that one run had gives way to a new one for the next:
        another process, folder and password.
        """
        old = self._services[name]
        recipe = old.recipe.renewed(new_secret)
        self._redactor.add(*recipe.secrets)
        service = self._services[name] = self._supervisor.renew(recipe)
        old.change()  # nobody is told of it any more
        self._tasks.start_soon(self._tell, service)
        self._whole.discard(name)

    def _status(self) -> PoolStatus:
        services = tuple(
            PooledService(
                name=name,
                version=s.recipe.version,
                ready=s.ready,
                configuration=self._configurations[name],
            )
            for name, s in self._services.items()
        )
        return PoolStatus(
            id=self._folder.name,
            pid=os.getpid(),
            started_unix_ns=self._began_ns,
            idle_seconds=self._config.idle_seconds,
            leases=sum(
                bool(client.services or client.leases) for client in self._clients | self._leaving
            ),
            services=services,
        )

    async def _tell(self, service: Service) -> None:
        """Tell every run that uses it what becomes of a service."""
        while True:
            changed = service.changed
            for client in self._clients:
                if service.recipe.name in client.services:
                    client.send(_state(client, service))
            if service.failure is not None:
                return
            await changed.wait()
            if self._services[service.recipe.name] is not service:
                return

    async def _repeat(self, inbox: Subscription) -> None:
        """Tell every run what happens to its services."""
        while batch := await inbox.batch():
            for envelope in batch:
                about = self._named(envelope.event.subject.name)
                for client in self._clients:
                    if about in client.services:
                        client.send({"event": msgspec.to_builtins(envelope.event)})

    def _named(self, subject: str) -> str:
        """The service that an event is about: by its name, or by its environment's."""
        by_environment = {service.environment_id: name for name, service in self._services.items()}
        return by_environment.get(subject.removeprefix("prepare-"), subject)


def _plan(config: ServerConfig) -> Plan:
    """What a run's services would see of its plan."""
    return Plan(
        project=config.project,
        root=config.root,
        file="",
        dialect="A",
        environment="",
        backend=cast(BackendName, config.backend),
        policy=config.policy,
        requested=(),
        workspaces=(),
        seed=config.seed,
    )


def _lent(given: ServiceGrant, service: Service, name: str, password: str) -> ServiceGrant:
    """A server as it is given to a run that has a database of its own there."""
    variables = postgres.lease_variables(service.recipe, name, password)
    return msgspec.structs.replace(
        given,
        variables=variables,
        secrets=(password,),
        resources=(*given.resources, f"database {name}"),
    )


def _state(client: _Client, service: Service) -> dict[str, Any]:
    """As it is for this run."""
    name, failure = (
        service.recipe.name,
        msgspec.to_builtins(WireError.of(service.failure)) if service.failure is not None else None,
    )
    return {
        "state": name,
        "opened": service.opened,
        "ready": service.ready and name not in client.awaited,
        "failure": failure,
    }


async def _write(inbox: Subscription, evidence: Folder) -> None:
    async with LineWriter(evidence, "events.jsonl") as log:
        while batch := await inbox.batch():
            await log.write(encode_lines(batch))
