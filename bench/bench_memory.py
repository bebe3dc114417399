"""Does memory stay flat, over a million events and over a thousand pipelines in one process?

Workload, each in a process of its own: the bus with the benchmark's mix of events,
five subscribers and the audit log on disk; and a project whose one phase is `true`,
run again and again through `cleanroom.open`, a thousand times on the memory backend and thirty on
the embedded one.
Half as much is done before that, since a process keeps what its fullest moments took:
inboxes fill by chance, and memory rises for some 400,000 events.
Compared are the medians of resident memory while the first and the last tenth of the rest are done.
Unit: MB.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.doors import caller
from bench.figures import BenchmarkFailed, Figure
from bench.machine import ROOT

RESIDENT_MEGABYTES, GROWTH_MEGABYTES = 80.0, 5.0
EVENTS, PIPELINES, EMBEDDED = 1_000_000, 1_000, 30
PROJECT = '[project]\nname = "again"\n\n[lifecycle.again]\ncommand = "true"\n'


def measure(small: bool) -> list[Figure]:
    part = 100 if small else 1
    return [
        *_figures(f"{EVENTS // part:,} events", "events", EVENTS // part),
        *_figures(f"{PIPELINES // part:,} pipelines, memory backend", "memory", PIPELINES // part),
        *_figures(
            f"{2 if small else EMBEDDED} pipelines, embedded backend",
            "embedded",
            2 if small else EMBEDDED,
        ),
    ]


def _figures(title: str, what: str, count: int) -> list[Figure]:
    argv = [sys.executable, "-m", "bench.bench_memory", what, str(count)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(
            f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
    early, late = json.loads(done.stdout)
    return [
        Figure(
            benchmark="memory",
            name=f"{title}: resident at the end",
            unit="MB",
            values=(late,),
            at_most=RESIDENT_MEGABYTES,
        ),
        Figure(
            benchmark="memory",
            name=f"{title}: grown meanwhile",
            unit="MB",
            values=(late - early,),
            at_most=GROWTH_MEGABYTES,
        ),
    ]


def resident() -> float:
    """Megabytes of this process in memory now."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


async def events(count: int, folder: Path, look: Callable[[], None]) -> None:
    """Publish `count` events, made as they are needed, to the bus benchmark's subscribers."""
    from bench.bench_bus import BURST, measure, workload

    mix = workload(BURST)

    def again() -> list:  # type: ignore[type-arg]
        look()
        return mix

    await measure((again() for _ in range(count // BURST)), folder)


async def pipelines(backend: str, count: int, folder: Path, look: Callable[[], None]) -> None:
    """Run the project `count` times in this process."""
    import cleanroom

    (folder / "make.toml").write_text(PROJECT)
    async with cleanroom.open(
        folder, caller=caller(folder.parent / "cache"), backend=backend
    ) as engine:
        for _ in range(count):
            await engine.pipeline("again")
            look()


def main(what: str, count: int) -> None:
    seen: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        folder = Path(name, "project")
        folder.mkdir()
        work = events(count + count // 2, folder, lambda: seen.append(resident()))
        if what != "events":
            work.close()
            work = pipelines(what, count + count // 2, folder, lambda: seen.append(resident()))
        asyncio.run(work)
    measured = seen[len(seen) // 3 :]
    tenth = max(1, len(measured) // 10)
    print(json.dumps([statistics.median(measured[:tenth]), statistics.median(measured[-tenth:])]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
