"""A span as a plain value: what the file holds, what a person reads,
and what is made the SDK's own only when it is sent.
"""

from __future__ import annotations

import msgspec

Value = str | bool | int | float | list["Value"]
Attributes = dict[str, Value]


class SpanEvent(msgspec.Struct, frozen=True):
    """A fact at a time on a span."""

    name: str
    unix_ns: int
    attributes: Attributes = {}


class SpanLink(msgspec.Struct, frozen=True):
    """Another span whose work this one shares. Ids in hex."""

    trace_id: str
    span_id: str


class Source(msgspec.Struct, frozen=True):
    """Who made a span: its resource and its instrumentation scope."""

    resource: Attributes = {}
    scope: str = ""
    version: str = ""
    schema_url: str = ""


class SpanData(msgspec.Struct, frozen=True, kw_only=True):
    """One span.

    Ids in hex, times in nanoseconds since 1970, `kind` in OTLP's numbers (1 internal, 2 server,
    3 client, ...).
    """

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    kind: int = 1
    start_ns: int
    end_ns: int
    attributes: Attributes = {}
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    dropped_events: int = 0
    status: int = 0  # 0 unset, 1 ok, 2 error
    message: str = ""
    source: Source

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns
