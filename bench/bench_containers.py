"""How soon do PostgreSQL and Redis answer in containers, beside their peers,
and what do commands, many containers and watching cost?

Workload: on Docker, in turn, from the same images: a project whose one phase is `true` and names
both services, run through `cleanroom.open` in this process from an empty cache (cold:
initdb runs) and from prepared data; testcontainers-python (one after the other,
without its reaper, which needs an image of its own); `docker compose up --wait` and `down -v`
(health asked every 500 ms); the engine's API alone with a template image of the prepared data,
polled every 10 ms; and the API's floor, two containers that do nothing and have no network,
created and started at once, then removed at once.
Peers prepare as the usual image of PostgreSQL does.
"Both services ready" counts from the first service's start;
"ready" from `cleanroom.open`, from the peers' own start (imports not counted),
or from the command's start; removed, from there (ours: from the phase's end) until both are gone.
On Podman, ours and the floor.
Then, on each engine and beside its API's own way: `true` in a container that runs,
`true` in a fresh one (ours: created, guarded, run, ended, its removal begun),
and twenty of those at once, until all are gone.
Watching: processor time of the engine and its wardens while a phase sleeps and two services run.
Units: milliseconds, ratios of neighbours, percent of one processor.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio

import cleanroom
from bench import container_peers
from bench.container_peers import POSTGRES, REDIS, Api, Life
from bench.doors import Sandbox, caller, inside, sandbox
from bench.figures import BenchmarkFailed, Figure, compared
from bench.machine import ROOT
from cleanroom.backends.containers.client import EngineName, connect, find_socket
from cleanroom.model.errors import CleanroomError

sys.path.append(str(ROOT / "scripts"))
import peers

IMAGE = "cleanroom/base"
READY_MILLISECONDS, TIMES_TESTCONTAINERS, TIMES_COMPOSE = 600.0, 5.0, 3.0
MANY = 20
WATCHED_SECONDS = 6.0
PROJECT = """
[project]
name = "services"
[cleanroom]
image = "cleanroom/base"
[lifecycle.ready]
command = "true"
cleanroom.containers = ["postgres", "redis"]
[lifecycle.wait]
command = "sleep %d"
cleanroom.containers = ["postgres", "redis"]
"""
NOT_HERE = "not here: `make peers` makes it"


class Sizes(NamedTuple):
    """How often each thing is done."""

    rounds: int
    colds: int
    lives: int
    commands: int
    many: int
    watched_seconds: float


class Ours(NamedTuple):
    """One run, in seconds."""

    life: Life
    services: float  # from the first service's start until both were ready


def measure(small: bool) -> list[Figure]:
    if os.geteuid() != 0:
        raise BenchmarkFailed("the container backends run as root only")
    if small:
        return anyio.run(_measure, ("docker",), Sizes(1, 1, 1, 2, 2, 1.0))
    return anyio.run(_measure, ("docker", "podman"), Sizes(5, 2, 7, 20, MANY, WATCHED_SECONDS))


async def _measure(engines: Sequence[EngineName], sizes: Sizes) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-containers-") as name:
        folder = Path(name)
        (folder / "project").mkdir()
        (folder / "project" / "make.toml").write_text(PROJECT % (sizes.watched_seconds + 3))
        figures: list[Figure] = []
        for engine in engines:
            figures += await _on(engine, folder, sizes)
    if not any(figure.values for figure in figures):
        raise BenchmarkFailed(figures[0].note)
    return figures


async def _on(engine: EngineName, folder: Path, sizes: Sizes) -> list[Figure]:
    """All figures of one engine, or one that says that it is not here."""
    try:
        find_socket(engine, os.environ)
    except CleanroomError as error:
        return [
            Figure(
                benchmark="containers",
                name=f"{engine}: both ready",
                unit="ms",
                values=(),
                note=f"not here: {error}",
            )
        ]
    async with connect(engine, os.environ) as connected:
        api = Api(connected._client)
        return [
            *(await _services(engine, api, folder, sizes)),
            *(await _commands(engine, api, folder, sizes)),
            await _watching(engine, folder, sizes),
        ]


# --- services


async def _services(engine: EngineName, api: Api, folder: Path, sizes: Sizes) -> list[Figure]:
    # the first run of a process imports, and pid 1 of containers is built
    await _run(engine, folder, fresh=True)
    cold = [await _run(engine, folder, fresh=True) for _ in range(sizes.colds)]
    ours: list[Ours] = []
    others: dict[str, list[Life]] = {
        name: [] for name in ("testcontainers", "compose", "template", "floor")
    }
    python, program = (
        (peers.testcontainers(), peers.compose()) if engine == "docker" else (None, None)
    )
    version = container_peers.compose_version(program) if program else ""
    async with AsyncExitStack() as stack:
        template = await stack.enter_async_context(api.template()) if engine == "docker" else ""
        for _ in range(sizes.rounds):
            ours.append(await _run(engine, folder, fresh=False))
            others["floor"].append(
                await api.lives(container_peers.idle(POSTGRES), container_peers.idle(REDIS))
            )
            if template:
                prepared = container_peers.serving_postgres(template, container_peers.SERVE)
                others["template"].append(
                    await api.lives(prepared, container_peers.serving_redis())
                )
            if python:
                others["testcontainers"].append(await container_peers.testcontainers(python))
            if program and version:
                others["compose"].append(await container_peers.compose(program, folder))
    figures = [
        _figure(f"{engine}: both services ready, cold", [one.services for one in cold]),
        _figure(
            f"{engine}: both services ready",
            [one.services for one in ours],
            at_most=READY_MILLISECONDS if engine == "docker" else None,
        ),
        *_life(f"{engine}: a whole run", [one.life for one in ours]),
        *_life(f"{engine}: the API's floor", others["floor"]),
        _ratio(
            f"{engine}: both services ready: times the API's floor",
            [one.services for one in ours],
            others["floor"],
        ),
    ]
    if engine == "docker":
        figures += _life("docker: the API alone, from a template image", others["template"])
        figures += [
            _ratio(
                "docker: both services ready: times the template image",
                [one.services for one in ours],
                others["template"],
            )
        ]
        figures += _beside(
            "testcontainers-python", "", ours, others["testcontainers"], TIMES_TESTCONTAINERS
        )
        figures += _beside("compose up --wait", version, ours, others["compose"], TIMES_COMPOSE)
    return figures


def _beside(
    peer: str, version: str, ours: list[Ours], theirs: list[Life], at_least: float
) -> list[Figure]:
    """A peer's figures, and how many times sooner a whole run of ours has both ready."""
    note = version if theirs else NOT_HERE
    ratios = tuple(their.ready / our.life.ready for our, their in zip(ours, theirs, strict=False))
    times = Figure(
        benchmark="containers",
        name=f"docker: {peer}: times our run until ready",
        unit="x",
        values=ratios,
        at_least=at_least,
        note="" if theirs else NOT_HERE,
    )
    return [*_life(f"docker: {peer}", theirs, note), times]


