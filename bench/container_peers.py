"""PostgreSQL and Redis on Docker by other means, from the same images:
testcontainers-python, Docker Compose, and the engine's API alone.

The images have no entry point of their own, so each peer is given what the usual image of
PostgreSQL does: initdb, a start without a network to make the database, and a start that answers.
Whoever says that they are ready is asked over the protocols afterwards,
outside of the measured time.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from bench.doors import TAIL
from bench.figures import BenchmarkFailed
from bench.machine import ROOT
from cleanroom.services import pgwire, resp

POSTGRES, REDIS = "cleanroom/postgres", "cleanroom/redis"
USER, PASSWORD, DATABASE = "app", "bench", "app"
VARIABLES = {
    "POSTGRES_USER": USER,
    "POSTGRES_PASSWORD": PASSWORD,
    "POSTGRES_DB": DATABASE,
    "PGDATA": "/var/lib/postgresql/data",
}
SERVE = (
    "exec postgres -D /var/lib/postgresql/data -c listen_addresses='*' -c "
    "unix_socket_directories=/tmp"
)
ENTRY = f"""set -e
export PGDATA=/var/lib/postgresql/data
printf %s "$POSTGRES_PASSWORD" > /tmp/password
initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust \\
  --auth-host=scram-sha-256 > /dev/null
echo 'host all all all scram-sha-256' >> $PGDATA/pg_hba.conf
pg_ctl -w -o "-c listen_addresses='' -c unix_socket_directories=/tmp" start > /dev/null
psql -q -h /tmp -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \\"$POSTGRES_DB\\""
pg_ctl -m fast -w stop > /dev/null
{SERVE}
"""
POSTGRES_PORT, REDIS_PORT = "5432/tcp", "6379/tcp"
REDIS_COMMAND = "redis-server --bind * --protected-mode no"
HEALTH_INTERVAL = "500ms"
WAIT_SECONDS, POLL_SECONDS = 60.0, 0.01


class Life(NamedTuple):
    """Seconds until both were ready, and until both were gone again."""

    ready: float
    removed: float


# --- peers


async def testcontainers(python: Path) -> Life:
    """testcontainers-python in its own interpreter.

    Its imports are not counted, and its reaper is off: that needs an image which cannot be had
    here.
    """
    asked = {
        "postgres": POSTGRES,
        "redis": REDIS,
        "entry": ENTRY,
        "redis_command": REDIS_COMMAND,
        "user": USER,
        "password": PASSWORD,
        "database": DATABASE,
    }
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    } | {"TESTCONTAINERS_RYUK_DISABLED": "true"}
    with subprocess.Popen(
        [
            python,
            "-I",
            "-W",
            "ignore",
            ROOT / "bench" / "peer_testcontainers.py",
            json.dumps(asked),
        ],
        env=variables,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        first = await anyio.to_thread.run_sync(process.stdout.readline)
        if not first:
            raise BenchmarkFailed(f"testcontainers: {process.stderr.read()[-TAIL:]}")
        told = json.loads(first)
        await ready(told["ports"])
        process.stdin.write("\n")
        process.stdin.flush()
        return Life(
            told["ready"],
            json.loads(await anyio.to_thread.run_sync(process.stdout.readline))["removed"],
        )


async def compose(program: Path, folder: Path) -> Life:
    """`docker compose up --wait`, then `down -v`: the commands from start to exit."""
    file = folder / "compose.json"
    file.write_text(json.dumps(_compose_file()))
    command = [program, "--project-name", f"cleanroom-bench-{os.getpid()}", "--file", file]
    try:
        up = await _timed([*command, "up", "--wait", "--quiet-pull"])
        ports = {
            name: await _port([*command, "port", name, port])
            for name, port in (("postgres", "5432"), ("redis", "6379"))
        }
        await ready(ports)
    finally:
        down = await _timed([*command, "down", "--volumes", "--timeout", "0"])
    return Life(up, down)


def compose_version(program: Path) -> str:
    """Which Compose it is; empty where it is not the second one or later."""
    done = subprocess.run(
        [program, "version", "--short"], capture_output=True, text=True, check=False
    )
    version = done.stdout.strip().lstrip("v")
    return version if done.returncode == 0 and version[:1].isdigit() and version[0] != "1" else ""


def _compose_file() -> dict[str, Any]:
    def service(image: str, port: int, test: list[str], **further: Any) -> dict[str, Any]:
        health = {"test": ["CMD", *test], "interval": HEALTH_INTERVAL, "retries": 120}
        return {"image": image, "ports": [f"127.0.0.1::{port}"], "healthcheck": health, **further}

    entry = ENTRY.replace("$", "$$")
    postgres = service(
        POSTGRES,
        5432,
        ["pg_isready", "-q", "-h", "127.0.0.1", "-U", USER],
        user="postgres",
        environment=VARIABLES,
        command=["sh", "-c", entry],
    )
    return {
        "services": {
            "postgres": postgres,
            "redis": service(REDIS, 6379, ["redis-cli", "ping"], command=REDIS_COMMAND.split()),
        }
    }


async def _timed(argv: list[Any]) -> float:
    began = time.perf_counter()
    done = await anyio.run_process([str(word) for word in argv], check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise BenchmarkFailed(
            f"{argv[0]}: exit status {done.returncode}\n"
            f"{done.stderr[-TAIL:].decode(errors='replace')}"
        )
    return seconds


async def _port(argv: list[Any]) -> int:
    done = await anyio.run_process([str(word) for word in argv])
    return int(done.stdout.decode().strip().rpartition(":")[2])


# --- the engine's API alone


class Api:
    """An engine's API, asked for the least that could do."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._number = 0

    async def create(self, parameters: Mapping[str, Any]) -> str:
        """A container's name."""
        self._number += 1
        name = f"cleanroom-bench-{os.getpid()}-{self._number}"
        await self._client._query_json(
            "containers/create", method="POST", data=dict(parameters), params={"name": name}
        )
        return name

    async def start(self, name: str) -> None:
        await self._client.containers.container(name).start()

    async def remove(self, name: str) -> None:
        await self._client.containers.container(name).delete(force=True, v=True)

    async def wait(self, name: str) -> None:
        await self._client.containers.container(name).wait()

    async def exec(self, name: str, *argv: str) -> float:
        """Seconds of a command in a container, until its end is known."""
        began = time.perf_counter()
        command = await self._client.containers.container(name).exec(list(argv))
        async with command.start(detach=False) as stream:
            while await stream.read_out() is not None:
                pass
        while (await command.inspect())["Running"]:
            await anyio.sleep(0.001)
        return time.perf_counter() - began

    async def lives(self, *all_parameters: Mapping[str, Any]) -> Life:
        """Containers created and started at once, until they are started and those that publish a
        port answer on it; then removed at once.
        """
        names: list[str] = []

        async def begin(parameters: Mapping[str, Any]) -> None:
            name = await self.create(parameters)
            names.append(name)
            await self.start(name)
            for port in parameters.get("ExposedPorts", ()):
                await ready(
                    {"postgres" if port == POSTGRES_PORT else "redis": await self.port(name, port)}
                )

        began = time.perf_counter()
        try:
            async with anyio.create_task_group() as tasks:
                for parameters in all_parameters:
                    tasks.start_soon(begin, parameters)
            started = time.perf_counter()
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    for name in names:
                        tasks.start_soon(self.remove, name)
        return Life(started - began, time.perf_counter() - started)

    @asynccontextmanager
    async def template(self) -> AsyncIterator[str]:
        """An image with PostgreSQL's prepared data in it, as whoever has only the API would make
        it; removed in the end.
        """
        name = await self.create(serving_postgres(POSTGRES, ENTRY))
        image = ""
        try:
            await self.start(name)
            await ready({"postgres": await self.port(name, POSTGRES_PORT)})
            container = self._client.containers.container(name)
            await container.stop(timeout=10)
            image = (
                await container.commit(
                    repository="cleanroom-bench",
                    tag=str(os.getpid()),
                    config={"Labels": {"cleanroom.bench": "template"}},
                )
            )["Id"]
            yield image
        finally:
            with anyio.CancelScope(shield=True):
                await self.remove(name)
                if image:
                    await self._client.images.delete(image, force=True)

    async def port(self, name: str, inside: str) -> int:
        """Where a published port is reached on the loopback."""
        shown = await self._client.containers.container(name).show()
        return int(shown["NetworkSettings"]["Ports"][inside][0]["HostPort"])


