"""Facts of a run as events of spans: their names and attributes in the table of `otel/spans.md`."""

from __future__ import annotations

from cleanroom.evidence.tracing import names
from cleanroom.evidence.tracing.span import Attributes
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Attached,
    Event,
    Ledger,
    Note,
    Output,
    Recovery,
    Violation,
)

TEXT_MAX = 1024  # characters of any text; a viewer shows a line of it


def clipped(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def span_event(event: Event) -> tuple[str, Attributes]:
    """Name and attributes of a fact as an event of a span. Empty values are left out."""
    name, attributes = _unclipped(event)
    shown: Attributes = {
        key: clipped(value) if isinstance(value, str) else value
        for key, value in attributes.items()
    }
    return name, {key: value for key, value in shown.items() if value not in ("", [])}


def _unclipped(event: Event) -> tuple[str, Attributes]:
    match event:
        case Violation():
            return "violation", _violation(event)
        case Assertion():
            name = "canary" if event.subject.kind == "canary" else "assertion"
            return name, {
                "cleanroom.assertion.name": event.name,
                "cleanroom.assertion.passed": event.passed,
                "cleanroom.assertion.expected": event.expected,
                "cleanroom.assertion.found": event.found,
                "security_rule.name": event.rule,
                "security_rule.category": event.dimension,
            }
        case Recovery():
            return "recovery", {
                "cleanroom.recovery.action": event.action,
                "cleanroom.recovery.subject": str(event.subject),
                "cleanroom.recovery.cause": event.cause,
                "cleanroom.recovery.attempt": event.attempt,
                "cleanroom.recovery.delay_seconds": event.delay_seconds,
            }
        case Artifact():
            return "artifact", {
                "cleanroom.artifact.path": event.path,
                "cleanroom.artifact.role": event.role,
                "cleanroom.artifact.bytes": event.bytes,
                "cleanroom.artifact.files": event.files,
            }
        case Ledger():
            return "ledger", {
                "cleanroom.ledger.created": event.created,
                "cleanroom.ledger.removed": event.removed,
                "cleanroom.ledger.held": list(event.held),
                "cleanroom.ledger.left": list(event.left),
            }
        case Attached():
            return "attached", {
                "cleanroom.service.name": event.subject.name,
                "cleanroom.service.version": event.version,
                "cleanroom.holder.kind": event.holder,
                "cleanroom.holder.id": event.holder_id,
            }
        case Note():
            return "note", {
                "cleanroom.note.level": event.level,
                "cleanroom.note.text": event.text,
                "cleanroom.note.code": event.code,
            }
        case Output():
            return "output", {
                "cleanroom.output.stream": event.stream,
                "cleanroom.output.text": event.text,
                "cleanroom.output.offset": event.offset,
            }
    raise AssertionError(f"not a fact of a trace: {event!r}")


def _violation(event: Violation) -> Attributes:
    found: Attributes = {
        "security_rule.name": event.rule,
        "security_rule.category": event.dimension,
        "cleanroom.violation.severity": event.severity,
        "cleanroom.violation.outcome": event.outcome,
        "cleanroom.violation.target": str(event.target),
        "cleanroom.violation.mechanism": event.mechanism,
        "cleanroom.violation.certainty": event.certainty,
        "cleanroom.violation.count": event.count,
        "cleanroom.violation.syscall": event.syscall,
        "cleanroom.violation.errno": event.errno,
        "cleanroom.violation.attribution_gap": event.attribution_gap,
    }
    if event.process is not None:
        found |= {
            "process.pid": event.process.pid,
            "process.executable.path": event.process.exe,
            names.COMMAND_LINE: " ".join(event.process.argv),
        }
    return found
