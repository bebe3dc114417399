"""The runs that have joined a server: their connections, and what each was given."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from cleanroom.core.bus import Subscription
from cleanroom.core.redaction import Redactor
from cleanroom.engine.shared_services import protocol
from cleanroom.engine.shared_services.databases import Databases
from cleanroom.engine.shared_services.discovery import ServerConfig, mark_ended
from cleanroom.engine.shared_services.leases import Leases, PendingDatabase, RunLeases
from cleanroom.engine.shared_services.protocol import (
    JoinAnswer,
    PoolStatus,
    ServiceGrant,
    ServiceRequest,
    WireError,
)
from cleanroom.engine.shared_services.published import Published
from cleanroom.engine.shared_services.service_table import ServiceTable
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import Service
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model.events import Attached, Subject
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link

KEEPER_ENDED = "CR-SANDBOX-002"


class JoinedRun:
    """One run that has connected."""

    def __init__(self) -> None:
        self.link: Link[protocol.Order] | None = None
        # names of the services that it was given
        self.services: set[str] = set()
        # service and listening socket
        self.forwards: list[tuple[str, socket.socket]] = []
        self.leases = RunLeases()
        # a grant is complete before its leases end
        self.lock = anyio.Lock()

    def send(self, message: protocol.Message, descriptors: Sequence[int] = ()) -> None:
        assert self.link is not None
        with suppress(OSError):  # the end of a run's connection is noticed in its link
            self.link.send(protocol.encode(message), descriptors)

    def send_state(self, service: Service) -> None:
        """Send the service's state as it is for this run."""
        name, failure = service.recipe.name, service.failure
        self.send(
            protocol.StateChanged(
                service=name,
                opened=service.opened,
                ready=service.ready and name not in self.leases.pending,
                failure=WireError.from_error(failure) if failure is not None else None,
            )
        )


class ServerContext(NamedTuple):
    """What the server's parts share."""

    # the server's id: the name of its folder
    id: str
    # the server's folder in the cache, as a path
    folder: str
    config: ServerConfig
    context: RunContext
    redactor: Redactor
    supervisor: Supervisor
    # tasks that end with the server
    tasks: TaskGroup
    started_unix_ns: int
    # ends the server
    end: Callable[[], None]
    # lets the server outlive its owner
    keep: Callable[[], None]


