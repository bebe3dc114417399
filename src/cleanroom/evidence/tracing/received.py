"""Spans that code under test sends by OTLP: read, checked, cut to size,
and made part of the run's own trace.

Pure functions.

A program that reads `TRACEPARENT` makes spans of the run's trace already.
One that does not has traces of its own: they are adopted,
so that nobody has to look in two places, their roots below the phase that sent them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cleanroom.core.installation import install_line
from cleanroom.evidence.tracing.otlp_json import from_otlp
from cleanroom.evidence.tracing.span import Attributes, Source, SpanData, SpanEvent, SpanLink, Value
from cleanroom.evidence.tracing.span_events import clipped
from cleanroom.evidence.tracing.trace import EVENTS_MAX
from cleanroom.model.errors import BackendUnavailable

ATTRIBUTES_MAX = 128  # of a span, an event, a resource: OpenTelemetry's own default
LINKS_MAX = 128
LIST_MAX = 64  # items of one attribute


class NotTaken(Exception):
    """The body of a request holds no spans in a known form; `str` is the reason."""


def require_protobuf() -> None:
    """
    Raises:
        BackendUnavailable: the package that reads what programs send is not installed.
    """
    try:
        import h11  # noqa: F401
        import opentelemetry.proto.collector.trace.v1.trace_service_pb2  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "CR-TRACE-006",
            f"cleanroom.telemetry = true needs a package that is not installed ({error.name})",
            hint=install_line("otlp"),
        ) from error


def decode(body: bytes, content_type: str) -> list[SpanData]:
    """The spans of an export request in protobuf or JSON.

    Raises:
        NotTaken: it is neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-protobuf":
        return _from_protobuf(body)
    if kind != "application/json":
        raise NotTaken(f"expected application/x-protobuf or application/json, found {kind[:60]!r}")
    try:
        document = msgspec.json.decode(body)
        return from_otlp(document["resourceSpans"])
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError, ValueError) as error:
        raise NotTaken(f"not an export request: {error}"[:200]) from None


def _from_protobuf(body: bytes) -> list[SpanData]:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        return list(_spans(ExportTraceServiceRequest.FromString(body)))
    except (DecodeError, ValueError) as error:
        raise NotTaken(f"not an export request: {error}"[:200]) from None


def _spans(request: Any) -> Iterator[SpanData]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope
            source = Source(
                resource,
                scope.name,
                scope.version,
                scope_spans.schema_url or resource_spans.schema_url,
            )
            for span in scope_spans.spans:
                if (
                    len(span.trace_id) != 16
                    or len(span.span_id) != 8
                    or not any(span.trace_id)
                    or not any(span.span_id)
                ):
                    raise ValueError("a span without ids")
                yield _span(span, source)


def _span(span: Any, source: Source) -> SpanData:
    return SpanData(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=span.kind,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=tuple(
            SpanEvent(event.name, event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ),
        links=tuple(
            SpanLink(link.trace_id.hex(), link.span_id.hex())
            for link in span.links
            if len(link.trace_id) == 16 and len(link.span_id) == 8
        ),
        dropped_events=span.dropped_events_count,
        status=span.status.code,
        message=span.status.message,
        source=source,
    )


def _attributes(found: Any) -> Attributes:
    return {attribute.key: _value(attribute.value) for attribute in found}


def _value(value: Any) -> Value:
    kind = value.WhichOneof("value")
    if kind in ("bool_value", "int_value", "double_value", "string_value"):
        plain: Value = getattr(value, kind)
        return plain
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return str(value).strip()  # a map or bytes: kept readable


def adopted(spans: Sequence[SpanData], trace_id: str, parent_id: str, of: str) -> list[SpanData]:
    """These spans as spans of the trace `trace_id`, cut to size.

    Roots of other traces are below `parent_id`; `of` is the phase that sent them.
    """
    return [_adopted(span, trace_id, parent_id, of) for span in spans]


def _adopted(span: SpanData, trace_id: str, parent_id: str, of: str) -> SpanData:
    return msgspec.structs.replace(
        span,
        trace_id=trace_id,
        parent_id=span.parent_id or parent_id,
        name=clipped(span.name),
        kind=span.kind if 0 <= span.kind <= 5 else 0,
        end_ns=max(span.end_ns, span.start_ns),
        attributes={**_cut(span.attributes), "cleanroom.of": of},
        events=tuple(
            SpanEvent(clipped(event.name), event.unix_ns, _cut(event.attributes))
            for event in span.events[:EVENTS_MAX]
        ),
        links=tuple(
            SpanLink(trace_id if link.trace_id == span.trace_id else link.trace_id, link.span_id)
            for link in span.links[:LINKS_MAX]
        ),
        dropped_events=span.dropped_events + max(len(span.events) - EVENTS_MAX, 0),
        status=span.status if span.status in (0, 1, 2) else 0,
        message=clipped(span.message),
        source=msgspec.structs.replace(
            span.source, resource=_cut(span.source.resource), scope=clipped(span.source.scope)
        ),
    )


def _cut(attributes: Attributes) -> Attributes:
    return {
        clipped(name): _shorter(value) for name, value in list(attributes.items())[:ATTRIBUTES_MAX]
    }


def _shorter(value: Value) -> Value:
    if isinstance(value, str):
        return clipped(value)
    if isinstance(value, list):
        return [_shorter(item) for item in value[:LIST_MAX]]
    return value
