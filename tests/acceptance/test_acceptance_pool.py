"""A pool: servers of a project that outlive its runs, each run with a database and a role of its
own, or a key-value server that is new.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cleanroom.services.programs import find_postgres
from support import phase_programs
from support.command_harness import Project, reap
from support.ggen_harness import SCHEMA, children, leftovers, shared_servers, wait_gone

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


def sql(statement: str) -> str:
    psql = find_postgres(os.environ["PATH"]).helpers["psql"]
    return f'{psql} "$DATABASE_URL" -v ON_ERROR_STOP=1 -Atc "{statement}"'


def write_store(project: Project, phases: dict[str, str], lines: str = "") -> None:
    """Phases that use the key-value server by `ask`."""
    (project.root / "ask.py").write_text(phase_programs.source("redis_commands"))
    project.write(
        {
            name: command.replace("ask ", "/usr/bin/python3 ask.py ")
            for name, command in phases.items()
        },
        containers='["redis"]',
    )
    project.add(lines)


def write(project: Project, phases: dict[str, str], schema: str = SCHEMA) -> None:
    (project.root / "schema.sql").write_text(schema)
    lines = [
        "[project]",
        'name = "pooled"',
        "",
        "[cleanroom.services.postgres]",
        'init = ["schema.sql"]',
        "",
    ]
    tools = json.dumps(find_postgres(os.environ["PATH"]).folders)
    for name, command in phases.items():
        lines += [
            f"[lifecycle.{name}]",
            f"command = {json.dumps(command)}",
            'cleanroom.containers = ["postgres"]',
            f"cleanroom.tools = {tools}",
            "",
        ]
    (project.root / "make.toml").write_text("\n".join(lines))


def pool(project: Project, *words: str) -> dict[str, Any]:
    argv = project.argv("pool", *words, "--output", "json")
    done = subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def pooled(project: Project) -> Iterator[Project]:
    """A project whose pool is ended with the test."""
    yield project
    if (project.root / "make.toml").exists():
        pool(project, "stop")


def test_runs_have_databases_of_their_own_on_one_server(pooled: Project):
    """Each begins as the init files left it, what one writes the next does not see,
    and its role owns what is in it and reaches nothing else.
    """
    count = sql(
        "INSERT INTO item VALUES (2); ALTER TABLE item ADD note text; SELECT count(*) FROM item"
    )
    other = sql("SELECT 1").replace("$DATABASE_URL", "$(echo $DATABASE_URL | sed 's/[^/]*$/app/')")
    write(pooled, {"count": f"{count} | grep -x 2", "other": f"! {other}"})
    started = pool(pooled, "start")
    assert [(service["name"], service["ready"]) for service in started["services"]] == [
        ("postgres", True)
    ]
    for phase in ("count", "count", "other"):
        result = pooled.call("run", phase).result
        assert result["outcome"] == "passed", result
        assert result["services"][0]["held_by"] == started["id"]
        assert result["ledger"]["left"] == []
        assert any(thing.startswith("database run_") for thing in result["ledger"]["held"])
    assert pool(pooled, "status")["leases"] == 0
    assert pool(pooled, "status")["id"] == started["id"]


def test_databases_that_a_run_made_are_its_own_and_go_with_it(pooled: Project):
    """Another run cannot connect to one, whichever it was copied from, nor drop it, nor take its
    guard away; when the run ends the next may use its name.
    """
    psql = find_postgres(os.environ["PATH"]).helpers["psql"]
    make = "; ".join(
        [
            f"set -e; {psql} -Xc 'CREATE DATABASE plain'",
            f"{psql} -Xc 'CREATE DATABASE low TEMPLATE template0'",
            f'{psql} -Xc "CREATE DATABASE copy TEMPLATE $PGDATABASE"',
            f"{psql} -Xc 'SELECT lo_create(7)' -d postgres",
            f"{psql} -Xc 'ALTER DATABASE plain IS_TEMPLATE true'",
        ]
    )
    look = " && ".join(
        [
            f"{psql} -Xd postgres -c 'SELECT 1'",
            *(f"! {psql} -Xd {name} -c 'SELECT 1'" for name in ("plain", "low", "copy")),
            *(f"! {psql} -Xd {name} -c 'SELECT 1'" for name in ("app", "template1")),
            f"! {psql} -Xc 'DROP DATABASE low'",
            f"! {psql} -Xc 'DROP EVENT TRIGGER cleanroom_owner_only'",
            f"! {psql} -Xc 'DROP EXTENSION plpgsql CASCADE'",
        ]
    )
    write(pooled, {"make": make, "long": f"{make}; sleep 30", "look": look})
    pool(pooled, "start")
    assert pooled.call("run", "make").result["outcome"] == "passed"
    engine = pooled.started("run", "long", "--backend", "embedded")
    pooled.wait_running(engine, "sleep 30")
    result = pooled.call("run", "look").result
    assert result["outcome"] == "passed", result["phases"][0]["excerpt"]
    engine.terminate()
    engine.wait(20)
    assert pooled.call("run", "make").result["outcome"] == "passed"


def test_a_superuser_is_refused_by_name(project: Project):
    """A pool's role is an ordinary one; the service and the key are said."""
    project.write({"look": "true"}, containers='["postgres"]')
    project.add("[cleanroom.services.postgres]\nsuperuser = true\n")
    argv = project.argv("pool", "start")
    done = subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "'postgres' with superuser = true" in done.stderr


