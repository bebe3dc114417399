"""No benchmark rots: each runs at its smallest size. Only shape is asserted, never time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.container_harness import require
from support.paths import ROOT

SHOP_IS_SET_UP = (ROOT / "examples" / "shop" / ".venv").is_dir()
EXPECTED = {
    "lifecycle": {
        "cold: engine_seconds",
        "warm: engine_seconds",
        "cold: total",
        "warm: total",
        "warm: peak resident memory",
    },
    "services": {"cold: both ready", "cached: both ready", "cached: postgres", "cached: redis"},
    "containers": {
        "docker: both services ready",
        "docker: the API's floor: ready",
        "docker: testcontainers-python: ready",
        "docker: compose up --wait: times our run until ready",
        "docker: `true` in a container that runs: times the API",
        "docker: 2 fresh ones at once",
        "docker: watching three containers",
    },
    "sandbox": {
        "an environment's life around `true`: more than bare",
        "`true` in an open one: times bare",
        "of which open",
    },
    "work": {
        "compiling, sandboxed: times bare",
        "importing, sandboxed: times bare",
        "testing, sandboxed: times bare",
        "unpacking 200 files, sandboxed: times bare",
    },
    "bus": {"to five subscribers, audit on disk"},
    "memory": {
        "10,000 events: grown meanwhile",
        "10 pipelines, memory backend: resident at the end",
        "2 pipelines, embedded backend: resident at the end",
    },
    "command": {"`--help`: more than bare", "an empty pipeline"},
    "tracing": {
        "a span, taken and written",
        "loading the exporter, in its thread",
        "delivering all spans at once",
    },
    "fetch": {
        "warm: npm, found and checked",
        "warm: cargo, found and checked",
        "warm: uv, found and checked",
        "a run with the lock: more than without",
    },
}
NEEDS_THE_KERNEL = {
    "lifecycle",
    "services",
    "containers",
    "sandbox",
    "work",
    "memory",
    "command",
    "fetch",
}

SLOW = {"lifecycle", "containers"}
PEERS = ("testcontainers", "compose")  # which the machine need not have


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_benchmark_is_looked_at():
    """The table above names every benchmark that there is."""
    from bench.__main__ import NAMES

    assert set(EXPECTED) == set(NAMES)


@pytest.mark.sandbox
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in EXPECTED],
)
def test_it_measures_at_its_smallest_size(name: str):
    """It does its work, and its figures have the fields and the names that readers of the JSON rely
    on.
    """
    if name in NEEDS_THE_KERNEL and sys.platform != "linux":
        pytest.skip("the embedded backend needs Linux")
    if name == "containers":
        require("docker", "cleanroom/base", "cleanroom/postgres", "cleanroom/redis")
    if name in ("lifecycle", "work") and not SHOP_IS_SET_UP:
        pytest.skip("examples/shop has no .venv; `make shop` makes it")

    done = bench(name, "--small", "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["not_measured"] == {}
    assert {figure["name"] for figure in said["figures"]} >= EXPECTED[name]
    for figure in said["figures"]:
        assert figure["benchmark"] == name
        assert figure["n"] == len(figure["values"])
        if not figure["values"]:
            assert any(peer in figure["name"] for peer in PEERS), figure
            assert "not here" in figure["note"]
            continue
        assert figure["lowest"] <= figure["median"] <= figure["highest"]
    assert {"commit", "kernel", "cores", "Python", "date", "processor"} <= set(said["machine"])


def test_an_unknown_name_is_a_usage_error():
    """A misspelt benchmark ends with 2 and the names that exist, before anything is measured."""
    done = bench("lifecylce")

    assert done.returncode == 2
    assert "lifecycle, services" in done.stderr


def test_what_was_measured_small_never_becomes_the_document(tmp_path: Path):
    """docs/benchmarks.md is written from full sizes only,
    whether they were just measured or saved.
    """
    document = ROOT / "docs" / "benchmarks.md"
    before = document.read_bytes()
    saved = tmp_path / "small.json"
    saved.write_text(json.dumps({"machine": {}, "small": True, "figures": []}))

    assert bench("--write", "--small").returncode == 2
    assert bench("--from", str(saved)).returncode == 1
    assert document.read_bytes() == before
