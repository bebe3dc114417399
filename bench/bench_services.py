"""How soon do PostgreSQL and Valkey answer?

Workload: a project whose one phase is `true` and names both services,
run through `cleanroom.open` in this process (its imports are done).
The time is that from the first service's start until both have answered in their own protocol
(`SELECT 1`, `PING`).
Cold: an empty cache, so initdb runs.
Cached: a copy of the prepared data folder.
Unit: milliseconds.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import anyio

import cleanroom
from bench.doors import caller
from bench.figures import BenchmarkFailed, Figure
from cleanroom.evidence.reports.result import RunResult

CACHED_MILLISECONDS = 150.0
PROJECT = """
[project]
name = "services"

[lifecycle.ready]
command = "true"
cleanroom.containers = ["postgres", "redis"]
"""


def measure(small: bool) -> list[Figure]:
    return anyio.run(_measure, *((1, 1) if small else (2, 5)))


async def _measure(colds: int, cached: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-services-") as name:
        folder = Path(name)
        (folder / "project").mkdir()
        (folder / "project" / "make.toml").write_text(PROJECT)
        await _run(folder, fresh=True)  # the first run of a process imports
        cold = [await _run(folder, fresh=True) for _ in range(colds)]
        warm = [await _run(folder, fresh=False) for _ in range(cached)]
    return [*_figures("cold", cold, None), *_figures("cached", warm, CACHED_MILLISECONDS)]


async def _run(folder: Path, *, fresh: bool) -> RunResult:
    cache = folder / "cache"
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    async with cleanroom.open(folder / "project", caller=caller(cache)) as engine:
        result = await engine.pipeline("ready")
    if result.outcome != "passed":
        raise BenchmarkFailed(
            f"services: the run ended as {result.outcome}: {result.error or result.notes}"
        )
    return result


def _figures(state: str, results: list[RunResult], at_most: float | None) -> list[Figure]:
    both = tuple(_both_ready(result) for result in results)
    figures = [
        Figure(
            benchmark="services",
            name=f"{state}: both ready",
            unit="ms",
            values=both,
            at_most=at_most,
        )
    ]
    for name in sorted(service.name for service in results[0].services):
        alone = tuple(
            1000 * (s.ready_seconds or 0)
            for result in results
            for s in result.services
            if s.name == name
        )
        figures.append(
            Figure(benchmark="services", name=f"{state}: {name}", unit="ms", values=alone)
        )
    return figures


def _both_ready(result: RunResult) -> float:
    starts = [service.started_seconds for service in result.services]
    ready = [
        service.started_seconds + service.ready_seconds
        for service in result.services
        if service.ready_seconds is not None
    ]
    if len(ready) != 2:
        raise BenchmarkFailed(
            "services: expected PostgreSQL and Valkey to be ready, found "
            f"{[s.name for s in result.services]}"
        )
    return 1000 * (max(ready) - min(starts))
