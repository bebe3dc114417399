"""Which run has which part of a pool: a database of a server that runs share,
or a whole server that cannot be divided, which one run has at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from anyio.abc import TaskGroup

from cleanroom.core.bus import Bus
from cleanroom.engine.shared_services.databases import Databases
from cleanroom.engine.shared_services.protocol import ServiceGrant
from cleanroom.engine.shared_services.service_table import ServiceTable
from cleanroom.engine.supervision.service import Service
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Note, Subject
from cleanroom.services import postgres_leases


class Lease(NamedTuple):
    """A part of one service that one run has."""

    service: str
    # name of the database; "" for the whole server
    database: str = ""


class RunLeases:
    """The leases of one run."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        # services in which a database for this run is being created
        self.pending: set[str] = set()


class PendingDatabase(NamedTuple):
    """A database that was given to a run and has still to be created."""

    service: Service
    name: str
    password: str


class Leases:
    """The leases of all runs."""

    def __init__(
        self, databases: Databases, services: ServiceTable, bus: Bus, tasks: TaskGroup
    ) -> None:
        self._databases = databases
        self._services = services
        self._bus = bus
        self._tasks = tasks
        self._whole_servers: set[str] = set()

    def prepare(self, service: Service) -> None:
        """Create a database for the next run, where the server can be divided."""
        if postgres_leases.divisible(service.recipe):
            self._tasks.start_soon(self._databases.prepare, service)

    def lease_server(self, run: RunLeases, service: Service) -> bool:
        """Lease the whole server, unless it is divisible. False where another run has it."""
        name = service.recipe.name
        if postgres_leases.divisible(service.recipe):
            return True
        if name in self._whole_servers:
            return False
        self._whole_servers.add(name)
        run.leases.append(Lease(name))
        return True

    async def lease_database(
        self, run: RunLeases, service: Service, grant: ServiceGrant
    ) -> tuple[ServiceGrant, PendingDatabase | None]:
        """The grant with a database of its own, where the server is divisible.

        A database that has still to be created is pending: `create` it once the grant is sent.
        """
        if not postgres_leases.divisible(service.recipe):
            return grant, None
        name, password, exists = await self._databases.assign(service)
        pending = None
        if exists:
            run.leases.append(Lease(service.recipe.name, name))
        else:
            run.pending.add(service.recipe.name)
            pending = PendingDatabase(service, name, password)
        grant = msgspec.structs.replace(
            grant,
            variables=postgres_leases.lease_variables(service.recipe, name, password),
            secrets=(password,),
            resources=(*grant.resources, f"database {name}"),
        )
        return grant, pending

    async def create(self, run: RunLeases, database: PendingDatabase) -> None:
        """Create a database; only then the service is ready for this run.

        Where that fails the service has failed, as its state says.
        """
        service = database.service
        try:
            await self._databases.make(service, database.name, database.password)
            run.leases.append(Lease(service.recipe.name, database.name))
        except CleanroomError as error:
            service.change(failure=error)
        run.pending.discard(service.recipe.name)

    async def end_all(self, run: RunLeases) -> None:
        """Remove the run's databases, and replace the servers that it had.

        A lease counts until its end is complete.
        """
        while run.leases:
            lease = run.leases[-1]
            if lease.database:
                await self._drop(lease)
            else:
                self._services.renew(lease.service)
                self._whole_servers.discard(lease.service)
            run.leases.pop()

    async def _drop(self, lease: Lease) -> None:
        service = self._services[lease.service]
        try:
            await self._databases.drop(service, lease.database)
        except CleanroomError as error:
            note = Note(
                subject=Subject("service", lease.service),
                level="warning",
                text=f"database {lease.database} was not removed: {error}",
                code=error.code,
            )
            self._bus.publish(note)
        self._tasks.start_soon(self._databases.prepare, service)
