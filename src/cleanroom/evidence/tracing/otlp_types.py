"""The JSON objects of OTLP's traces, under the names that its specification has for them.

64-bit numbers are strings, ids are hex.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class ArrayValue(TypedDict):
    values: list[AnyValue]


class AnyValue(TypedDict, total=False):
    """Exactly one of these."""

    stringValue: str
    boolValue: bool
    intValue: str
    doubleValue: float
    arrayValue: ArrayValue


class KeyValue(TypedDict):
    key: str
    value: AnyValue


class Event(TypedDict):
    timeUnixNano: str
    name: str
    attributes: list[KeyValue]


class Link(TypedDict):
    traceId: str
    spanId: str


class Status(TypedDict):
    # 0 unset, 1 ok, 2 error
    code: int
    message: NotRequired[str]


class Span(TypedDict):
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
