"""Spans from events, the trace file, and the W3C header."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.bus import Span, SpanContext
from cleanroom.evidence import tracing
from cleanroom.evidence.tracing import otlp_json, read_traceparent, span_events, spans
from cleanroom.evidence.tracing import trace as trace_module
from cleanroom.evidence.tracing.names import traceparent_sampled
from cleanroom.model.events import Ledger, Note, Output, Started, Subject
from support.documented_spans import unnamed
from support.event_log_builder import (
    ORIGIN_NS,
    RUN,
    TRACE,
    EventLogBuilder,
    begin,
    egress,
    phase,
    shop,
)
from support.paths import ROOT

IDS = st.text("0123456789abcdef", min_size=32, max_size=32).filter(lambda text: text.strip("0"))


def written(envelopes: list[Any]) -> list[dict[str, Any]]:
    return json.loads(otlp_json(spans(envelopes)))["resourceSpans"][0]["scopeSpans"][0]["spans"]


def test_every_started_is_a_span_with_its_parent():
    """The tree of spans is the tree of the events."""
    found = {span["spanId"]: span for span in written(shop())}
    tree = {
        span["name"]: found[span["parentSpanId"]]["name"]
        for span in found.values()
        if "parentSpanId" in span
    }

    assert tree == {
        "service postgres": "RUN shop",
        "service redis": "RUN shop",
        "readiness postgres": "service postgres",
        "readiness redis": "service redis",
        "phase init": "RUN shop",
        "environment init-1": "phase init",
        "command init#1": "environment init-1",
        "phase test": "RUN shop",
        "environment test-1": "phase test",
        "command test#1": "environment test-1",
        "unwind": "RUN shop",
    }


def test_children_lie_within_their_parents_and_begin_with_the_first_event():
    """Start and end are nanoseconds of wall time, and nest."""
    found = {span["spanId"]: span for span in written(shop())}

    assert found["0000000000000001"]["startTimeUnixNano"] == str(ORIGIN_NS)
    for span in found.values():
        parent = found.get(span.get("parentSpanId"), span)
        assert (
            int(parent["startTimeUnixNano"])
            <= int(span["startTimeUnixNano"])
            <= int(span["endTimeUnixNano"])
            <= int(parent["endTimeUnixNano"])
        )


def test_a_step_of_the_wall_clock_does_not_show():
    """Durations are monotonic: a clock set back in the middle leaves them as they are."""
    stepped = [
        msgspec.structs.replace(e, time_unix_ns=e.time_unix_ns - (10**10 if e.seq > 5 else 0))
        for e in shop()
    ]

    assert [s.end_ns for s in spans(stepped)] == [s.end_ns for s in spans(shop())]


def test_the_run_is_a_server_span_and_the_rest_internal():
    """Kinds are those of the cicd conventions, in OTLP's numbers."""
    assert {span["name"]: span["kind"] for span in written(shop()) if span["kind"] != 1} == {
        "RUN shop": 2
    }


def test_the_callers_span_is_the_runs_parent():
    """A TRACEPARENT that came in is where the run hangs."""
    envelopes = [
        msgspec.structs.replace(e, parent="00f067aa0ba902b7")
        if e.span_id == "0000000000000001"
        else e
        for e in shop()
    ]

    run = spans(envelopes)[0]
    assert run.parent_id == "00f067aa0ba902b7"
    assert written(envelopes)[0]["parentSpanId"] == "00f067aa0ba902b7"


def test_ids_are_hex_and_long_numbers_are_strings():
    """What OTLP/JSON asks for, and Jaeger's page insists on."""
    for span in written(shop()):
        assert (span["traceId"], len(span["spanId"])) == (TRACE, 16)
        assert all(isinstance(span[name], str) for name in ("startTimeUnixNano", "endTimeUnixNano"))
        for attribute in span["attributes"]:
            ((kind, value),) = attribute["value"].items()
            assert (
                type(value)
                is {"stringValue": str, "intValue": str, "doubleValue": float, "boolValue": bool}[
                    kind
                ]
            )


def test_a_failure_is_the_spans_status_and_error_type():
    """What failed is red in a viewer, what passed or was skipped is not."""
    found = {span.name: span for span in spans(shop())}

    assert (found["phase test"].message, found["phase test"].attributes["error.type"]) == (
        "3 attempts against the policy, exit status 1",
        "CR-PHASE-005",
    )
    assert found["phase test"].attributes["cicd.pipeline.task.run.result"] == "failure"
    assert found["phase init"].status == 0
    assert found["RUN shop"].attributes["cicd.pipeline.result"] == "failure"


def test_what_never_finished_ends_with_the_last_event_as_an_error():
    """A killed run's trace still loads, and says where it was."""
    envelopes = shop()[:20]
    found = {span.name: span for span in spans(envelopes)}

    assert found["RUN shop"].message == "not finished"
    assert (
        found["RUN shop"].end_ns
        == ORIGIN_NS + envelopes[-1].monotonic_ns - envelopes[0].monotonic_ns
    )


