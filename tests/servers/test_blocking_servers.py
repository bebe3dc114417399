"""Servers for programs without an event loop, or in any: entered, asked, told what they said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cleanroom
from cleanroom import servers
from cleanroom.model.errors import UsageError
from support.servers_harness import ask

pytestmark = pytest.mark.sandbox


def test_a_blocking_server_gives_databases_and_runs_commands(
    tmp_path: Path, caller: dict[str, str]
) -> None:
    """Its own address, databases beside it, commands inside it and its log, without a loop."""
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE item (n int);")
    with servers.postgres(init=[schema], caller=caller) as server:
        assert ask(server, "INSERT INTO item VALUES (1); SELECT count(*) FROM item") == "1"
        with server.database() as one, server.database() as two:
            assert len({server.address.database, one.database, two.database}) == 3
            assert ask(one, "SELECT count(*) FROM item") == "0"
        assert "does not exist" in ask(one, "SELECT 1")
        done = server.exec(["psql", "-qtAX", "-c", "SELECT current_user"])
        assert (done.exit_code, done.stdout.strip()) == (0, "postgres")
        counted = server.exec(["psql", "-qtAX", "-c", "SELECT count(*) FROM item"])
        assert counted.stdout.strip() == "1"
        assert server.exec(["sh", "-c", "echo wrong >&2; exit 3"]) == servers.ExecResult(
            exit_code=3, stdout="", stderr="wrong\n"
        )
        assert "ready to accept connections" in server.logs()


def test_an_address_names_a_driver(tmp_path: Path, caller: dict[str, str]) -> None:
    """The address is text, and called it is the one that SQLAlchemy wants."""
    with servers.redis(caller=caller) as server:
        assert (
            server.url
            == server.keyvalue.url
            == f"redis://:{server.password}@127.0.0.1:{server.port}/0"
        )
        assert server.variables == {"REDIS_URL": str(server.url)}
    database = servers.Database(
        url=servers.Url("postgresql://app:secret@127.0.0.1:5432/test_1"),
        host="127.0.0.1",
        port=5432,
        user="app",
        password="secret",
        database="test_1",
    )
    assert database.url(driver="psycopg") == "postgresql+psycopg://app:secret@127.0.0.1:5432/test_1"
    assert database.url() == database.url == "postgresql://app:secret@127.0.0.1:5432/test_1"
    with pytest.raises(UsageError, match="name of a driver"):
        database.url(driver="psycopg://")


async def test_the_same_server_in_two_ways(tmp_path: Path, caller: dict[str, str]) -> None:
    """Methods of an asynchronous server are awaited; databases are entered either way."""
    async with servers.postgres(caller=caller) as server:
        async with server.database() as one:
            with server.database() as two:
                assert one.database != two.database
        done = await server.exec(["psql", "-qtAX", "-c", "SELECT 1"])
        assert done.stdout.strip() == "1"
        assert "ready to accept connections" in await server.logs()


def test_a_server_is_used_in_loops_that_end(tmp_path: Path, caller: dict[str, str]) -> None:
    """One database in each of three event loops, as pytest has one for each test."""
    names = []

    async def use(server: servers.RedisServer | servers.PostgresServer) -> None:
        assert isinstance(server, servers.PostgresServer)
        async with server.database() as database:
            names.append(database.database)

    with servers.postgres(caller=caller) as server:
        for _ in range(3):
            asyncio.run(use(server))
    assert len(set(names)) == 3


def test_the_cells_of_a_notebook(tmp_path: Path, caller: dict[str, str]) -> None:
    """Started in one cell, used in others, in a loop that runs all the time; stopped, or forgotten
    when the kernel ends.
    """
    cells = """
        import asyncio
        from cleanroom import servers

        async def notebook():
            redis = servers.redis().start()
            postgres = servers.postgres().start()
            redis.clear()
            with postgres.database() as database:
                print(database.database)
            async with postgres.database() as database:
                print(database.database)
            postgres.stop()

        asyncio.run(notebook())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(cells)],
        env={**caller, "PYTHONPATH": str(Path(cleanroom.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("test_1\ntest_2\n", "", 0)
    assert not list(Path(caller["CLEANROOM_CACHE"], "runs").iterdir())


def test_settings_reach_the_server(tmp_path: Path, caller: dict[str, str]) -> None:
    """A superuser and an option; a version that is not there is refused by name."""
    opened = servers.postgres(superuser=True, options={"work_mem": "77MB"}, caller=caller)
    with opened as server, server.database() as database:
        assert ask(database, "SHOW work_mem") == "77MB"
        assert ask(database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"
    with pytest.raises(Exception, match="expected 9, found") as refused:
        servers.postgres(version="9", caller=caller).start()
    assert getattr(refused.value, "code", "") == "CR-SERVICE-003"
    with pytest.raises(UsageError, match=r"servers\.postgres: superuser: expected True or False"):
        servers.postgres(superuser="yes")  # type: ignore[arg-type]
