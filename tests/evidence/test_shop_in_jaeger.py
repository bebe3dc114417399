"""The example project's trace in a real Jaeger: from the pipeline through phase and test to the SQL
statement.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jaeger
from cleanroom import engine
from support.documented_spans import unnamed
from support.paths import ROOT
from support.required_tools import real_tool

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]
SHOP = ROOT / "examples/shop"


def way_up(spans: dict[str, dict[str, Any]], span: dict[str, Any]) -> list[str]:
    """Names from this span to the root."""
    names = [span["operationName"]]
    while span["references"]:
        span = spans[span["references"][0]["spanID"]]
        names.append(span["operationName"])
    return names


def test_one_trace_leads_from_the_pipeline_to_the_sql_statement(tmp_path: Path):
    """Each statement of a test hangs below its test, that below the phase, that below the run;
    Jaeger has as many spans as the file, of two services,
    and the page of spans names all of the engine's own.
    """
    if not (SHOP / ".venv/bin/python").exists():
        pytest.skip("examples/shop has no virtual environment; `make shop` makes it")
    real_tool("jaeger")
    shop = tmp_path / "shop"
    shutil.copytree(
        SHOP, shop, symlinks=True, ignore=shutil.ignore_patterns(".ggen", "build", "reports")
    )
    with jaeger.running() as viewer:
        caller = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CLEANROOM_RUN_ID", "TRACEPARENT")
        }
        caller |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.otlp_http,
            "CLEANROOM_CACHE": str(tmp_path / "cache"),
        }
        words = [
            sys.executable,
            "-m",
            "cleanroom",
            "pipeline",
            "init",
            "setup",
            "test",
            "--backend",
            "embedded",
        ]
        done = subprocess.run(words, cwd=shop, env=caller, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        # what a busy machine's run did not deliver at its end
        engine.push_trace(shop, caller=caller)
        _, recorded = engine.read_trace(shop)
        spans = {
            span["spanID"]: span
            for span in viewer.wait_trace(recorded[0].trace_id, len(recorded))["spans"]
        }
        services = set(viewer.get("/api/services")["data"]) - {"jaeger"}
    ways = [way_up(spans, span) for span in spans.values()]
    statements = [
        way
        for way in ways
        if len(way) > 3 and way[-2:] == ["phase test", "RUN shop"] and "::" in way[-3]
    ]

    assert set(spans) == {span.span_id for span in recorded}
    assert any(way[0].split()[0] in ("INSERT", "SELECT", "UPDATE") for way in statements), ways
    assert services == {"cleanroom-engine", "shop"}
    assert unnamed(recorded) == set()