def test_a_violation_names_rule_process_and_target_on_its_span():
    """A viewer shows who tried what, where it happened."""
    (environment,) = (span for span in spans(shop()) if span.name == "environment test-1")
    first = next(event for event in environment.events if event.name == "violation")

    assert first.attributes["security_rule.name"] == "network.egress"
    assert (first.attributes["process.pid"], first.attributes["process.executable.path"]) == (
        4711,
        "/usr/bin/curl",
    )
    assert first.attributes["cleanroom.violation.target"] == "tcp example.org:443"


def test_a_fact_outside_every_span_is_told_on_the_run():
    """Nothing is lost because its span is not known."""
    story = EventLogBuilder()
    begin(story)
    story.tell(Note(subject=RUN, level="warning", text="a sample was lost"), "ffffffffffffffff")

    assert [event.name for event in spans(story.envelopes)[0].events] == ["note"]


def test_a_flood_is_bounded_and_counted_and_output_goes_first():
    """At most 128 events per span, and no violation gives way to output."""
    story = EventLogBuilder()
    span = phase(story, begin(story), "test")
    for number in range(300):
        story.tell(
            Output(
                subject=Subject("phase", "test"), stream="stdout", text="x" * 5000, offset=number
            ),
            span,
        )
        if number < 120:
            story.tell(egress("test", host=f"h{number}"), span)
    found = spans(story.envelopes)[1]

    assert len(found.events) == trace_module.EVENTS_MAX
    assert sum(event.name == "violation" for event in found.events) == 120
    assert found.dropped_events == 300 - 8
    assert written(story.envelopes)[1]["droppedEventsCount"] == 292
    assert all(
        len(event.attributes.get("cleanroom.output.text", "")) <= span_events.TEXT_MAX
        for event in found.events
    )


def test_the_same_words_for_the_attributes_of_every_sequence():
    """A list becomes an OTLP array."""
    story = EventLogBuilder()
    run = begin(story)
    story.tell(Ledger(subject=RUN, created=3, removed=1, left=("a", "b")), run)
    attributes = {
        a["key"]: a["value"] for a in written(story.envelopes)[0]["events"][0]["attributes"]
    }

    assert attributes["cleanroom.ledger.left"] == {
        "arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}
    }
    assert "cleanroom.ledger.held" not in attributes


def test_no_events_are_an_empty_file():
    """An empty log is valid OTLP/JSON."""
    assert json.loads(otlp_json(spans([]))) == {"resourceSpans": []}


def test_the_table_of_spans_is_true():
    """Every name and attribute that a run's spans carry is in `otel/spans.md`."""
    assert unnamed(spans(shop()) + spans(shop(failing=False))) == set()


def test_attributes_of_the_convention_are_documented_one_by_one():
    """What `docs/events.md` lets a Started carry has its row in the table of attributes."""
    events = (ROOT / "docs" / "events.md").read_text()
    page = (ROOT / "otel" / "spans.md").read_text()
    rows = [
        line
        for line in events.splitlines()
        if re.match(r"\| `(run|phase|environment|service)`", line)
    ]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[2])}

    assert len(names) > 20
    assert {name for name in names if f"`cleanroom.{name}`" not in page} == set()


@given(IDS, IDS)
def test_traceparent_is_read_back(trace_id: str, span: str) -> None:
    """Reading is the inverse of writing, ids and flag."""
    if span[:16].strip("0"):
        for sampled in (True, False):
            written = Span(SpanContext(trace_id, span[:16], ""), sampled).traceparent
            assert (read_traceparent(written), traceparent_sampled(written)) == (
                (trace_id, span[:16]),
                sampled,
            )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-00f067aa0ba902b7",
        f"00-{TRACE}-00f067aa0ba902b7-01-more",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f" 00-{TRACE}-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b7-01\n",
        f"00-{TRACE}-00f067aa0ba902b7-1",
        f"01-{TRACE}-00f067aa0ba902b7-01x",
    ],
)
def test_a_malformed_traceparent_is_ignored(text: str) -> None:
    """Strict W3C: anything else starts a trace of its own."""
    assert read_traceparent(text) is None


def test_a_later_version_of_the_header_is_read():
    """Versions above 00 may be longer, and are read as far as they are known."""
    assert read_traceparent(f"01-{TRACE}-00f067aa0ba902b7-01-more") == (TRACE, "00f067aa0ba902b7")


def test_collecting_costs_no_import_of_the_sdk():
    """A run that sends nothing never loads OpenTelemetry."""
    code = (
        "import sys; from cleanroom.evidence import tracing; "
        "tracing.otlp_json(tracing.Trace().spans()); print(any(m.startswith('opentelemetry') for "
        "m in sys.modules))"
    )

    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_only_a_kind_of_event_that_a_span_needs_is_read():
    """The subscriber asks for these kinds, so a sample never reaches it."""
    assert Started in tracing.KINDS
    assert "metric" not in {kind.__struct_config__.tag for kind in tracing.KINDS}