class JoinedRuns:
    """Takes connections and carries out what runs order."""

    def __init__(self, server: ServerContext) -> None:
        self._server = server
        self._tasks = server.tasks
        self._supervisor = server.supervisor
        self._runs: set[JoinedRun] = set()
        # their connections have ended, their leases not yet
        self._leaving: set[JoinedRun] = set()
        context = server.context
        self._services = ServiceTable(
            server.supervisor, server.redactor, server.tasks, self._send_states
        )
        self._leases = Leases(
            Databases(server.supervisor, context), self._services, context.bus, server.tasks
        )
        self._published = Published(self._services, server.supervisor, context)

    @property
    def in_use(self) -> bool:
        """Whether any run has a service."""
        return any(run.services for run in self._runs)

    def accept(self, listening: socket.socket) -> None:
        """Take one connection, where one is waiting."""
        with suppress(BlockingIOError, ConnectionError):
            end, _ = listening.accept()
            run = JoinedRun()
            run.link = Link(
                channel.widened(end),
                protocol.receive_order,
                partial(self._execute, run),
                partial(self._disconnected, run),
            )
            self._runs.add(run)

    # --- orders

    def _execute(self, run: JoinedRun, order: protocol.Order, descriptors: list[int]) -> None:
        match order:
            case protocol.Join(lease=lease):
                requests = protocol.read_requests(descriptors.pop(0))
                leases = self._server.config.leases and lease
                self._tasks.start_soon(self._join, run, requests, leases)
            case protocol.QueryStatus():
                run.send(protocol.StatusReported(self.status()))
            case protocol.Leave():
                self._tasks.start_soon(self._end_leases, run)
            case protocol.Publish(name):
                self._publish(run, name, descriptors)
            case protocol.Keep():
                self._server.keep()
            case protocol.Unpublish(names):
                self._tasks.start_soon(self._unpublish, run, names)
            case protocol.QueryPublished():
                with protocol.values_file(self._published.report()) as file:
                    run.send(protocol.PublishedReported(), [file])
            case protocol.EndServer():
                mark_ended(self._server.context.folder)
                self._server.end()
            case protocol.ForwardPort(name):
                listening = socket.socket(fileno=descriptors.pop(0))
                run.forwards.append((name, listening))
                self._supervisor.forward(name, listening)
        for descriptor in descriptors:
            os.close(descriptor)

    def _disconnected(self, run: JoinedRun) -> None:
        """A run has ended, and with it everything that could use its forwards."""
        self._runs.discard(run)
        self._close_forwards(run)
        self._leaving.add(run)
        self._tasks.start_soon(self._end_leases, run)

    def _close_forwards(self, run: JoinedRun) -> None:
        for name, listening in run.forwards:
            self._supervisor.stop_forwarding(name, listening)
            listening.close()
        run.forwards.clear()

    async def _end_leases(self, run: JoinedRun) -> None:
        """Take back all that the run was given."""
        async with run.lock:
            self._close_forwards(run)
            run.services.clear()
            await self._leases.end_all(run.leases)
        self._leaving.discard(run)
        run.send(protocol.Left())

    async def _join(self, run: JoinedRun, requests: dict[str, ServiceRequest], lease: bool) -> None:
        """Start the services that do not run yet, and answer how to reach each.

        A service of that name with another configuration is not given.
        In a pool (`lease`) the run gets only services that `pool start` has started and that no
        other run has; it starts the others itself.

        A database that does not exist yet is created after the answer:
        the run starts its environments meanwhile, and waits for the server as for any.
        """
        async with run.lock:
            grants: dict[str, ServiceGrant] = {}
            others: list[str] = []
            pending: list[PendingDatabase] = []
            for name, request in requests.items():
                service = self._services.usable(name)
                if service is None:
                    if lease:
                        continue
                    service = self._start(name, request)
                elif self._services.configuration(name) != request.configuration:
                    others.append(name)
                    continue
                if lease and not self._leases.lease_server(run.leases, service):
                    continue
                await service.begun.wait()
                run.services.add(name)
                grants[name] = self._grant(service)
                if lease:
                    grants[name], database = await self._leases.lease_database(
                        run.leases, service, grants[name]
                    )
                    pending += [database] if database is not None else []
            run.send(protocol.Joined(self._answer(grants, others)))
            for name in grants:
                run.send_state(self._services[name])
            for database in pending:
                await self._leases.create(run.leases, database)
                run.send_state(database.service)

    def _start(self, name: str, request: ServiceRequest) -> Service:
        service = self._services.start(name, request)
        if self._server.config.leases:
            self._leases.prepare(service)
        return service

    def _publish(self, run: JoinedRun, name: str, descriptors: list[int]) -> None:
        """Start a service for programs on the host, whose state the run is sent from now on."""
        publication = protocol.read_values(descriptors.pop(0), protocol.Publication)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        descriptors.clear()
        run.services.add(name)
        self._published.start(name, publication, sockets)
        run.send_state(self._services[name])

    async def _unpublish(self, run: JoinedRun, names: Sequence[str]) -> None:
        await self._published.remove(frozenset(names))
        run.send(protocol.Left())

    # --- answers

    def _answer(self, grants: dict[str, ServiceGrant], others: list[str]) -> JoinAnswer:
        server = self._server
        return JoinAnswer(
            services=grants,
            others=tuple(others),
            resources=(f"process {os.getpid()} ({server.id})", f"folder {server.folder}"),
        )

    def _grant(self, service: Service) -> ServiceGrant:
        recipe, server = service.recipe, self._server
        assert server.config.kind != "up", "no run joins the services of the host"
        assert service.span is not None, "it has begun"
        attached = Attached(
            subject=Subject("service", recipe.name),
            holder=server.config.kind,
            holder_id=server.id,
            version=recipe.version,
            port=recipe.port,
            server_sha256=recipe.server_sha256,
            started_unix_ns=service.begun_unix_ns,
            trace_id=service.span.trace_id,
            span_id=service.span.span_id,
            log=server.context.log_path(f"service-{recipe.name}"),
        )
        return ServiceGrant(
            environment=f"{server.id}/{service.environment_id}",
            folder=str(server.context.scratch / "services" / service.environment_id),
            variables=recipe.phase_variables,
            secrets=recipe.secrets,
            attached=attached,
            resources=(f"environment {service.environment_id}",),
        )

    def status(self) -> PoolStatus:
        """The server as it is now, for `pool status`."""
        runs = self._runs | self._leaving
        return PoolStatus(
            id=self._server.id,
            pid=os.getpid(),
            started_unix_ns=self._server.started_unix_ns,
            idle_seconds=self._server.config.idle_seconds,
            leases=sum(bool(run.services or run.leases.leases) for run in runs),
            services=self._services.status(),
        )

    # --- what runs learn unasked

    def _send_states(self, service: Service) -> None:
        """Send a service's state to every run that uses it."""
        for run in self._runs:
            if service.recipe.name in run.services:
                run.send_state(service)
        last = service.last_error
        if service.failure is not None and last is not None and last.code == KEEPER_ENDED:
            self._server.end()  # without its keeper it can start nothing; the next one can

    async def forward_events(self, inbox: Subscription) -> None:
        """Send each event to every run that uses the service it is about."""
        while batch := await inbox.batch():
            for envelope in batch:
                name = self._services.name_of_subject(envelope.event.subject.name)
                for run in self._runs:
                    if name in run.services:
                        run.send(protocol.EventReported(envelope.event))
