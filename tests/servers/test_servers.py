"""Real servers for programs on the host: reached on 127.0.0.1, one database per use, restarted,
gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import anyio
import pytest

from cleanroom import servers
from cleanroom.model.errors import ServiceFailed, UsageError
from cleanroom.services import postgres, resp

pytestmark = pytest.mark.sandbox


async def answer(database: servers.Database, statement: str) -> str:
    """What psql on the host hears: a client like any other, told by its environment."""
    done = await anyio.run_process(
        ["psql", "-X", "-q", "-A", "-t", "-c", statement],
        env={**os.environ, **database.variables},
        check=False,
    )
    return (done.stdout + done.stderr).decode().strip()


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql on PATH")
async def test_databases_begin_as_the_template_and_do_not_see_each_other(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """Two databases at once both have the init file's rows;
    a row added to one is not in the other, nor in a later one.
    """
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE item (n int); INSERT INTO item VALUES (1);")
    async with servers.postgres(init=[schema], folder=tmp_path / "log", caller=caller) as server:
        async with server.database() as one, server.database() as two:
            assert (
                await answer(one, "INSERT INTO item VALUES (2); SELECT count(*) FROM item") == "2"
            )
            assert await answer(two, "SELECT count(*) FROM item") == "1"
        async with server.database() as three:
            assert await answer(three, "SELECT count(*) FROM item") == "1"
            assert (
                await answer(
                    three,
                    "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
                )
                == "f"
            )
        assert "does not exist" in await answer(one, "SELECT 1")
    assert not list(Path(caller["CLEANROOM_CACHE"], "runs").iterdir())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((one.host, one.port))


async def test_a_database_is_dropped_while_a_client_is_connected(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """A connection that is open at the end does not keep the database alive,
    and the next one can be made.
    """
    async with servers.postgres(folder=tmp_path, caller=caller) as server:
        async with server.database() as database:
            idle = await anyio.connect_tcp(database.host, database.port)
        async with server.database() as after:
            assert after.database != database.database
        await idle.aclose()


async def ping(server: servers.AsyncRedisServer) -> bool:
    async with await anyio.connect_tcp(server.host, server.port) as stream:
        return await resp.ping(stream, server.keyvalue.password)


async def test_clearing_removes_keys_and_ends_connections(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """After `clear` no key of any database is left, and a client of before is disconnected."""
    async with servers.redis(folder=tmp_path, caller=caller) as server:
        password = server.keyvalue.password
        old = await anyio.connect_tcp(server.host, server.port)
        assert (
            await resp.send_commands(
                old, password, ("SET", "a", "1"), ("SELECT", "3"), ("SET", "b", "1")
            )
            == ["+OK"] * 4
        )
        await server.clear()
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await old.receive()
        await old.aclose()
        async with await anyio.connect_tcp(server.host, server.port) as new:
            assert await resp.send_commands(
                new, password, ("DBSIZE",), ("SELECT", "3"), ("DBSIZE",)
            ) == [
                "+OK",
                ":0",
                "+OK",
                ":0",
            ]


async def test_a_client_that_comes_while_the_server_restarts_is_served(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """A server that dies is there again at the same port:
    whoever connects meanwhile waits for it.
    """
    async with servers.redis(folder=tmp_path, caller=caller) as server:
        async with await anyio.connect_tcp(server.host, server.port) as stream:
            await resp.send_commands(stream, server.keyvalue.password, ("SHUTDOWN", "NOSAVE"))
        with anyio.fail_after(20):
            while True:
                try:
                    if await ping(server):
                        break
                except (OSError, anyio.BrokenResourceError):
                    pass  # the relay of the life that ends resets what it cannot lead anywhere
        await server.clear()


async def test_a_body_that_fails_keeps_its_own_exception(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """The caller's error comes out as it was and not inside a group, and the server is gone."""
    with pytest.raises(ZeroDivisionError):
        async with servers.redis(folder=tmp_path, caller=caller):
            raise ZeroDivisionError
    assert not list(Path(caller["CLEANROOM_CACHE"], "runs").iterdir())


async def test_an_init_file_that_fails_is_named(tmp_path: Path, caller: dict[str, str]) -> None:
    """SQL that the server refuses is one error of ours with the server's words."""
    schema = tmp_path / "wrong.sql"
    schema.write_text("CREATE TABLE;")
    with pytest.raises(Exception, match="syntax error") as refused:
        async with servers.postgres(init=[schema], folder=tmp_path, caller=caller):
            pass
    assert getattr(refused.value, "code", "") == "CR-SERVICE-026"


async def test_a_server_inside_a_run_is_refused(tmp_path: Path, caller: dict[str, str]) -> None:
    """Within a phase the error says to declare the service instead."""
    with pytest.raises(UsageError, match="inside a run") as refused:
        async with servers.redis(folder=tmp_path, caller={**caller, "CLEANROOM_RUN_ID": "x"}):
            pass
    assert refused.value.code == "CR-SERVICE-031"


async def test_what_a_server_refuses_is_an_error_of_ours(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """Of a key-value server that lets nobody empty it, and of a PostgreSQL whose template somebody
    uses.
    """
    async with servers.redis(folder=tmp_path, caller=caller) as server:
        async with await anyio.connect_tcp(server.host, server.port) as stream:
            await resp.send_commands(
                stream, server.keyvalue.password, ("ACL", "SETUSER", "default", "-flushall")
            )
        with pytest.raises(ServiceFailed, match="NOPERM") as refused:
            await server.clear()
        assert refused.value.code == "CR-SERVICE-030"


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql on PATH")
async def test_a_database_whose_template_is_in_use_is_refused(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """In the server's own words; as soon as nobody uses it, the next one is made."""
    async with servers.postgres(folder=tmp_path, caller=caller) as server:
        async with server.database() as database:
            pass
        template = {**os.environ, **database.variables, "PGDATABASE": postgres.DATABASE}
        words = ["psql", "-X", "-A", "-t", "-c", "SELECT 1", "-c", "SELECT pg_sleep(60)"]
        async with await anyio.open_process(words, env=template, stdin=subprocess.DEVNULL) as user:
            assert user.stdout is not None
            assert (await user.stdout.receive()).startswith(b"1")
            with pytest.raises(ServiceFailed, match="being accessed by other users") as refused:
                async with server.database():
                    pass
            user.kill()
        assert refused.value.code == "CR-SERVICE-030"
