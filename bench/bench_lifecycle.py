"""How long does a project's whole lifecycle take, and how much of it is the engine?

Workload: `cleanroom-engine pipeline init setup build test validate` on a copy of examples/shop,
with a real PostgreSQL and a real Valkey, as a command from start to exit.
Cold: an empty CLEANROOM_CACHE and no .ggen, so the database is initialised anew (the machine's page
cache stays warm).
Warm: the runs after it.
`engine_seconds` is the result's own: wall time of the run in which no phase's command ran.
The command's share adds what lies around the run, the interpreter's start and the reports.
Stages are read from the run's events.
Resident memory is the peak of the process that holds the engine,
for one more warm run through `cleanroom.open`.
Units: seconds, milliseconds, MB.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.doors import caller, pipeline, timed
from bench.figures import BenchmarkFailed, Figure
from bench.machine import ROOT

SHOP = ROOT / "examples" / "shop"
PHASES = ("init", "setup", "build", "test", "validate")
MEMORY_MEGABYTES = 80.0
MEASURE_MEMORY = """
import re, sys, anyio, cleanroom
async def main():
    async with cleanroom.open() as engine:
        assert (await engine.pipeline(*sys.argv[1:])).outcome == "passed"
anyio.run(main)
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""
TOTAL_SECONDS, COLD_ENGINE_SECONDS, WARM_ENGINE_SECONDS = 20.0, 1.0, 0.3


def measure(small: bool) -> list[Figure]:
    if not (SHOP / ".venv").is_dir():
        raise BenchmarkFailed("examples/shop has no .venv; `make shop` makes it")
    colds, warms = (1, 1) if small else (2, 3)
    with tempfile.TemporaryDirectory(prefix="bench-lifecycle-") as folder:
        shop, cache = Path(folder, "shop"), Path(folder, "cache")
        shutil.copytree(SHOP, shop, symlinks=True, ignore=_made_by_runs)
        cold = [_run(shop, cache, fresh=True) for _ in range(colds)]
        warm = [_run(shop, cache, fresh=False) for _ in range(warms)]
        _, kibibytes = timed(
            [sys.executable, "-P", "-c", MEASURE_MEMORY, *PHASES], shop, caller(cache)
        )
    memory = Figure(
        benchmark="lifecycle",
        name="warm: peak resident memory",
        unit="MB",
        values=(int(kibibytes) * 1024 / 1e6,),
        at_most=MEMORY_MEGABYTES,
    )
    return [
        *_figures("cold", cold, COLD_ENGINE_SECONDS),
        *_figures("warm", warm, WARM_ENGINE_SECONDS),
        memory,
    ]


def _made_by_runs(folder: str, names: list[str]) -> list[str]:
    """What earlier runs left at the shop's top.

    Installed packages keep their bytecode, as a user's do.
    """
    return [
        name for name in names if Path(folder) == SHOP and name in (".ggen", "build", "reports")
    ]


def _run(shop: Path, cache: Path, *, fresh: bool) -> dict[str, float]:
    """Milliseconds of every stage of one run, in the order of the run;
    total and shares in seconds.
    """
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(shop / ".ggen", ignore_errors=True)
    began_ns = time.time_ns()
    seconds, result = pipeline(shop, PHASES, cache)
    ended_ns = time.time_ns()
    lines = (
        (shop / ".ggen" / "cleanroom" / "runs" / result["run_id"] / "events.jsonl")
        .read_text()
        .splitlines()
    )
    stages = _stages([json.loads(line) for line in lines], began_ns, ended_ns)
    commands = result["duration_seconds"] - result["engine_seconds"]
    return {
        "total": seconds,
        "engine_seconds": result["engine_seconds"],
        "the command's share": seconds - commands,
    } | stages


def _stages(envelopes: list[dict[str, Any]], began_ns: int, ended_ns: int) -> dict[str, float]:
    """Where the wall time went.

    Services overlap with the first phase; everything else follows one another.
    """
    run_began, run_ended = (_one(envelopes, kind, "run") for kind in ("started", "finished"))
    probed = next(e for e in envelopes if e["event"]["kind"] == "capability")
    services = [*_all(envelopes, "started", "service"), *_all(envelopes, "finished", "readiness")]
    phases = list(_all(envelopes, "finished", "phase"))
    stages = {
        "before the run: interpreter, imports, plan": run_began["time_unix_ns"] - began_ns,
        "backend and probe": probed["monotonic_ns"] - run_began["monotonic_ns"],
        "services until ready (beside init)": services[-1]["monotonic_ns"]
        - services[0]["monotonic_ns"],
    }
    for phase in phases:
        stages[f"phase {phase['event']['subject']['name']}"] = (
            phase["event"]["duration_seconds"] * 1e9
        )
    stages["unwinding: services, folders, ledger"] = (
        run_ended["monotonic_ns"] - phases[-1]["monotonic_ns"]
    )
    stages["after the run: reports, exit"] = ended_ns - run_ended["time_unix_ns"]
    return {name: nanoseconds / 1e6 for name, nanoseconds in stages.items()}


def _all(envelopes: list[dict[str, Any]], kind: str, subject: str) -> Iterator[dict[str, Any]]:
    return (
        e
        for e in envelopes
        if e["event"]["kind"] == kind and e["event"]["subject"]["kind"] == subject
    )


def _one(envelopes: list[dict[str, Any]], kind: str, subject: str) -> dict[str, Any]:
    return next(_all(envelopes, kind, subject))


def _figures(state: str, runs: list[dict[str, float]], engine_at_most: float) -> list[Figure]:
    targets = {"total": TOTAL_SECONDS, "engine_seconds": engine_at_most}
    return [
        Figure(
            benchmark="lifecycle",
            name=f"{state}: {name}",
            unit="s" if name in (*targets, "the command's share") else "ms",
            values=tuple(run[name] for run in runs),
            at_most=targets.get(name),
        )
        for name in runs[0]
    ]
