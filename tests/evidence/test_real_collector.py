"""Runs through a real OpenTelemetry Collector with `otel/collector.yaml`:
spans to a real Jaeger, metrics for a scrape.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

import jaeger
from cleanroom.evidence.tracing import metrics, spans
from cleanroom.evidence.tracing.delivery import Delivery
from cleanroom.evidence.tracing.settings import read_settings
from support.event_log_builder import TRACE, shop
from support.paths import ROOT
from support.required_tools import real_tool

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)
CONFIGURATION = ROOT / "otel" / "collector.yaml"


@contextmanager
def collecting(viewer: jaeger.Jaeger) -> Iterator[tuple[str, str]]:
    """Where it takes OTLP over HTTP, and where it is scraped."""
    names = ("OTLP_GRPC_PORT", "OTLP_HTTP_PORT", "METRICS_PORT")
    ports = dict(zip(names, map(str, jaeger.free_ports(len(names))), strict=True))
    environment = {
        **os.environ,
        **ports,
        "JAEGER_ENDPOINT": viewer.otlp_grpc.removeprefix("http://"),
    }
    words = [real_tool("otelcol"), "--config", CONFIGURATION]
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    scraped = f"http://127.0.0.1:{ports['METRICS_PORT']}/metrics"
    try:
        scrape(scraped, "")
        yield f"http://127.0.0.1:{ports['OTLP_HTTP_PORT']}", scraped
    finally:
        process.terminate()
        process.wait()


def scrape(address: str, awaited: str) -> str:
    """What is scraped, once it holds `awaited`."""
    text = ""
    for _ in range(300):
        try:
            text = urllib.request.urlopen(address, timeout=5).read().decode()
        except OSError:
            text = ""
        else:
            if awaited in text:
                return text
        time.sleep(0.05)  # polling another process
    raise AssertionError(f"no {awaited!r} in {text or 'nothing'}")


def deliver(endpoint: str, hours: int = 0) -> None:
    """A run, as it would have been so many hours later."""
    delivery = Delivery(read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).destinations)
    made = metrics.Metrics()
    for envelope in shop():
        made.add(
            msgspec.structs.replace(
                envelope, time_unix_ns=envelope.time_unix_ns + hours * 3600 * 10**9
            )
        )
    delivery.put("traces", spans(shop()))
    delivery.put(
        "metrics", [(metrics.shared(spans(shop())[0].source), point) for point in made.points()]
    )
    assert delivery.finish(30).complete


def test_spans_reach_jaeger_and_runs_add_up():
    """Two runs that failed are two errors and two durations of one project,
    whatever run they were; every metric has a name there.
    """
    real_tool("otelcol")
    real_tool("jaeger")
    with jaeger.running() as viewer, collecting(viewer) as (endpoint, scraped):
        deliver(endpoint)
        deliver(endpoint, hours=1)
        text = scrape(scraped, "} 2\n")
        arrived = viewer.wait_trace(TRACE, len(spans(shop())))["spans"]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    named = {name.replace(".", "_") for name in metrics.TABLE}

    assert sorted(span["spanID"] for span in arrived) == sorted(
        span.span_id for span in spans(shop())
    )
    assert [
        line.rpartition(" ")[2]
        for line in lines
        if line.startswith("cicd_pipeline_run_errors_total{")
    ] == ["2"]
    assert [
        line.rpartition(" ")[2]
        for line in lines
        if line.startswith("cicd_pipeline_run_duration_seconds_count{")
    ] == ["2"]
    assert all(any(line.startswith(name) for line in lines) for name in named), lines
    assert "run_id" not in text
