"""The trace file: written and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.evidence.tracing import (
    SpanData,
    SpanEvent,
    SpanLink,
    otlp_json,
    read_otlp_json,
    spans,
)
from cleanroom.evidence.tracing.span import Source
from support.event_log_builder import shop

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBER = st.integers(-(2**63), 2**63 - 1)
VALUE = st.recursive(
    st.booleans() | NUMBER | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(TEXT, VALUE, max_size=4)
TIME = st.integers(0, 2**63 - 1)


def identity(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


SOURCE = st.builds(Source, ATTRIBUTES, TEXT, TEXT, TEXT)
SPAN = st.builds(
    SpanData,
    trace_id=identity(32),
    span_id=identity(16),
    parent_id=st.just("") | identity(16),
    name=TEXT,
    kind=st.integers(0, 5),
    start_ns=TIME,
    end_ns=TIME,
    attributes=ATTRIBUTES,
    events=st.lists(st.builds(SpanEvent, TEXT, TIME, ATTRIBUTES), max_size=3).map(tuple),
    links=st.lists(st.builds(SpanLink, identity(32), identity(16)), max_size=2).map(tuple),
    dropped_events=st.integers(0, 2**31),
    status=st.integers(0, 2),
    message=TEXT,
    source=SOURCE,
)


# building spans is slow where others use the processors
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(SPAN, max_size=3))
def test_reading_is_the_inverse_of_writing(found: list[SpanData]) -> None:
    """Every span comes back as it was, in its order."""
    assert read_otlp_json(otlp_json(found)) == found


def test_a_whole_run_comes_back():
    """The spans of a run are those of its file."""
    assert read_otlp_json(otlp_json(spans(shop()))) == spans(shop())


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["resourceSpans", "scopeSpans", "spans", "traceId", "attributes", "key"]
                ),
                x,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_else_is_refused_in_one_line(data: bytes) -> None:
    """A file that is not a trace is an error that says so, never a traceback."""
    try:
        assert all(isinstance(span, SpanData) for span in read_otlp_json(data))
    except ValueError:
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"traceId": "0" * 32},
        {"traceId": "12"},
        {"spanId": "zz" * 8},
        {"spanId": "0x" + "1" * 14},
        {"startTimeUnixNano": "soon"},
        {"attributes": [{}]},
    ],
)
def test_a_span_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    """Ids are hexadecimal and not zero, times are numbers, attributes have keys."""
    document = json.loads(otlp_json(spans(shop())))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0] |= change

    with pytest.raises(ValueError, match=r": "):
        read_otlp_json(json.dumps(document).encode())


def test_a_value_that_nests_without_end_is_refused():
    """A file cannot exhaust the interpreter's stack."""
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(200):
        value = {"arrayValue": {"values": [value]}}
    document = json.loads(otlp_json(spans(shop())))
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = [
        {"key": "deep", "value": value}
    ]

    with pytest.raises(ValueError, match=r": "):
        read_otlp_json(json.dumps(document).encode())