def test_a_pool_lends_a_server_with_users_of_its_own_whole(pooled: Project):
    """A run has them and a new server comes after it; one beside it has its own."""
    psql = find_postgres(os.environ["PATH"]).helpers["psql"]
    ask = f"{psql} $CLEANROOM_POSTGRES_USER_READER_URL -XAtc"
    write(pooled, {"make": f"{ask} 'SELECT 1' && {psql} -Xc 'CREATE DATABASE fixed'"})
    pooled.add('[cleanroom.services.postgres.users]\nreader = ""\n')
    started = pool(pooled, "start")
    for _ in range(2):
        result = pooled.call("run", "make").result
        assert result["outcome"] == "passed", result["phases"][0]["excerpt"]
        assert result["services"][0]["held_by"] == started["id"]


def test_a_key_value_server_is_new_for_each_run(pooled: Project):
    """Keys, settings and users that one run leaves are not there for the next,
    whose server was ready before it came; it has another password.
    """
    left = [
        "SET mine 1",
        "CONFIG SET maxmemory 7mb",
        "ACL SETUSER other on nopass ~* +@all",
        "CONFIG SET requirepass known",
    ]
    asked = ["DBSIZE", "EXISTS mine", "ACL DELUSER other"]
    write_store(
        pooled,
        {
            "leave": "ask "
            + " ".join(f"'{words}'" for words in left)
            + " && echo $REDIS_URL > url",
            "look": "ask "
            + " ".join(f"'{words}'" for words in asked)
            + " | tr -d '\\n' | grep -x :0:0:0 && test $REDIS_URL != $(cat url)",
        },
    )
    started = pool(pooled, "start")
    assert [(service["name"], service["ready"]) for service in started["services"]] == [
        ("redis", True)
    ]
    for phase in ("leave", "look", "leave", "look"):
        result = pooled.call("run", phase).result
        assert result["outcome"] == "passed", result["phases"][0]["excerpt"]
        assert result["services"][0]["held_by"] == started["id"]
        assert result["ledger"]["left"] == []
    assert pool(pooled, "status")["id"] == started["id"]


