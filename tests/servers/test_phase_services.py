"""Servers inside a phase of a run: the phase's own ones, found by its variables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cleanroom
from cleanroom import servers
from cleanroom.model.errors import UsageError
from cleanroom.model.plan import ServiceSpec
from cleanroom.servers.phase_services import Address, find
from support.servers_harness import ask

SOURCE = Path(cleanroom.__file__).parent.parent
RUN = {"CLEANROOM_RUN_ID": "20260101-000000-abcde"}
POSTGRES = "postgresql://app:secret@127.0.0.1:5432/app"


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({"CLEANROOM_DB_URL": POSTGRES}, 5432),
        ({"CLEANROOM_POSTGRES_URL": POSTGRES, "CLEANROOM_B_URL": "postgresql://u:p@h:1/d"}, 5432),
        ({"CLEANROOM_PAGES_URL": "http://127.0.0.1:80", "CLEANROOM_B_URL": POSTGRES}, 5432),
    ],
    ids=["the only one", "the one that is called so", "the only one of its kind"],
)
def test_a_service_of_the_phase_is_found(variables: dict[str, str], port: int) -> None:
    """By the address that the phase's variables have."""
    found = find(ServiceSpec(name="postgres", kind="postgres"), {**RUN, **variables})
    assert found == Address("127.0.0.1", port, "app", "secret", "app")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no service of the kind redis"),
        ({"CLEANROOM_DB_URL": POSTGRES, "REDIS_URL": "redis://:p@h:1/0"}, "no service"),
        (
            {"CLEANROOM_A_URL": "redis://:p@h:1/0", "CLEANROOM_B_URL": "redis://:p@h:2/0"},
            "several services of the kind redis",
        ),
    ],
    ids=["none", "none that the run made", "several"],
)
def test_a_phase_without_it_is_refused(variables: dict[str, str], words: str) -> None:
    """With the line that names one."""
    with pytest.raises(UsageError, match=words) as refused:
        find(ServiceSpec(name="redis", kind="redis"), {**RUN, **variables})
    assert refused.value.code == "CR-SERVICE-031"
    assert 'cleanroom.containers = ["redis"]' in refused.value.hint


@pytest.fixture(scope="module")
def outer(caller: dict[str, str]) -> Iterator[servers.PostgresServer]:
    """A server whose role may make databases: it stands for the one of a run."""
    with servers.postgres(superuser=True, caller=caller) as server:
        yield server


def inside(server: servers.PostgresServer | servers.RedisServer, **more: str) -> dict[str, str]:
    """The variables of a phase that has this server."""
    kind = "POSTGRES" if isinstance(server, servers.PostgresServer) else "REDIS"
    return {**RUN, f"CLEANROOM_{kind}_URL": str(server.url), **more}


@pytest.mark.sandbox
def test_databases_are_made_on_the_phases_server(outer: servers.PostgresServer) -> None:
    """They are copies of the phase's one, or of what a function made, and gone afterwards."""
    ask(outer, "CREATE TABLE IF NOT EXISTS item (n int)")

    def migrate(database: servers.Database) -> None:
        ask(database, "INSERT INTO item VALUES (1)")

    with servers.postgres(caller=inside(outer)) as server:
        assert (server.version, server.port) == (outer.version, outer.port)
        with server.database() as one, server.database(template=migrate) as two:
            assert ask(one, "SELECT count(*) FROM item") == "0"
            assert ask(two, "SELECT count(*) FROM item") == "1"
        assert server.address.database not in (one.database, outer.address.database)
    assert (
        ask(outer, "SELECT count(*) FROM pg_database WHERE datname ~ '^test_[0-9a-f]{8}_'") == "0"
    )


@pytest.mark.sandbox
def test_two_processes_of_a_phase_do_not_meet(outer: servers.PostgresServer) -> None:
    """Workers of pytest-xdist have one server there, and databases of names of their own."""
    with (
        servers.postgres(caller=inside(outer)) as first,
        servers.postgres(caller=inside(outer)) as second,
        first.database() as one,
        second.database() as two,
    ):
        assert one.database != two.database


