"""The JSON objects of OTLP's traces, under the names that its specification has for them.

64-bit numbers are strings, ids are hex.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

import msgspec


class ArrayValue(TypedDict):
    """A list of values."""

    values: list[AnyValue]


class AnyValue(TypedDict, total=False):
    """Exactly one of these."""

    stringValue: str
    boolValue: bool
    intValue: str
    doubleValue: float
    arrayValue: ArrayValue


class KeyValue(TypedDict):
    """One attribute."""

    key: str
    value: AnyValue


class Event(TypedDict):
    """A fact at a time on a span."""

    timeUnixNano: str
    name: str
    attributes: list[KeyValue]


class Link(TypedDict):
    """Another span."""

    traceId: str
    spanId: str


class Status(TypedDict):
    """How a span ended."""

    # 0 unset, 1 ok, 2 error
    code: int
    message: NotRequired[str]


class Span(TypedDict):
    """One span; times in nanoseconds since 1970."""

    traceId: str
    spanId: str
    parentSpanId: NotRequired[str]
    flags: int
    name: str
    kind: int
    startTimeUnixNano: str
    endTimeUnixNano: str
    attributes: list[KeyValue]
    events: list[Event]
    links: NotRequired[list[Link]]
    droppedEventsCount: int
    status: Status


class Resource(TypedDict):
    """The program that made the spans."""

    attributes: list[KeyValue]


class Scope(TypedDict):
    """The library that made the spans."""

    name: str
    version: str


class ScopeSpans(TypedDict):
    """Spans of one library."""

    scope: Scope
    schemaUrl: str
    # a span may be encoded already
    spans: list[Span | msgspec.Raw]


class ResourceSpans(TypedDict):
    """Spans of one program."""

    resource: Resource
    scopeSpans: list[ScopeSpans]
    schemaUrl: str
