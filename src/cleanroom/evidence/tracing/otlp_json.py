"""Spans as OTLP/JSON, the file that Jaeger's page loads:
ids in hex, 64-bit numbers as strings, enumerations as numbers.

Reading is the inverse of writing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import msgspec

from cleanroom.evidence.tracing.span import Attributes, Source, SpanData, SpanEvent, SpanLink, Value

if TYPE_CHECKING:
    from cleanroom.evidence.tracing.otlp_types import (
        AnyValue,
        KeyValue,
        ResourceSpans,
        ScopeSpans,
        Span,
    )

_HEX = re.compile(r"[0-9a-fA-F]+")
_encoder = msgspec.json.Encoder()
_MALFORMED = (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
DEPTH_MAX = 16  # of values within values: nobody's attribute is deeper


def otlp_json(spans: Sequence[SpanData]) -> bytes:
    """A file of these spans, those of one source together."""
    # Each span is encoded at once: a large trace as one tree of small objects costs twice as much,
    # most of it in looking for garbage.
    grouped = _grouped(spans, lambda span: msgspec.Raw(_encoder.encode(_span(span))))
    return _encoder.encode({"resourceSpans": grouped}) + b"\n"


def to_otlp(spans: Sequence[SpanData]) -> list[dict[str, Any]]:
    """The file's `resourceSpans`, as values that the event `Spans` holds."""
    return cast("list[dict[str, Any]]", _grouped(spans, _span))


def _grouped(
    spans: Sequence[SpanData], convert: Callable[[SpanData], Span | msgspec.Raw]
) -> list[ResourceSpans]:
    return [
        _resource_spans(source, [convert(span) for span in found])
        for source, found in groupby(spans, key=lambda span: span.source)
    ]


def _resource_spans(source: Source, spans: list[Span | msgspec.Raw]) -> ResourceSpans:
    scope_spans: ScopeSpans = {
        "scope": {"name": source.scope, "version": source.version},
        "schemaUrl": source.schema_url,
        "spans": spans,
    }
    return {
        "resource": {"attributes": _attributes(source.resource)},
        "scopeSpans": [scope_spans],
        "schemaUrl": source.schema_url,
    }


def _span(span: SpanData) -> Span:
    written: Span = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "flags": 1,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [
            {
                "timeUnixNano": str(e.unix_ns),
                "name": e.name,
                "attributes": _attributes(e.attributes),
            }
            for e in span.events
        ],
        "droppedEventsCount": span.dropped_events,
        "status": {"code": span.status},
    }
    if span.parent_id:
        written["parentSpanId"] = span.parent_id
    if span.links:
        written["links"] = [
            {"traceId": link.trace_id, "spanId": link.span_id} for link in span.links
        ]
    if span.message:
        written["status"]["message"] = span.message
    return written


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [
        {"key": name, "value": {"stringValue": value} if type(value) is str else _value(value)}
        for name, value in attributes.items()
    ]


def _value(value: Value) -> AnyValue:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
    return {"arrayValue": {"values": [_value(item) for item in value]}}


def read_otlp_json(data: bytes) -> list[SpanData]:
    """The spans of such a file, in its order.

    Raises:
        ValueError: it is not OTLP/JSON.
    """
    try:
        return from_otlp(msgspec.json.decode(data)["resourceSpans"])
    except _MALFORMED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def from_otlp(found: Any) -> list[SpanData]:
    """The spans of a file's `resourceSpans`.

    Raises:
        ValueError: they are not in that form.
    """
    try:
        return list(_spans(found))
    except _MALFORMED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _spans(found: Any) -> Iterator[SpanData]:
    for resource_spans in found:
        resource = _read_attributes(resource_spans.get("resource", {}).get("attributes", []))
        for scope_spans in resource_spans.get("scopeSpans", []):
            scope = scope_spans.get("scope", {})
            schema = scope_spans.get("schemaUrl", "") or resource_spans.get("schemaUrl", "")
            source = Source(resource, scope.get("name", ""), scope.get("version", ""), schema)
            for span in scope_spans.get("spans", []):
                yield _read_span(span, source)


def _read_span(span: Any, source: Source) -> SpanData:
    status = span.get("status", {})
    return SpanData(
        trace_id=_identity(span["traceId"], 32),
        span_id=_identity(span["spanId"], 16),
        parent_id=_identity(span["parentSpanId"], 16) if span.get("parentSpanId") else "",
        name=str(span.get("name", "")),
        kind=int(span.get("kind", 1)),
        start_ns=_nanoseconds(span["startTimeUnixNano"]),
        end_ns=_nanoseconds(span["endTimeUnixNano"]),
        attributes=_read_attributes(span.get("attributes", [])),
        events=tuple(
            SpanEvent(
                str(event.get("name", "")),
                _nanoseconds(event.get("timeUnixNano", 0)),
                _read_attributes(event.get("attributes", [])),
            )
            for event in span.get("events", [])
        ),
        links=tuple(
            SpanLink(_identity(link["traceId"], 32), _identity(link["spanId"], 16))
            for link in span.get("links", [])
        ),
        dropped_events=int(span.get("droppedEventsCount", 0)),
        status=int(status.get("code", 0)),
        message=str(status.get("message", "")),
        source=source,
    )


def _identity(text: str, digits: int) -> str:
    if len(text) != digits or not _HEX.fullmatch(text) or not text.strip("0"):
        raise ValueError(
            f"expected {digits} hexadecimal digits, not all of them 0, found {text[:40]!r}"
        )
    return text.lower()


def _nanoseconds(value: Any) -> int:
    found = int(value)
    if not 0 <= found <= 1 << 63:
        raise ValueError(f"expected nanoseconds since 1970, found {found:.3e}")
    return found


def _read_attributes(attributes: Any) -> Attributes:
    return {
        str(attribute["key"]): _read_value(attribute.get("value", {})) for attribute in attributes
    }


def _read_value(value: Any, depth: int = 0) -> Value:
    if depth > DEPTH_MAX:
        raise ValueError(f"a value within more than {DEPTH_MAX} others")
    match value:
        case {"boolValue": bool(found)}:
            return found
        case {"intValue": found}:
            return int(found)
        case {"doubleValue": found}:
            return float(found)
        case {"arrayValue": {"values": list(found)}}:
            return [_read_value(item, depth + 1) for item in found]
        case {"stringValue": found}:
            return str(found)
    # a map or bytes: kept readable, as no span of ours has one
    return str(msgspec.json.encode(value), "utf-8") if value else ""
