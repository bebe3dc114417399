"""The databases of one PostgreSQL server: made, frozen and dropped by statements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio

from cleanroom.model.errors import ServiceFailed
from cleanroom.servers.addresses import Database
from cleanroom.servers.hosts import Host
from cleanroom.services import pgwire

STATEMENT_SECONDS = 60.0  # copying a large template database takes seconds


class PostgresHost(Host, Protocol):
    """What is asked of one of this kind beside."""

    # the server's own database, and the role that owns what is made
    first: Database
    # the name of the database that others are copies of
    source: str
    # who asks, with which password; the database to ask in where none is meant
    user: str
    password: str
    maintenance: str
    # what names of databases begin with
    prefix: str

    def check_create(self) -> None:
        """Raises:
        UsageError: `user` may not make databases.
        """


class Databases:
    """Those that were made here. All methods run in the loop that the server runs in."""

    def __init__(self, host: PostgresHost) -> None:
        self.host = host
        self._numbers = 0
        self._main: Database | None = None
        self._making_main = asyncio.Lock()
        self._made: set[str] = set()

    async def create(self, template: str = "") -> Database:
        """A copy of the database `template`; of the server's prepared one where none is named.

        Raises:
            UsageError: its role may not make databases.
            ServiceFailed: the server did not make it, or is gone.
        """
        self.host.check_create()
        self._numbers += 1
        name = f"{self.host.prefix}{self._numbers}"
        source, owner = template or self.host.source, self.host.first.user
        await self.ask(f"CREATE DATABASE {name} TEMPLATE {source} OWNER {owner}")
        self._made.add(name)
        return self.host.first.named(name)

    async def drop(self, name: str) -> None:
        """Remove it; whoever is connected is disconnected.

        Raises:
            ServiceFailed: the server did not, or is gone.
        """
        await self.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._made.discard(name)

    async def drop_all(self) -> None:
        """Remove all that were made here and are still there."""
        for name in sorted(self._made):
            await self.drop(name)

    async def freeze(self, name: str) -> None:
        """End what is connected to it and let nobody in any more: copying needs that.

        Raises:
            ServiceFailed: the server did not, or is gone.
        """
        milliseconds = int(STATEMENT_SECONDS * 1000)
        await self.ask(
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            # waits for the end of each: a signal alone would let the copy come too early
            f"SELECT pg_terminate_backend(pid, {milliseconds}) FROM pg_stat_activity"  # noqa: S608
            f" WHERE datname = '{name}' AND pid <> pg_backend_pid()",
        )

    async def main(self) -> Database:
        """The one database for whoever wants no more than one, made when it is first asked for.

        Raises:
            ServiceFailed: the server did not make it, or is gone.
        """
        async with self._making_main:
            if self._main is None:
                self._main = await self.create()
            return self._main

    async def ask(
        self, *statements: str, database: str = "", shown: str = ""
    ) -> list[tuple[str, ...]]:
        """The rows of these statements, run one after the other. `shown` is what an error names.

        Raises:
            ServiceFailed: one failed, or the server is gone.
        """
        host = self.host
        action = shown or statements[0]
        with failing(action):
            async with await host.dial() as stream:
                with anyio.fail_after(STATEMENT_SECONDS):
                    answers = await pgwire.ask(
                        stream,
                        user=host.user,
                        database=database or host.maintenance,
                        password=host.password,
                        statements=statements,
                    )
        if answers.error:
            raise ServiceFailed(
                "CR-SERVICE-030",
                f"{action}: {answers.error}",
                hint="is something still connected, or the disk full?",
            )
        return answers.rows


@contextmanager
def failing(action: str) -> Iterator[None]:
    """A connection that fails is an error of ours.

    Raises:
        ServiceFailed: it did.
    """
    try:
        yield
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise ServiceFailed(
            "CR-SERVICE-030", f"{action}: {error}", hint="it may just be restarting"
        ) from error
