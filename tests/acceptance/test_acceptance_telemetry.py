"""`cleanroom.telemetry = true` at every level and in the lowest tier:
spans leave the environment, and nothing else does; through the real command.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from cleanroom import engine
from support.command_harness import Project
from support.otlp_collector import Collector, collecting, spans_of
from support.paths import TESTS

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")

# Where namespaces are refused, as in an ordinary container.
LOWEST = (
    f"import sys; sys.path.insert(0, {str(TESTS)!r}); "
    "from support import older_kernel; from cleanroom.sandbox.seccomp import bpf; "
    "bpf.install(older_kernel.program(['namespaces']), listener=False)"
)
PLACES = [
    *(
        pytest.param(level, "", id=level, marks=pytest.mark.sandbox)
        for level in ("Low", "Medium", "High")
    ),
    pytest.param("Medium", LOWEST, id="E3", marks=pytest.mark.lower),
]
PROGRAM = """
import json, os, sys, urllib.error, urllib.request
def send(where, data, kind="application/json"):
    try:
        request = urllib.request.Request(where, data, {"content-type": kind})
        print(where, urllib.request.urlopen(request, timeout=5).status)
    except urllib.error.HTTPError as error:
        print(where, error.code)
    except OSError as error:
        print(where, error)
told = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
span = {"traceId": "c" * 32, "spanId": "d" * 16, "name": "mine"}
span |= {"startTimeUnixNano": "1", "endTimeUnixNano": "2"}
export = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
if len(sys.argv) > 1:
    send(sys.argv[1] + "/v1/traces", b"stolen directly")
else:
    send(told + "/v1/traces", export)
    send(told + "/v1/logs", b"stolen")
    send(told + "/v1/traces", b"stolen", "text/plain")
    print(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS"), os.environ.get("OTEL_RESOURCE_ATTRIBUTES"))
"""


def run(project: Project, collector: Collector, level: str, before: str, *arguments: str) -> Any:
    """A run whose phase is that program, with a collector and a secret for it in the caller's
    environment.
    """
    (project.root / "send.py").write_text(PROGRAM)
    project.write(
        {"test": " ".join(["/usr/bin/python3 send.py", *arguments])},
        telemetry="true",
        policy=f'"{level}"',
    )
    project.caller = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hunter22",
        "OTEL_RESOURCE_ATTRIBUTES": "whose=the-callers",
    }
    return project.call("run", "test", before=before)


@pytest.mark.parametrize(("level", "before"), PLACES)
def test_spans_leave_and_nothing_else_does(project: Project, level: str, before: str) -> None:
    """The span is in the run's trace, below its phase, and at the collector;
    what is no span is at neither, and the phase breaks no rule.
    """
    with collecting() as collector:
        answer = run(project, collector, level, before)
        if "CR-TRACE-004" in answer.err:  # a busy machine: the rest is what --push is for
            engine.push_trace(project.root, caller={**os.environ, **project.caller})
        sent = {span.name: span for span in spans_of(collector)}
        bodies = b"".join(body for _, _, body in collector.requests)
    recorded = {span.name: span for span in engine.read_trace(project.root)[1]}

    assert (answer.code, answer.result["outcome"], answer.result["violations"]) == (
        0,
        "passed",
        [],
    ), answer.err
    assert (answer.result["tier"] == "E3") is bool(before)
    assert (
        sent["mine"].parent_span_id.hex()
        == recorded["mine"].parent_id
        == recorded["phase test"].span_id
    )
    assert b"stolen" not in bodies
    assert "CR-TRACE-007" in answer.err


@pytest.mark.parametrize(("level", "before"), PLACES)
def test_the_callers_own_settings_stay_with_the_engine(
    project: Project, level: str, before: str
) -> None:
    """Its headers, which may be secret, and its resource are not inside;
    the endpoint there is the phase's own.
    """
    with collecting() as collector:
        answer = run(project, collector, level, before)
    said = next((project.root / ".ggen/cleanroom/runs").glob("*/logs/test.log")).read_text()

    assert said.splitlines() == [
        "http://127.0.0.1:4318/v1/traces 200",
        "http://127.0.0.1:4318/v1/logs 404",
        "http://127.0.0.1:4318/v1/traces 400",
        "None None",
    ], answer.err


@pytest.mark.parametrize(("level", "before"), PLACES)
def test_the_engines_collector_cannot_be_reached_from_inside(
    project: Project, level: str, before: str
) -> None:
    """It listens on the host's loopback: nothing arrives, and where the network is the host's the
    attempt is blocked and named.
    """
    with collecting() as collector:
        answer = run(project, collector, level, before, collector.endpoint)
        bodies = [body for _, _, body in collector.requests]
    said = next((project.root / ".ggen/cleanroom/runs").glob("*/logs/test.log")).read_text()

    assert b"stolen directly" not in bodies
    assert "Connection refused" in said
    if level == "Low" or before:
        assert collector.server_address[1] in [
            found["target"]["port"] for found in answer.result["violations"]
        ]
