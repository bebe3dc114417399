"""PostgreSQL servers: one server gives out databases, each a copy of a prepared one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.abc import ByteStream

from cleanroom.core.arguments import FLAG, PATHS, SECONDS, VARIABLES, check
from cleanroom.model.plan import ServiceSpec
from cleanroom.servers.addresses import Database, ExecResult, Url, database
from cleanroom.servers.databases import Databases
from cleanroom.servers.loop_thread import Hosted
from cleanroom.servers.opening import Opening
from cleanroom.servers.phase_services import RUN, phase_databases
from cleanroom.servers.requests import ARGV, EXEC_SECONDS, Place, place
from cleanroom.servers.templates import MAKE, Make, Templates
from cleanroom.services.base import run_folder
from cleanroom.services.postgres import DATABASE, ROLE

if TYPE_CHECKING:
    from cleanroom.servers.own_server import OwnServer


class DatabaseOpening:
    """A database to be, for `with` and for `async with`; dropped when its block is left.

    Connections that are open then are ended.
    """

    def __init__(
        self, hosted: Hosted[Any], databases: Databases, templates: Templates, make: Make | None
    ) -> None:
        self._hosted = hosted
        self._databases = databases
        self._templates = templates
        self._make = make
        self._entered: list[Database] = []

    def __enter__(self) -> Database:
        template = self._templates.name(self._make)
        self._entered.append(self._hosted.call(self._databases.create(template)).result())
        return self._entered[-1]

    def __exit__(self, *exc: object) -> None:
        self._hosted.call(self._databases.drop(self._entered.pop().database)).result()

    async def __aenter__(self) -> Database:
        template = await self._templates.name_async(self._make)
        creating = self._hosted.call(self._databases.create(template))
        self._entered.append(await creating.result_async())
        return self._entered[-1]

    async def __aexit__(self, *exc: object) -> None:
        dropping = self._databases.drop(self._entered.pop().database)
        await self._hosted.call(dropping).result_shielded()


class _Postgres:
    """What both kinds have. The address is that of one database, for whoever needs no more."""

    def __init__(self, hosted: Hosted[Any], databases: Databases) -> None:
        self._hosted = hosted
        self._databases = databases
        self._templates = Templates(hosted, databases)
        self.version: str = databases.host.version
        self.host: str = databases.host.first.host
        self.port: int = databases.host.first.port

    def database(self, *, template: Make | None = None) -> DatabaseOpening:
        """A database of its own, for `with` and `async with`, in any thread and any event loop.

        It begins as the init files filled it, or as `template` did: a function that is given a
        database, runs once for each server (migrations), and leaves what all copies begin with.
        It belongs to an ordinary role, and is dropped at the end.

        Raises:
            UsageError: `template` cannot be called.
            ServiceFailed: entering: the server did not make it, or is gone.
        """
        check("database: template", template, MAKE)
        return DatabaseOpening(self._hosted, self._databases, self._templates, template)

    @property
    def address(self) -> Database:
        """A database that lives as long as the server: made when it is first asked for. Blocks."""
        made: Database = self._hosted.call(self._databases.main()).result()
        return made

    @property
    def url(self) -> Url:
        """The address of that database; `url(driver="psycopg")` names a driver in it."""
        return self.address.url

    @property
    def user(self) -> str:
        """The role that owns the databases."""
        return self._databases.host.first.user

    @property
    def password(self) -> str:
        """The role's."""
        return self._databases.host.first.password

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for a client: DATABASE_URL and those of libpq."""
        return self.address.variables


class PostgresServer(_Postgres):
    """A server whose methods block; they may be called from any thread."""

    def exec(self, argv: Sequence[str], *, timeout_seconds: float = EXEC_SECONDS) -> ExecResult:
        """Run a command where the server runs. The server's own programs are found, and psql is
        the superuser in the database of `url`.

        Raises:
            UsageError: an argument is not what it has to be, or this is a phase's service.
            CleanroomError: the server is gone.
        """
        done: ExecResult = self._hosted.call(_exec(self._databases, argv, timeout_seconds)).result()
        return done

    def logs(self) -> str:
        """What the server has written so far.

        Raises:
            UsageError: this is a phase's service, whose log is the run's.
        """
        text: str = self._hosted.call(self._databases.host.logs()).result()
        return text

    def stop(self) -> None:
        """End the server that `start` started."""
        self._hosted.close()


class AsyncPostgresServer(_Postgres):
    """A server whose methods are awaited, in any event loop."""

    async def exec(
        self, argv: Sequence[str], *, timeout_seconds: float = EXEC_SECONDS
    ) -> ExecResult:
        """As `PostgresServer.exec`."""
        call = self._hosted.call(_exec(self._databases, argv, timeout_seconds))
        done: ExecResult = await call.result_async()
        return done

    async def logs(self) -> str:
        """As `PostgresServer.logs`."""
        text: str = await self._hosted.call(self._databases.host.logs()).result_async()
        return text


async def _exec(databases: Databases, argv: Sequence[str], timeout_seconds: float) -> ExecResult:
    check("exec: argv", argv, ARGV)
    check("exec: timeout_seconds", timeout_seconds, SECONDS)
    host = databases.host
    main = await databases.main()
    variables = {"PGUSER": host.user, "PGDATABASE": main.database}
    return await host.exec(argv, variables, timeout_seconds)


def postgres(
    *,
    init: Sequence[str | Path] = (),
    version: str = "",
    superuser: bool = False,
    options: Mapping[str, str] | None = None,
    folder: str | Path | None = None,
    caller: Mapping[str, str] | None = None,
) -> Opening[PostgresServer, AsyncPostgresServer]:
    """A PostgreSQL server whose databases begin as the SQL files filled one (the result is cached).

    `with` gives a `PostgresServer`, `async with` an `AsyncPostgresServer`.
    `version` is refused where another one is found.
    `superuser` is for the role that owns the databases, `options` are settings of the server.
    Its log and journal lie in `folder`.
    Inside a phase of a run it is the phase's own, which is only looked at: it has to be as asked.

    Raises:
        UsageError: an argument is not what it has to be.
        CleanroomError: entering: it cannot be started here; see the code.
    """
    check("servers.postgres: init", init, PATHS)
    check("servers.postgres: superuser", superuser, FLAG)
    check("servers.postgres: options", options or {}, VARIABLES)
    where = place("servers.postgres", version, folder, caller)
    spec = ServiceSpec(
        name="postgres",
        kind="postgres",
        version=version,
        init=tuple(os.path.abspath(path) for path in init),  # noqa: PTH100 -- links stay
        options=dict(options or {}),
        superuser=superuser,
    )
    return Opening(
        "cleanroom-postgres", lambda: _open(spec, where), PostgresServer, AsyncPostgresServer
    )


@asynccontextmanager
async def _open(spec: ServiceSpec, where: Place) -> AsyncIterator[Databases]:
    if RUN in where.caller:
        async with phase_databases(spec, where.caller) as databases:
            yield databases
    else:
        # in a phase most of the engine would be imported for nothing
        from cleanroom.servers.own_server import serve

        async with serve(spec, where.folder, where.caller) as server:
            yield Databases(_OwnPostgres(server))


class _OwnPostgres:
    """A server of our own: its superuser makes the databases, over its socket."""

    source = DATABASE
    maintenance = "postgres"
    prefix = "test_"

    def __init__(self, server: OwnServer) -> None:
        recipe = server.recipe
        self.version = server.version
        self.user, self.password = recipe.probe.user, recipe.probe.password
        self.first = database(
            server.host, server.port, ROLE, recipe.phase_variables["PGPASSWORD"], DATABASE
        )
        self._server = server

    def check_create(self) -> None:
        """Its superuser may."""

    async def dial(self) -> ByteStream:
        return await self._server.dial()

    async def exec(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout_seconds: float
    ) -> ExecResult:
        socket = {"PGHOST": run_folder(self._server.recipe.name)}
        return await self._server.exec(argv, {**socket, **variables}, timeout_seconds)

    async def logs(self) -> str:
        return await self._server.logs()
