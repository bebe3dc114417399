"""The example project on Docker and Podman: the same report as embedded, times aside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cleanroom import engine
from cleanroom.backends.containers.client import EngineName
from support.container_harness import ENGINES, IMAGE, require
from support.paths import ROOT

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(600)]

SHOP = ROOT / "examples/shop"
PHASES = ("init", "setup", "build", "test", "validate")
# What differs between two runs of one project, or between two kinds of machinery,
# without being about the project.
VARYING = {
    "run_id",
    "duration_seconds",
    "engine_seconds",
    "ready_seconds",
    "ready_at_seconds",
    "seconds",
    "started_unix_ns",
    "ended_unix_ns",
    "trace_id",
    "reports",
    "backend",
    "tier",
    "found",
    "capabilities",
    "ledger",
    "version",
    "server_sha256",
    "audit_head",
    "metrics",
    "resources",
    "canaries",
    "first_unix_ns",
    "last_unix_ns",
    "pid",
    "notes",
    "slo_missed",
    "slo_met",
    "started_seconds",
    "ended_seconds",
    "log",
}
EMBEDDED_CANARIES = {"one process too many"}
CONTAINED_CANARIES = {"the container's own memory limit", "the container's own pids limit"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHOP / ".venv/bin/python").exists():
        pytest.skip("examples/shop has no virtual environment; `make shop` makes it")
    folder = tmp_path_factory.mktemp("shop") / "shop"
    shutil.copytree(
        SHOP, folder, symlinks=True, ignore=shutil.ignore_patterns(".ggen", "build", "reports")
    )
    return folder


def ran(shop: Path, backend: str) -> dict[str, Any]:
    words = [
        sys.executable,
        "-m",
        "cleanroom",
        "pipeline",
        *PHASES,
        "--backend",
        backend,
        "--output",
        "json",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "CLEANROOM_RUN_ID"}
    done = subprocess.run(words, cwd=shop, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    # What the fetch step tried depends on what the store had already.
    result["notices"] = [notice for notice in result["notices"] if notice["phase"] != "fetch"]
    return result


def spans(shop: Path, result: dict[str, Any]) -> set[str]:
    """Names of the spans that the shop's own tests sent."""
    return {
        span.name
        for span in engine.read_trace(shop, result["run_id"])[1]
        if span.source.scope != "cleanroom"
    }


def still(value: Any) -> Any:
    """Without what varies."""
    if isinstance(value, dict):
        return {key: still(one) for key, one in value.items() if key not in VARYING}
    return [still(one) for one in value] if isinstance(value, list) else value


def test_the_document_names_the_canaries_that_differ():
    """Those of either side, by their names."""
    said = " ".join((SHOP.parents[1] / "docs/containers.md").read_text().split())
    assert [
        name for name in EMBEDDED_CANARIES | CONTAINED_CANARIES if f"`{name}`" not in said
    ] == []


@pytest.mark.parametrize("name", ENGINES)
def test_the_shop_passes_with_the_same_report(shop: Path, name: EngineName):
    """Phases, verdicts, services, violations, exit code and the tests' own spans are those of the
    embedded backend, and every canary passed.
    """
    require(name, IMAGE, "cleanroom/postgres", "cleanroom/redis")
    contained, embedded = ran(shop, name), ran(shop, "embedded")
    assert {canary["result"] for canary in contained["canaries"]} == {"passed"}
    named, others = (
        {canary["name"] for canary in result["canaries"]} for result in (contained, embedded)
    )
    assert (others - named, named - others) == (EMBEDDED_CANARIES, CONTAINED_CANARIES)
    assert contained["ledger"]["left"] == []
    assert still(contained) == still(embedded)
    assert spans(shop, contained) == spans(shop, embedded) != set()
