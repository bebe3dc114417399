"""Notes and failures of a run as log records, each with its place in the trace."""

from __future__ import annotations

import msgspec

from cleanroom.evidence.tracing.span import Attributes
from cleanroom.model.events import Envelope, Event, Finished, Note

KINDS: tuple[type[Event], ...] = (Note, Finished)
# more than a person reads; the event log has all of them
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
    """The log record of this event; None where it has none."""
    event = envelope.event
    match event:
        case Note(level=level, text=text, code=code):
            severity = "info" if level == "info" else "warning"
        case Finished(result="failed" | "error" | "timeout" | "refused", code=code) if (
            event.subject.kind in ("run", "phase", "service")
        ):
            severity = "error"
            text = f"{event.subject}: {event.reason or event.result}"
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
