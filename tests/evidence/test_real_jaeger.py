"""Runs read back from a real Jaeger.

Traces here are pushed as recorded runs, so that no claim depends on how fast a run was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import jaeger
from cleanroom import engine
from cleanroom.cli.commands.trace import has_page
from cleanroom.evidence.tracing import SpanData, otlp_json, spans
from cleanroom.evidence.tracing.delivery import Delivery
from cleanroom.evidence.tracing.settings import read_settings, with_endpoint
from cleanroom.evidence.tracing.span import Source, SpanEvent, SpanLink
from support.event_log_builder import TRACE, shop
from support.required_tools import real_tool

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)


@pytest.fixture(scope="module")
def viewer() -> Iterator[jaeger.Jaeger]:
    real_tool("jaeger")
    with jaeger.running() as found:
        yield found


def deliver(found: list[SpanData], endpoint: str, **variables: str) -> None:
    delivery = Delivery(
        read_settings(
            {
                **with_endpoint(variables, endpoint),
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            }
        ).destinations
    )
    delivery.put("traces", found)
    delivered = delivery.finish(60)
    assert delivered.complete, delivered


def tags(span: dict[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def parents(trace: dict[str, Any]) -> dict[str, str]:
    return {
        span["spanID"]: next(
            (ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"), ""
        )
        for span in trace["spans"]
    }


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_run_comes_back_as_one_trace_with_every_parent(
    viewer: jaeger.Jaeger, protocol: str
) -> None:
    """By either protocol: phases, services, violations as events, errors as status,
    as many spans as the file.
    """
    identity = f"{1 if protocol == 'grpc' else 2:032x}"
    sent = [_renamed(span, identity) for span in spans(shop())]
    deliver(
        sent,
        viewer.otlp_grpc if protocol == "grpc" else viewer.otlp_http,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    trace = viewer.wait_trace(identity, len(sent))
    by_name = {span["operationName"]: span for span in trace["spans"]}

    assert parents(trace) == {span.span_id: span.parent_id for span in sent}
    assert {"phase init", "phase test", "service postgres", "service redis"} <= set(by_name)
    assert tags(by_name["phase test"])["otel.status_code"] == "ERROR"
    assert "error" not in tags(by_name["phase init"])
    events = [
        field["value"]
        for log in by_name["environment test-1"]["logs"]
        for field in log["fields"]
        if field["key"] == "event"
    ]
    assert events.count("violation") == 2


def _renamed(span: SpanData, trace_id: str) -> SpanData:
    import msgspec

    return msgspec.structs.replace(span, trace_id=trace_id)


def test_the_newer_api_gives_the_same_spans(viewer: jaeger.Jaeger):
    """`/api/v3` answers OTLP."""
    sent = [_renamed(span, "3" * 32) for span in spans(shop())]
    deliver(sent, viewer.otlp_http)
    viewer.wait_trace("3" * 32, len(sent))
    found = viewer.get(f"/api/v3/traces/{'3' * 32}")["result"]["resourceSpans"]
    got = [
        span for resource in found for scope in resource["scopeSpans"] for span in scope["spans"]
    ]

    assert sorted(
        (span["spanId"], span.get("parentSpanId", ""), span["name"]) for span in got
    ) == sorted((span.span_id, span.parent_id, span.name) for span in sent)
    assert {event["name"] for span in got for event in span.get("events", [])} == {
        event.name for span in sent for event in span.events
    }
    assert {span["name"] for span in got if span["status"].get("code") == 2} == {
        span.name for span in sent if span.status == 2
    }


def test_a_link_to_shared_work_is_a_reference(viewer: jaeger.Jaeger):
    """A service that a session holds was started by another run's span: the page leads there."""
    import msgspec

    (run, *_) = (_renamed(span, "4" * 32) for span in spans(shop()))
    deliver([msgspec.structs.replace(run, links=(SpanLink("5" * 32, "6" * 16),))], viewer.otlp_http)
    (span,) = viewer.wait_trace("4" * 32, 1)["spans"]

    assert [(ref["refType"], ref["traceID"], ref["spanID"]) for ref in span["references"]] == [
        ("FOLLOWS_FROM", "5" * 32, "6" * 16)
    ]


