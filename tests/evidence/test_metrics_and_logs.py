"""The other two signals: what a run's events make of them, and what arrives."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cleanroom.evidence.tracing import metrics, spans
from cleanroom.evidence.tracing.delivery import Delivery
from cleanroom.evidence.tracing.logs import SEVERITIES, LogLine, log_line
from cleanroom.evidence.tracing.metrics import Point
from cleanroom.evidence.tracing.settings import read_settings
from cleanroom.model.events import Recovery, Subject
from support.event_log_builder import TRACE, EventLogBuilder, begin, shop
from support.otlp_collector import collecting
from support.paths import ROOT

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)
PAGE = ROOT / "otel" / "spans.md"


def points(envelopes: list[Any]) -> list[Point]:
    made = metrics.Metrics()
    for envelope in envelopes:
        made.add(envelope)
    return made.points()


def lines() -> list[LogLine]:
    return [line for envelope in shop() if (line := log_line(envelope))]


def test_the_table_of_metrics_is_true():
    """`otel/spans.md` has every metric with its kind and unit, and no other;
    what points carry is in its row.
    """
    rows = re.findall(
        r"^\| `([a-z._]+)` \| ([a-z]+)(?:, (\w+))? \| (\S+) \| (.*?) \|",
        PAGE.read_text(),
        re.MULTILINE,
    )
    kinds = {
        ("sum", "delta"): "count",
        ("sum", "cumulative"): "sum",
        ("gauge", ""): "gauge",
        ("histogram", "delta"): "histogram",
    }

    assert {
        name: (kinds[kind, temporality], unit) for name, kind, temporality, unit, _ in rows
    } == {name: (kind, unit) for name, (kind, unit, _) in metrics.TABLE.items()}
    carried = {
        name: set(re.findall(r"`([a-z._]+)`", attributes)) for name, _, _, _, attributes in rows
    }
    for point in points(shop()):
        assert set(point.attributes) <= carried[point.name] | {"cicd.pipeline.name"}, point


def test_a_run_tells_what_it_used_how_long_it_took_and_what_was_tried():
    """CPU, memory, disk, network, durations, errors and violations;
    a failing run has its type of error.
    """
    found = {point.name for point in points(shop())}
    (errors,) = [point for point in points(shop()) if point.name == "cicd.pipeline.run.errors"]

    assert set(metrics.TABLE) == found
    assert (errors.value, "error.type" in errors.attributes) == (1, True)


def test_restarts_are_counted_by_service():
    """Two of one service are one point of two."""
    story = EventLogBuilder()
    run = begin(story)
    for attempt in (1, 2):
        story.tell(
            Recovery(
                subject=Subject("service", "db"),
                action="restarted",
                cause="killed",
                attempt=attempt,
                delay_seconds=0.1,
            ),
            run,
        )
    found = [
        (point.value, point.attributes["cleanroom.service"])
        for point in points(story.envelopes)
        if "restarts" in point.name
    ]

    assert found == [(2, "db")]


def delivered() -> dict[str, Any]:
    """The requests of all three signals, as a collector took them."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

    kinds = {"/v1/metrics": ExportMetricsServiceRequest, "/v1/logs": ExportLogsServiceRequest}
    source = spans(shop())[0].source
    with collecting() as collector:
        delivery = Delivery(
            read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}).destinations
        )
        delivery.put("metrics", [(metrics.shared(source), point) for point in points(shop())])
        delivery.put("logs", [(source, line) for line in lines()])
        assert delivery.finish(30).complete
        return {path: kinds[path].FromString(body) for path, _, body in collector.requests}


def test_metrics_arrive_with_unit_and_temporality():
    """What a run adds is a delta, so that runs add up; what is read while it goes on is
    cumulative.
    """
    (found,) = delivered()["/v1/metrics"].resource_metrics
    by_name = {metric.name: metric for metric in found.scope_metrics[0].metrics}
    delta, cumulative = 1, 2

    assert {name: metric.unit for name, metric in by_name.items()} == {
        name: metrics.TABLE[name][1] for name in by_name
    }
    assert by_name["cleanroom.violations"].sum.aggregation_temporality == delta
    assert by_name["cleanroom.phase.duration"].histogram.aggregation_temporality == delta
    assert by_name["container.cpu.time"].sum.aggregation_temporality == cumulative
    assert by_name["container.cpu.time"].sum.is_monotonic
    assert sum(by_name["cicd.pipeline.run.duration"].histogram.data_points[0].bucket_counts) == 1


def test_metrics_of_two_runs_have_one_source():
    """A run's id would make each run a series of its own; who ran is what stays."""
    attributes = {
        attribute.key
        for attribute in delivered()["/v1/metrics"].resource_metrics[0].resource.attributes
    }

    assert "service.name" in attributes
    assert "cicd.pipeline.run.id" not in attributes


def test_log_records_arrive_with_the_ids_of_their_spans():
    """Text, severity and place in the trace of everything that the engine told."""
    (found,) = delivered()["/v1/logs"].resource_logs
    records = [
        (r.body.string_value, r.severity_number, r.trace_id.hex(), r.span_id.hex())
        for r in found.scope_logs[0].log_records
    ]

    assert records == [
        (line.text, SEVERITIES[line.severity], TRACE, line.span_id) for line in lines()
    ]
    assert any(severity == SEVERITIES["error"] for _, severity, _, _ in records)
    assert {span_id for *_, span_id in records} <= {span.span_id for span in spans(shop())}
