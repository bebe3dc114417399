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
from cleanroom.services import new_secret, postgres
from cleanroom.services.base import PRIVATE

STATEMENT_SECONDS = 60.0  # copying a large database takes seconds


class Databases:
    def __init__(self, supervisor: Supervisor, context: RunContext) -> None:
        self._supervisor = supervisor
        self._context = context
        self._lock = anyio.Lock()  # two copies of one database at once refuse each other
        self._numbers = itertools.count(1)
        # service -> database and password that its next run gets
        self._spare: dict[str, tuple[str, str]] = {}

    async def take(self, service: Service) -> tuple[str, str, bool]:
        """Name and password of a database for one run, and whether it is there already;
        else `make` it.
        """
        async with self._lock:  # one that is just being made is worth waiting for
            spare = self._spare.pop(service.recipe.name, None)
        return (*spare, True) if spare else (*self._new(), False)

    async def prepare(self, service: Service) -> None:
        """Make one for the next run, while nobody waits for it.

        Why it cannot be made is told to the run that asks for one.
        """
        name = service.recipe.name
        with suppress(CleanroomError):
            await self._supervisor.wait_ready((name,))
            async with self._lock:
                if name not in self._spare:
                    spare = self._new()
                    await self._carry_out(service, postgres.lease_begins(*spare))
                    self._spare[name] = spare

    async def make(self, service: Service, database: str, password: str) -> None:
        """Make it. Raises as `drop` does."""
        async with self._lock:
            await self._carry_out(service, postgres.lease_begins(database, password))

    async def drop(self, service: Service, database: str) -> None:
        """Remove it with its role, whoever is connected.

        Raises:
            CleanroomError: the service is not there, or the server refused.
        """
        async with self._lock:
            await self._carry_out(service, postgres.lease_ends(database))

    def _new(self) -> tuple[str, str]:
        password = new_secret()
        self._context.redactor.add(password)
        return f"run_{next(self._numbers)}", password

    async def _carry_out(self, service: Service, statements: str) -> None:
        """As the server's superuser, from a file that only the service may read:
        a command line could be read by everyone.
        """
        heard = bytearray()
        environment = await self._supervisor.ready_environment(service.recipe.name)
        name = f"{secrets.token_hex(8)}.sql"
        with Folder.at(self._context.scratch / "services" / service.environment_id) as folder:
            write_private(folder, f"private/{name}", statements)
            try:
                argv = (*service.recipe.administer[:-1], "-f", f"{PRIVATE}/{name}")
                result = await environment.exec(
                    argv,
                    on_output=lambda _, data: heard.extend(data),
                    timeout_seconds=STATEMENT_SECONDS,
                )
            finally:
                drop_private(folder, f"private/{name}")
        if result.exit_code:
            raise ServiceFailed(
                "CR-SERVICE-030", f"{service.recipe.name}: {heard.decode(errors='replace').strip()}"
            )
