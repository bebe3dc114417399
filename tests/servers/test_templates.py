"""Databases that begin as a function left one: run once, awaited where it has to be, copied."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from cleanroom import servers
from cleanroom.model.errors import UsageError
from support.servers_harness import ask

pytestmark = pytest.mark.sandbox


def test_migrations_run_once_and_every_database_begins_with_them(caller: dict[str, str]) -> None:
    """Also when several threads ask at the same time; a row of one database is not in another."""
    calls = []

    def migrate(database: servers.Database) -> None:
        calls.append(database.database)
        ask(database, "CREATE TABLE item (n int); INSERT INTO item VALUES (1)")

    def use(number: int) -> str:
        with server.database(template=migrate) as database:
            return ask(database, f"INSERT INTO item VALUES ({number}); SELECT count(*) FROM item")

    with servers.postgres(caller=caller) as server, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(use, range(4))) == ["2"] * 4
        assert len(calls) == 1
        with server.database() as plain:
            assert "does not exist" in ask(plain, "SELECT * FROM item")


def test_a_connection_that_migrations_leave_open_is_ended(caller: dict[str, str]) -> None:
    """A pool that nobody closed does not keep the template from being copied."""
    left = []

    def migrate(database: servers.Database) -> None:
        words = ["psql", "-X", "-A", "-t", str(database.url)]
        client = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"SELECT 1;\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"1\n"
        left.append(client)

    with servers.postgres(caller=caller) as server:
        for _ in range(2):
            with server.database(template=migrate) as database:
                assert ask(database, "SELECT 2") == "2"
        left[0].communicate()
    assert len(left) == 1


async def test_a_coroutine_function_is_awaited_where_it_was_asked_for(
    caller: dict[str, str],
) -> None:
    """In the caller's own loop; others that ask meanwhile wait for it."""
    loops = []

    async def migrate(database: servers.Database) -> None:
        loops.append(asyncio.get_running_loop())
        await anyio.sleep(0.05)

    async def use() -> None:
        async with server.database(template=migrate):
            pass

    async with servers.postgres(caller=caller) as server, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(use)
    assert loops == [asyncio.get_running_loop()]


async def test_a_function_may_run_a_loop_of_its_own(caller: dict[str, str]) -> None:
    """As the asynchronous env.py of Alembic does, with `with` and `async with`, while a loop runs;
    what it returns is awaited where that is possible.
    """
    ran = []

    async def work() -> None:
        ran.append(threading.current_thread())

    def runs_a_loop(database: servers.Database) -> None:
        asyncio.run(work())

    async with servers.postgres(caller=caller) as server:
        async with server.database(template=runs_a_loop):
            pass
        with server.database(template=lambda database: asyncio.run(work())):
            pass
        with server.database(template=lambda database: work()):
            pass
    assert len(ran) == 3
    assert threading.current_thread() not in ran


def test_what_migrations_raise_comes_out_every_time(caller: dict[str, str]) -> None:
    """The second test hears the same without a second try; the half-made database is gone."""
    calls = []

    def migrate(database: servers.Database) -> None:
        calls.append(database)
        raise ZeroDivisionError

    with servers.postgres(caller=caller) as server:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), server.database(template=migrate):
                pass
        assert len(calls) == 1
        assert "does not exist" in ask(calls[0], "SELECT 1")
        with pytest.raises(UsageError, match="a function that is given the database to fill"):
            server.database(template="schema.sql")  # type: ignore[arg-type]