def test_a_key_value_server_is_one_runs_at_a_time(pooled: Project):
    """A run that comes while another has it has a server of its own,
    and what a killed run left in it is gone for the next.
    """
    write_store(
        pooled,
        {"long": "ask 'SET mine 1' && touch begun && sleep 30", "look": "ask DBSIZE | grep -x :0"},
    )
    started = pool(pooled, "start")
    engine = pooled.started("run", "long", "--backend", "embedded")
    pooled.wait_running(engine, "sleep 30")
    beside = pooled.call("run", "look").result
    assert (beside["outcome"], beside["services"][0]["held_by"]) == ("passed", "")
    engine.send_signal(signal.SIGKILL)
    engine.wait(10)
    until = time.monotonic() + 20
    while pool(pooled, "status")["leases"] != 0:
        assert time.monotonic() < until, "the server was not taken back"
        time.sleep(0.05)  # polling for what other processes do
    after = pooled.call("run", "look").result
    assert (after["outcome"], after["services"][0]["held_by"]) == ("passed", started["id"])


def test_stop_removes_everything(project: Project):
    """Processes, namespaces, groups, mounts and folders of the pool are gone when `pool stop`
    returns; then runs have their own server.
    """
    write(project, {"look": sql("SELECT 1")})
    pool(project, "start")
    assert len(shared_servers(project)) == 1
    assert pool(project, "stop")["services"]
    assert shared_servers(project) == []
    assert leftovers(project) == {}
    result = project.call("run", "look").result
    assert (result["outcome"], result["services"][0]["held_by"]) == ("passed", "")
    assert pool(project, "status")["id"] == ""


def test_fresh_and_another_configuration_have_a_server_of_their_own(pooled: Project):
    """--fresh ignores the pool; a run whose init files have changed since is told that it has its
    own.
    """
    write(pooled, {"look": sql("SELECT 1")})
    pool(pooled, "start")
    assert pooled.call("run", "look", "--fresh").result["services"][0]["held_by"] == ""
    write(pooled, {"look": sql("SELECT n FROM newer")}, SCHEMA + "CREATE TABLE newer (n int);\n")
    result = pooled.call("run", "look").result
    assert (result["outcome"], result["services"][0]["held_by"]) == ("passed", "")
    assert [note for note in result["notes"] if "CR-SESSION-005" in note]


def test_a_run_that_is_killed_gives_its_database_back(pooled: Project):
    """After kill -9 of an engine its lease ends and its database is dropped:
    the next run's and the pool's own are all there are.
    """
    databases = sql(
        "SELECT string_agg(datname, ' ' ORDER BY oid) FROM pg_database WHERE datname LIKE 'run%'"
    )
    write(
        pooled,
        {
            "long": f"touch begun; {sql('SELECT pg_sleep(30)')}",
            "list": f"{databases} | grep -Ex 'run_2_[0-9a-f]+'",
        },
    )
    pool(pooled, "start")
    engine = pooled.started("run", "long", "--backend", "embedded")
    until = time.monotonic() + 20
    while pool(pooled, "status")["leases"] != 1:
        assert time.monotonic() < until, "the run did not take its lease"
        time.sleep(0.05)  # polling for what other processes do
    engine.send_signal(signal.SIGKILL)
    engine.wait(10)
    while pool(pooled, "status")["leases"] != 0:
        assert time.monotonic() < until, "the lease did not end"
        time.sleep(0.05)  # polling for what other processes do
    result = pooled.call("run", "list").result
    assert result["outcome"] == "passed", result["phases"][0]["excerpt"]


def test_an_idle_pool_ends_by_itself(project: Project):
    """Nobody uses it for the time it was given: nothing of it is left."""
    write(project, {"look": sql("SELECT 1")})
    pool(project, "start", "--idle", "1s")
    assert leftovers(project) == {}


def test_a_pool_killed_with_its_keeper_is_swept(project: Project):
    """What dies together with its keeper is removed by the next run, which has its own server."""
    write(project, {"look": sql("SELECT 1")})
    holder = pool(project, "start")["pid"]
    for pid in (*children(holder), holder):
        os.kill(pid, signal.SIGKILL)
    wait_gone(holder)
    assert project.call("run", "look").result["outcome"] == "passed"
    reap()
    assert leftovers(project) == {}