async def _run(engine: EngineName, folder: Path, *, fresh: bool) -> Ours:
    """One run of the project whose phase is `true`."""
    if fresh:
        shutil.rmtree(folder / "cache" / "services", ignore_errors=True)
    began_ns = time.time_ns()
    async with cleanroom.open(
        folder / "project", caller=caller(folder / "cache"), backend=engine
    ) as opened:
        result = await opened.pipeline("ready")
    if result.outcome != "passed":
        raise BenchmarkFailed(
            f"{engine}: the run ended as {result.outcome}: {result.error or result.notes}"
        )
    return _times(_events(folder, result.run_id), began_ns)


def _events(folder: Path, run_id: str) -> list[dict[str, Any]]:
    lines = (
        (folder / "project" / ".ggen" / "cleanroom" / "runs" / run_id / "events.jsonl")
        .read_text()
        .splitlines()
    )
    return [json.loads(line) for line in lines]


def _times(envelopes: list[dict[str, Any]], began_ns: int) -> Ours:
    def at(kind: str, subject: str) -> list[int]:
        return [
            e["time_unix_ns"]
            for e in envelopes
            if e["event"]["kind"] == kind and e["event"]["subject"]["kind"] == subject
        ]

    ready = max(at("finished", "readiness"))
    (phase_ended,), (run_ended,) = at("finished", "phase"), at("finished", "run")
    life = Life((ready - began_ns) / 1e9, (run_ended - phase_ended) / 1e9)
    return Ours(life, (ready - min(at("started", "service"))) / 1e9)


# --- commands and containers


