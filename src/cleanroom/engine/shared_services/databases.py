"""Databases of a pool's PostgreSQL servers, each with a role of its own:
one for each run, the next one made before its run comes.
"""

from __future__ import annotations

import itertools
import secrets
from contextlib import suppress

import anyio

from cleanroom.core.beneath import Folder
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import Service
from cleanroom.engine.supervision.service_data import drop_private, write_private
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model.errors import CleanroomError, ServiceFailed
from cleanroom.services import new_secret, postgres_leases
from cleanroom.services.base import PRIVATE

STATEMENT_SECONDS = 60.0  # copying a large database takes seconds


class Databases:
    """Creates and removes databases; one spare for each server is created ahead."""

    def __init__(self, supervisor: Supervisor, context: RunContext) -> None:
        self._supervisor = supervisor
        self._context = context
        self._lock = anyio.Lock()  # two copies of one database at once refuse each other
        self._numbers = itertools.count(1)
        # service -> database and password that its next run gets
        self._spare: dict[str, tuple[str, str]] = {}
        # services that are fit for several runs
        self._shared: set[str] = set()

    async def assign(self, service: Service) -> tuple[str, str, bool]:
        """Assign a database to one run: its name, its password, and whether it exists already.

        One that does not exist is created by `make`.
        """
        async with self._lock:  # waiting for a spare that is being created is faster than another
            spare = self._spare.pop(service.recipe.name, None)
        return (*spare, True) if spare else (*self._new(), False)

    async def prepare(self, service: Service) -> None:
        """Create a database for the next run, while no run waits for it.

        An error is dropped: the next run creates its own, and gets the error then.
        """
        name = service.recipe.name
        with suppress(CleanroomError):
            await self._supervisor.wait_ready((name,))
            async with self._lock:
                if name not in self._spare:
                    spare = self._new()
                    await self._create(service, *spare)
                    self._spare[name] = spare

    async def make(self, service: Service, database: str, password: str) -> None:
        """Create a database and its role.

        Raises:
            CleanroomError: the service is not there, or the server refused.
        """
        async with self._lock:
            await self._create(service, database, password)

    async def drop(self, service: Service, database: str) -> None:
        """Remove a database and its role, and end all connections to it.

        Raises:
            CleanroomError: the service is not there, or the server refused.
        """
        async with self._lock:
            await self._execute(service, postgres_leases.lease_ends(database))

    async def _create(self, service: Service, database: str, password: str) -> None:
        """Create a database and its role, on a server that is made fit for it the first time."""
        recipe = service.recipe
        if recipe.name not in self._shared:
            await self._execute(service, postgres_leases.sharing_begins(recipe))
            self._shared.add(recipe.name)
        await self._execute(service, postgres_leases.lease_begins(recipe, database, password))

    def _new(self) -> tuple[str, str]:
        password = new_secret()
        self._context.redactor.add(password)
        # A run that may make databases must not make that of the next one first.
        return f"run_{next(self._numbers)}_{secrets.token_hex(8)}", password

    async def _execute(self, service: Service, statements: str) -> None:
        """Execute statements as the server's superuser.

        They are in a file that only the service may read, since every process can read a command
        line.

        Raises:
            CleanroomError: as for `drop`.
        """
        output = bytearray()
        environment = await self._supervisor.ready_environment(service.recipe.name)
        name = f"{secrets.token_hex(8)}.sql"
        with Folder.at(self._context.scratch / "services" / service.environment_id) as folder:
            write_private(folder, f"private/{name}", statements)
            try:
                argv = (*service.recipe.administer[:-1], "-f", f"{PRIVATE}/{name}")
                result = await environment.exec(
                    argv,
                    on_output=lambda _, data: output.extend(data),
                    timeout_seconds=STATEMENT_SECONDS,
                )
            finally:
                drop_private(folder, f"private/{name}")
        if result.exit_code:
            raise ServiceFailed(
                "CR-SERVICE-030",
                f"{service.recipe.name}: {output.decode(errors='replace').strip()}",
            )