def idle(image: str, *command: str) -> dict[str, Any]:
    """The least container: no network, and a process that waits, or `command`."""
    return {
        "Image": image,
        "Cmd": list(command or ("sleep", "600")),
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none"},
    }


def serving_postgres(image: str, script: str) -> dict[str, Any]:
    """PostgreSQL with its port published on the loopback."""
    return _published(image, ["sh", "-c", script], POSTGRES_PORT) | {
        "User": "postgres",
        "Env": [f"{name}={value}" for name, value in VARIABLES.items()],
    }


def serving_redis() -> dict[str, Any]:
    """Redis with its port published on the loopback."""
    return _published(REDIS, REDIS_COMMAND.split(), REDIS_PORT)


def _published(image: str, command: list[str], port: str) -> dict[str, Any]:
    bindings = {port: [{"HostIp": "127.0.0.1"}]}
    return {
        "Image": image,
        "Cmd": command,
        "ExposedPorts": {port: {}},
        "HostConfig": {"PortBindings": bindings},
    }


# --- asking


async def ready(ports: Mapping[str, int]) -> None:
    """Wait until whoever is behind these ports of the loopback answers in its own protocol.

    Raises:
        BenchmarkFailed: it does not.
    """
    with anyio.move_on_after(WAIT_SECONDS):
        for name, port in ports.items():
            while not await _answers(name, port):
                await anyio.sleep(POLL_SECONDS)
        return
    raise BenchmarkFailed(f"no answer on {dict(ports)} within {WAIT_SECONDS:g} s")


async def _answers(name: str, port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            if name == "redis":
                return await resp.ping(stream, "")
            return await pgwire.run_statements(
                stream, user=USER, database=DATABASE, password=PASSWORD, statements=("SELECT 1",)
            )
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
