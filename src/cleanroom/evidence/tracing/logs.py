"""The engine's own log as log records: what it told people while it ran,
each where in the trace it happened.
"""

from __future__ import annotations

import msgspec

from cleanroom.evidence.tracing.span import Attributes
from cleanroom.model.events import Envelope, Event, Finished, Note

KINDS: tuple[type[Event], ...] = (Note, Finished)
# notes are written for people to read; whoever has more has them in the event log
RECORDS_MAX = 2000
SEVERITIES = {"info": 9, "warning": 13, "error": 17}  # OpenTelemetry's numbers


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One record. Ids in hex; `severity` is a key of SEVERITIES."""

    unix_ns: int
    severity: str
    text: str
    trace_id: str
    span_id: str
    attributes: Attributes = {}


def log_line(envelope: Envelope) -> LogLine | None:
    """What this event says in a log; None for nothing."""
    event = envelope.event
    match event:
        case Note():
            severity, text, code = (
                "info" if event.level == "info" else "warning",
                event.text,
                event.code,
            )
        case Finished(result="failed" | "error" | "timeout" | "refused") if event.subject.kind in (
            "run",
            "phase",
            "service",
        ):
            severity, text, code = (
                "error",
                f"{event.subject}: {event.reason or event.result}",
                event.code,
            )
        case _:
            return None
    attributes: Attributes = {
        "cleanroom.subject.kind": event.subject.kind,
        "cleanroom.subject.name": event.subject.name,
    }
    if code:
        attributes["cleanroom.code"] = code
    return LogLine(
        unix_ns=envelope.time_unix_ns,
        severity=severity,
        text=text,
        trace_id=envelope.trace_id,
        span_id=envelope.span_id,
        attributes=attributes,
    )
