"""The services of a server for programs on the host: each with its listening sockets there,
and with the variables that name them.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence

import anyio

from cleanroom.engine.shared_services.protocol import (
    Publication,
    PublishedService,
    WireError,
)
from cleanroom.engine.shared_services.service_table import ServiceTable
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import Service
from cleanroom.engine.supervision.supervisor import Supervisor


class Published:
    """Starts published services, ends them, and reports them."""

    def __init__(self, services: ServiceTable, supervisor: Supervisor, context: RunContext) -> None:
        self._services = services
        self._supervisor = supervisor
        self._context = context
        # in the order in which they were started
        self._publications: dict[str, Publication] = {}
        self._sockets: dict[str, list[socket.socket]] = {}
        # one order at a time removes services
        self._removing = anyio.Lock()

    def start(self, name: str, publication: Publication, sockets: list[socket.socket]) -> None:
        """Start a service, or start one that has failed again; leave one that runs.

        One of another configuration is replaced only where it never was ready: it has no data.
        """
        service = self._services.find(name)
        if service is not None and not self._is_replaced(service, publication):
            for listening in sockets:
                listening.close()
            if self._services.usable(name) is None and self._is_same(name, publication):
                self._services.start_again(name)
            return
        if service is None:
            self._services.start(name, publication.request)
        else:
            self._close(name)
            self._services.replace(name, publication.request)
        self._publications[name], self._sockets[name] = publication, sockets
        for listening, to in zip(sockets, publication.targets, strict=True):
            self._supervisor.forward(name, listening, to)

    async def remove(self, names: Collection[str]) -> None:
        """End these services, last started first, and remove their data."""
        async with self._removing:
            for name in reversed(list(self._publications)):
                if name in names:
                    self._close(name)
                    del self._publications[name]
                    await self._services.remove(name)

    def report(self) -> tuple[PublishedService, ...]:
        """The services as they are now."""
        return tuple(self._reported(name) for name in self._publications)

    def _is_same(self, name: str, publication: Publication) -> bool:
        return self._services.configuration(name) == publication.request.configuration

    def _is_replaced(self, service: Service, publication: Publication) -> bool:
        never_ready = service.failure is not None and service.environment is None
        return never_ready and not self._is_same(service.recipe.name, publication)

    def _close(self, name: str) -> None:
        for listening in self._sockets.pop(name):
            self._supervisor.stop_forwarding(name, listening)
            listening.close()

    def _reported(self, name: str) -> PublishedService:
        service, sockets = self._services[name], self._sockets[name]
        failure, last_error = service.failure, service.last_error
        return PublishedService(
            name=name,
            version=service.recipe.version,
            configuration=self._services.configuration(name),
            variables=self._publications[name].variables,
            ports=_ports(sockets),
            depends_on=service.recipe.depends_on,
            replica_of=service.recipe.replica_of,
            log=self._context.log_path(service.log),
            ready=service.ready,
            has_data=service.environment is not None,
            restarts=max(service.runs - 1, 0),
            last_error=str(last_error) if last_error is not None else "",
            failure=WireError.from_error(failure) if failure is not None else None,
        )


def _ports(sockets: Sequence[socket.socket]) -> tuple[int, ...]:
    return tuple(listening.getsockname()[1] for listening in sockets)
