"""Pools and sessions whose servers run in containers: the same as embedded, on both engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cleanroom.backends.containers.client import EngineName
from support import phase_programs
from support.command_harness import Answer, Project
from support.container_harness import ENGINES, IMAGE, labelled, require
from support.ggen_harness import SCHEMA, Ggen

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(600)]
COUNT = 'psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -Atc'


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    require(request.param, IMAGE, "cleanroom/postgres", "cleanroom/redis")
    name: EngineName = request.param
    return name


@pytest.fixture
def pooled(engine: EngineName, project: Project) -> Iterator[Project]:
    """A project whose pool is ended with the test, and has no container then."""
    yield project
    was = pool(project, engine, "status")
    pool(project, engine, "stop")
    assert not was["id"] or labelled(engine, was["id"]) == []


def write(project: Project, engine: EngineName, phases: dict[str, tuple[str, str]]) -> None:
    """Phases with their service and command, in an image that has what the command needs."""
    (project.root / "schema.sql").write_text(SCHEMA)
    (project.root / "ask.py").write_text(phase_programs.source("redis_commands"))
    lines = [
        "[project]",
        'name = "pooled"',
        "[cleanroom]",
        f'backend = "{engine}"',
        "[cleanroom.services.postgres]",
        'init = ["schema.sql"]',
    ]
    for name, (service, command) in phases.items():
        image = "cleanroom/postgres" if service == "postgres" else IMAGE
        lines += [
            f"[lifecycle.{name}]",
            f"command = {json.dumps(command.replace('ask ', 'python3 ask.py '))}",
        ]
        lines += [f'cleanroom.containers = ["{service}"]', f'cleanroom.image = "{image}"', ""]
    (project.root / "make.toml").write_text("\n".join(lines))


def pool(project: Project, engine: EngineName, *words: str) -> dict[str, Any]:
    argv = project.argv("pool", *words, "--backend", engine, "--output", "json")
    done = subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ran(project: Project, *words: str) -> Answer:
    argv = project.argv("run", *words, "--output", "json")
    done = subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=120
    )
    return Answer(done.returncode, json.loads(done.stdout), done.stderr)


def test_runs_have_states_of_their_own_in_a_pool(engine: EngineName, pooled: Project):
    """A database as the init files left it and an empty store for each run,
    in the same server or one that was ready; --fresh and the other backends know nothing of it.
    """
    write(
        pooled,
        engine,
        {
            "count": (
                "postgres",
                f"{COUNT} 'INSERT INTO item VALUES (2); SELECT count(*) FROM item' | grep -x 2",
            ),
            "store": ("redis", "ask DBSIZE 'SET mine 1' | grep -x :0"),
        },
    )
    started = pool(pooled, engine, "start")
    assert [(service["name"], service["ready"]) for service in started["services"]] == [
        ("postgres", True),
        ("redis", True),
    ]
    for phase in ("count", "store", "count", "store"):
        answer = ran(pooled, phase)
        assert answer.code == 0, answer.err
        assert [service["held_by"] for service in answer.result["services"]] == [started["id"]]
        assert (answer.result["ledger"]["left"], labelled(engine, answer.result["run_id"])) == (
            [],
            [],
        )
    fresh = ran(pooled, "store", "--fresh")
    assert (fresh.code, fresh.result["services"][0]["held_by"]) == (0, "")
    status = pool(pooled, engine, "status")
    assert (status["id"], status["leases"], len(labelled(engine, started["id"]))) == (
        started["id"],
        0,
        2,
    )
    other: EngineName = "podman" if engine == "docker" else "docker"
    assert pool(pooled, other, "status")["id"] == ""


def test_a_killed_pools_containers_are_removed(engine: EngineName, pooled: Project):
    """By its keeper; the next run has its own server."""
    write(pooled, engine, {"store": ("redis", "ask DBSIZE | grep -x :0")})
    started = pool(pooled, engine, "start")
    assert len(labelled(engine, started["id"])) == 1
    os.kill(started["pid"], signal.SIGKILL)
    until = time.monotonic() + 30
    while labelled(engine, started["id"]):
        assert time.monotonic() < until, "its container is still there"
        time.sleep(0.05)  # polling for what other processes do
    answer = ran(pooled, "store")
    assert (answer.code, answer.result["services"][0]["held_by"]) == (0, "")


def test_phases_of_one_ggen_share_their_containers(engine: EngineName, project: Project):
    """What one phase stored the next one finds, in the same server;
    everything goes when ggen ends.
    """
    write(
        project,
        engine,
        {
            "init": ("redis", "ask 'SET mine 1' | grep -x +OK"),
            "test": ("redis", "ask 'GET mine' | grep -x 1"),
        },
    )
    with Ggen(project, engine) as ggen:
        first, second = ggen.run("init"), ggen.run("test")
        assert (first["exit_code"], second["exit_code"]) == (0, 0), second
        (holder,) = {
            service["held_by"] for result in (first, second) for service in result["services"]
        }
        assert holder.startswith("session-")
        assert len(labelled(engine, holder)) == 1
    until = time.monotonic() + 30
    while labelled(engine, holder) or project.left():
        assert time.monotonic() < until, (labelled(engine, holder), project.left())
        time.sleep(0.05)  # polling for what other processes do