async def test_a_run_of_the_engine_arrives_and_so_do_many_at_once(
    viewer: jaeger.Jaeger, tmp_path: Path
):
    """50 runs side by side, each a trace of its own with as many spans as its file,
    and none that is not one of theirs.
    """
    caller = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.otlp_http,
        "OTEL_SERVICE_NAME": "fifty",
        "CLEANROOM_CACHE": str(tmp_path / "cache"),
    }
    caller.pop("TRACEPARENT", None)

    async def one(number: int) -> None:
        project = tmp_path / f"p{number}"
        project.mkdir()
        (project / "make.toml").write_text(
            f'[project]\nname = "p{number}"\n[lifecycle.test]\ncommand = "true"\n'
        )
        async with engine.open(project, caller=caller, backend="memory") as opened:
            await opened.pipeline("test")
            if (
                opened.delivered is not None and not opened.delivered.complete
            ):  # two cores and fifty ends at once: the rest is what --push is for
                await anyio.to_thread.run_sync(lambda: engine.push_trace(project, caller=caller))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)
    for number in range(50):
        run, recorded = engine.read_trace(tmp_path / f"p{number}")
        trace = await anyio.to_thread.run_sync(
            viewer.wait_trace, recorded[0].trace_id, len(recorded)
        )
        assert parents(trace) == {span.span_id: span.parent_id for span in recorded}, run


def test_jaeger_listens_on_the_loopback_only(viewer: jaeger.Jaeger):
    """Nobody else on the network can read or write the traces of this machine."""
    import psutil

    listening = [
        connection.laddr
        for child in psutil.Process().children(recursive=True)
        if child.name().startswith("jaeger")
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert int(viewer.ui.rpartition(":")[2]) in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_jaeger_without_its_page_is_told_from_one_with_it(
    viewer: jaeger.Jaeger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One built from its module shows a placeholder, which `trace --open` leads nobody to;
    with assets it is its page.
    """
    (tmp_path / "index.html").write_text("<html><body>a page</body></html>")
    monkeypatch.setenv("JAEGER_UI_ASSETS", str(tmp_path))
    with jaeger.running() as paged:
        shown = [
            (found.has_page, has_page("127.0.0.1", int(found.ui.rpartition(":")[2])))
            for found in (viewer, paged)
        ]

    assert shown[1] == (True, True)
    assert shown[0] in ((False, False), (True, True))  # as it was built
    assert not has_page("127.0.0.1", 9)


def test_a_trace_of_20000_spans_arrives_whole(viewer: jaeger.Jaeger):
    """In requests that a collector takes."""
    identity = "7" * 32
    sent = [
        SpanData(
            trace_id=identity,
            span_id=f"{number:016x}",
            parent_id=f"{number // 8:016x}" if number >= 8 else "",
            name=f"step {number % 50}",
            start_ns=10**18 + number,
            end_ns=10**18 + number + 500,
            events=(SpanEvent("note", 10**18 + number, {"text": "x" * 40}),),
            source=Source({"service.name": "large"}),
        )
        for number in range(1, 20_001)
    ]
    deliver(sent, viewer.otlp_http)

    assert parents(viewer.wait_trace(identity, 20_000)) == {
        span.span_id: span.parent_id for span in sent
    }


def test_the_file_is_what_the_page_uploads(viewer: jaeger.Jaeger):
    """The trace file itself, as it is, is what Jaeger's page hands to its server when it is loaded
    there, and what an OTLP receiver takes.
    """
    import json
    import urllib.request

    def posted(where: str) -> bytes:
        request = urllib.request.Request(
            where, otlp_json(spans(shop())), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            body: bytes = answer.read()
            return body

    (shown,) = json.loads(posted(f"{viewer.ui}/api/transform"))["data"]
    posted(f"{viewer.otlp_http}/v1/traces")

    sent = {span.span_id: span.parent_id for span in spans(shop())}
    assert (shown["traceID"], parents(shown)) == (TRACE, sent)
    assert parents(viewer.wait_trace(TRACE, len(sent))) == sent