async def _commands(engine: EngineName, api: Api, folder: Path, sizes: Sizes) -> list[Figure]:
    async with sandbox(folder, engine, IMAGE) as cage:
        await _life_of(cage)  # the first one looks at the host
        lives = [(await _api_life(api), await _life_of(cage)) for _ in range(sizes.lives)]
        many = [
            (await _api_many(api, sizes.many), await _many(cage, sizes.many))
            for _ in range(1 if sizes.many < MANY else 2)
        ]
        name = await api.create(container_peers.idle(IMAGE))
        try:
            await api.start(name)
            async with cage.stack(), cage.environment() as environment:
                await inside(environment, "true")
                commands = [
                    (await api.exec(name, "sh", "-c", "true"), await inside(environment, "true"))
                    for _ in range(sizes.commands)
                ]
        finally:
            await api.remove(name)
    beside = partial(compared, "containers", beside="the API")
    return [
        *beside(
            f"{engine}: `true` in a container that runs", f"{engine}: the API's exec", commands
        ),
        *beside(
            f"{engine}: `true` in a fresh container",
            f"{engine}: the API's create, start, wait, remove",
            lives,
        ),
        *beside(
            f"{engine}: {sizes.many} fresh ones at once",
            f"{engine}: the API's {sizes.many} at once",
            many,
        ),
    ]


async def _life_of(cage: Sandbox) -> float:
    """Seconds to open an environment, run `true` in it and leave it, as a phase waits for it."""
    async with cage.stack():
        began = time.perf_counter()
        async with cage.environment() as environment:
            await inside(environment, "true")
        seconds = time.perf_counter() - began
        await cage.settled()  # else the neighbour would be measured beside our removal
        return seconds


async def _many(cage: Sandbox, count: int) -> float:
    """Seconds for so many of them at once, until all are removed."""

    async def one() -> None:
        async with cage.environment() as environment:
            await inside(environment, "true")

    async with cage.stack():
        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
        await cage.settled()
        return time.perf_counter() - began


async def _api_life(api: Api) -> float:
    """Seconds to create, start, wait for and remove a container whose command is `true`."""
    began = time.perf_counter()
    name = await api.create(container_peers.idle(IMAGE, "true"))
    try:
        await api.start(name)
        await api.wait(name)
    finally:
        await api.remove(name)
    return time.perf_counter() - began


async def _api_many(api: Api, count: int) -> float:
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(_api_life, api)
    return time.perf_counter() - began


# --- watching


async def _watching(engine: EngineName, folder: Path, sizes: Sizes) -> Figure:
    """Percent of a processor that the engine and its helpers use while two services run and a phase
    sleeps.
    """
    shares: list[float] = []

    async def look(events: Any) -> None:
        async for envelope in events:
            if (
                envelope.event.__class__.__name__ == "Started"
                and envelope.event.subject.kind == "command"
            ):
                await anyio.sleep(1)  # what the start left to do
                before, began = _processor_seconds(), time.perf_counter()
                await anyio.sleep(sizes.watched_seconds)
                shares.append(100 * (_processor_seconds() - before) / (time.perf_counter() - began))

    async with (
        cleanroom.open(
            folder / "project", caller=caller(folder / "cache"), backend=engine
        ) as opened,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(look, opened.events())
        result = await opened.pipeline("wait")
    if result.outcome != "passed" or not shares:
        raise BenchmarkFailed(
            f"{engine}: the run ended as {result.outcome}: {result.error or result.notes}"
        )
    return Figure(
        benchmark="containers",
        name=f"{engine}: watching three containers",
        unit="%",
        values=tuple(shares),
        note="of one processor",
    )


def _processor_seconds() -> float:
    """Processor time so far of this process and all below it: keeper, wardens, relays.

    A container's processes are not below it.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], ticks[int(entry.name)] = (
                int(fields[1]),
                int(fields[11]) + int(fields[12]),
            )
    total = 0
    for pid, used in ticks.items():
        above = pid
        while above not in (os.getpid(), 0):
            above = parents.get(above, 0)
        total += used if above else 0
    return total / os.sysconf("SC_CLK_TCK")


# --- figures


def _figure(
    name: str, seconds: list[float], note: str = "", at_most: float | None = None
) -> Figure:
    return Figure(
        benchmark="containers",
        name=name,
        unit="ms",
        values=tuple(1000 * one for one in seconds),
        at_most=at_most,
        note=note,
    )


def _life(name: str, lives: list[Life], note: str = "") -> list[Figure]:
    return [
        _figure(f"{name}: ready", [one.ready for one in lives], note),
        _figure(f"{name}: removed", [one.removed for one in lives], note),
    ]


def _ratio(name: str, ours: list[float], theirs: list[Life]) -> Figure:
    return Figure(
        benchmark="containers",
        name=name,
        unit="x",
        values=tuple(our / their.ready for our, their in zip(ours, theirs, strict=True)),
    )