@pytest.mark.sandbox
def test_init_files_fill_an_empty_database(outer: servers.PostgresServer, tmp_path: Path) -> None:
    """As outside of a run, whatever the phase's own database has."""
    ask(outer, "CREATE TABLE IF NOT EXISTS item (n int)")
    schema = tmp_path / "schema.sql"
    schema.write_text("CREATE TABLE item (n int); INSERT INTO item VALUES (7);")
    with (
        servers.postgres(init=[schema], caller=inside(outer)) as server,
        server.database() as database,
    ):
        assert ask(database, "SELECT n FROM item") == "7"
    schema.write_text("CREATE TABLE;")
    with pytest.raises(Exception, match=r"init file .*schema.sql: syntax error"):
        servers.postgres(init=[schema], caller=inside(outer)).start()
    schema.write_text("\\connect other\n")
    with pytest.raises(UsageError, match=r"schema.sql has commands of psql \(\\connect\)"):
        servers.postgres(init=[schema], caller=inside(outer)).start()


@pytest.mark.sandbox
def test_what_the_phases_server_is_not_is_refused(
    outer: servers.PostgresServer, caller: dict[str, str]
) -> None:
    """By the line of make.toml that would make it so."""
    for wrong, hint in [
        ({"version": "9"}, 'version = "9"'),
        ({"options": {"work_mem": "3MB"}}, 'options = { work_mem = "3MB" }'),
    ]:
        with pytest.raises(UsageError, match="was asked for") as refused:
            servers.postgres(**wrong, caller=inside(outer)).start()  # type: ignore[arg-type]
        assert refused.value.code == "CR-SERVICE-040"
        assert hint in refused.value.hint
    with servers.postgres(caller=inside(outer)) as server:
        with pytest.raises(UsageError, match="the server is the phase's"):
            server.logs()
        with pytest.raises(UsageError, match="the server is the phase's"):
            server.exec(["psql"])


@pytest.mark.sandbox
def test_a_role_that_may_make_no_database_is_told_so(outer: servers.PostgresServer) -> None:
    """When one is asked for, and a superuser at once."""
    ask(outer, "CREATE ROLE ordinary LOGIN PASSWORD 'secret'")
    url = outer.url.replace(f"{outer.user}:{outer.password}", "ordinary:secret")
    variables = {**RUN, "CLEANROOM_POSTGRES_URL": url}
    with (
        servers.postgres(caller=variables) as server,
        pytest.raises(UsageError, match="'ordinary' may not make a database") as refused,
        server.database(),
    ):
        pass
    assert refused.value.code == "CR-SERVICE-040"
    assert "createdb = false" in refused.value.hint
    with pytest.raises(UsageError, match="a superuser was asked for"):
        servers.postgres(superuser=True, caller=variables).start()


@pytest.mark.sandbox
def test_the_phases_key_value_server_is_emptied(caller: dict[str, str]) -> None:
    """Whole; for a worker of pytest-xdist only the database that is its own."""
    with servers.redis(caller=caller) as outer:
        with servers.redis(caller=inside(outer)) as server:
            assert (server.url, server.version) == (outer.url, outer.version)
            server.clear()
        with servers.redis(caller=inside(outer, PYTEST_XDIST_WORKER="gw3")) as server:
            assert server.url == outer.url.removesuffix("/0") + "/3"
            server.clear()
        with pytest.raises(UsageError, match="worker gw16 of pytest-xdist has no database"):
            servers.redis(caller=inside(outer, PYTEST_XDIST_WORKER="gw16")).start()


@pytest.mark.sandbox
@pytest.mark.slow
async def test_fixtures_in_a_phase_use_its_services(tmp_path: Path) -> None:
    """The same tests, with two workers, in a run: each finds a database of its own and an empty
    server, at the phase's own addresses.
    """
    project = tmp_path / "project"
    project.mkdir()
    (project / "make.toml").write_text(f"""
[project]
name = "tests"

[cleanroom]
slo = "10m"

[cleanroom.services.postgres]
superuser = true

[lifecycle.test]
command = "python -m pytest -q -n 2 -p xdist -p cleanroom.pytest_plugin test_them.py"
cleanroom.containers = ["postgres", "redis"]
env = {{ PYTEST_DISABLE_PLUGIN_AUTOLOAD = "1", PYTHONPATH = "{SOURCE}" }}
""")
    (project / "test_them.py").write_text("""
import os, pytest

@pytest.mark.parametrize("number", range(4))
def test_one(cleanroom_postgres, cleanroom_redis, number):
    assert str(cleanroom_postgres.port) == os.environ["PGPORT"]
    assert cleanroom_postgres.database != os.environ["PGDATABASE"]
    assert os.environ["REDIS_URL"].removesuffix("/0") in cleanroom_redis.url
""")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    caller = {"PATH": path, "CLEANROOM_CACHE": str(tmp_path / "cache")}
    async with cleanroom.open(project, caller=caller) as engine:
        result = await engine.run("test")
    assert result.outcome == "passed", (result.reason, result.phases[-1].excerpt)
