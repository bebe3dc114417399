"""Spans: from the events of a run to OpenTelemetry's spans and to a trace file. The OpenTelemetry SDK's only home.

A `Trace` takes events as they come and costs no import; `spans()` builds the SDK's own spans, which any of its exporters takes; `otlp_json()` writes them
as OTLP/JSON, which Jaeger's page loads as a file. Names and attributes are the table of `otel/spans.md`: those of OpenTelemetry's `cicd.*` conventions where
one exists (copied here with their schema's address, since the package that holds them is not stable), `cleanroom.*` else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cleanroom.events import Artifact, Assertion, Envelope, Event, Finished, Ledger, Note, Output, Recovery, Started, Violation

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

Value = str | bool | int | float | Sequence[str]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "cleanroom"
SERVICE_NAME = "cleanroom-engine"

PIPELINE_NAME = "cicd.pipeline.name"
PIPELINE_RUN_ID = "cicd.pipeline.run.id"
PIPELINE_RUN_URL = "cicd.pipeline.run.url.full"
PIPELINE_ACTION = "cicd.pipeline.action.name"
PIPELINE_RESULT = "cicd.pipeline.result"
TASK_NAME = "cicd.pipeline.task.name"
TASK_TYPE = "cicd.pipeline.task.type"
TASK_RUN_ID = "cicd.pipeline.task.run.id"
TASK_RUN_URL = "cicd.pipeline.task.run.url.full"
TASK_RUN_RESULT = "cicd.pipeline.task.run.result"
ERROR_TYPE = "error.type"
COMMAND_LINE = "process.command_line"
EXIT_CODE = "process.exit.code"

EVENTS_MAX = 128  # per span, OpenTelemetry's own default
OUTPUT_EVENTS_MAX = 16  # of those: an excerpt; the whole output is in the log file
TEXT_MAX = 1024  # characters of any text; a viewer shows a line of it
KINDS: tuple[type[Event], ...] = (
    Started,
    Finished,
    Output,
    Violation,
    Assertion,
    Recovery,
    Artifact,
    Ledger,
    Note,
)  # what `Trace.add` reads

_RESULTS = {
    "passed": "success", "failed": "failure", "refused": "failure", "error": "error", "timeout": "timeout", "cancelled": "cancellation",
    "cached": "skip", "skipped": "skip", "unverified": "skip",
}  # fmt: skip
_TASK_TYPES = ("build", "test", "deploy")
_NOT_FINISHED = "not finished"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


def traceparent(trace_id: str, span_id: str) -> str:
    """The W3C header value that makes a process's spans children of this one. Sampled: whoever reads the file wants all of it."""
    return f"00-{trace_id}-{span_id}-01"


def read_traceparent(text: str) -> tuple[str, str] | None:
    """Trace id and parent span id of a W3C `traceparent`; None for anything that the specification tells to ignore."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, _, further = found.groups()
    if version == "ff" or (version == "00" and further is not None) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return trace_id, span_id


def load() -> None:
    """Import the SDK now, where there is time: some 40 ms that are otherwise paid when the first span is built."""
    import importlib

    importlib.import_module("opentelemetry.sdk.trace")


class _Record:
    """One span, as plain values."""

    def __init__(self, envelope: Envelope, began_ns: int, attributes: dict[str, Value]) -> None:
        self.span_id = envelope.span_id
        self.parent = envelope.parent
        self.subject = envelope.event.subject
        self.began_ns = began_ns
        self.ended_ns: int | None = None
        self.attributes = attributes
        self.events: list[tuple[int, str, dict[str, Value]]] = []
        self.outputs = 0
        self.dropped = 0
        self.error: str | None = None

    @property
    def name(self) -> str:
        if self.subject.kind == "run":
            return f"RUN {self.subject.name}".rstrip()
        path = f"{self.subject.workspace}/{self.subject.name}" if self.subject.workspace else self.subject.name
        return f"{self.subject.kind} {path}".rstrip()

    def tell(self, at_ns: int, event: Event) -> None:
        """Attach a fact. Output never takes the place of anything else: past its share, or when the span is full, it goes first."""
        if isinstance(event, Output):
            if self.outputs >= OUTPUT_EVENTS_MAX:
                self.dropped += 1
                return
            self.outputs += 1
        self.events.append((at_ns, *_fact(event)))
        if len(self.events) > EVENTS_MAX:
            first = next((index for index, (_, name, _) in enumerate(self.events) if name == "output"), len(self.events) - 1)
            self.events.pop(first)
            self.dropped += 1


class Trace:
    """Collects what spans need, in bounded memory per span."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._run: _Record | None = None
        self._run_id = self._trace_id = self._root = self._version = ""
        self._origin_ns = self._last_ns = 0
        self._phases = 0

    def add(self, envelope: Envelope) -> None:
        """Take one event, in the order of `seq`. Wall time counts from the first event on by the monotonic clock, so that no step of the clock shows."""
        if not self._trace_id:
            self._trace_id, self._run_id = envelope.trace_id, envelope.run_id
            self._origin_ns = envelope.time_unix_ns - envelope.monotonic_ns
        self._last_ns = now_ns = self._origin_ns + envelope.monotonic_ns
        event = envelope.event
        record = self._records.get(envelope.span_id)
        if isinstance(event, Started):
            self._start(envelope, event, now_ns)
        elif isinstance(event, Finished):
            if record is not None and record.subject == event.subject:
                self._finish(record, event, now_ns)
            elif event.subject.kind == "phase":
                self._phases += 1  # skipped: no span, but a row of the page that spans point to
        elif isinstance(event, KINDS) and (record or self._run):
            (record or self._run).tell(now_ns, event)  # type: ignore[union-attr]

    def _start(self, envelope: Envelope, event: Started, now_ns: int) -> None:
        subject = event.subject
        attributes: dict[str, Value] = {"cleanroom.subject.kind": subject.kind, "cleanroom.subject.name": subject.name}
        if subject.workspace:
            attributes["cleanroom.subject.workspace"] = subject.workspace
        record = self._records[envelope.span_id] = _Record(envelope, now_ns, attributes)
        if subject.kind == "run" and self._run is None:
            self._run = record
            self._root, self._version = str(event.attributes.get("root", "")), str(event.attributes.get("version", ""))
            attributes |= {PIPELINE_NAME: subject.name, PIPELINE_RUN_ID: self._run_id, PIPELINE_ACTION: "RUN"} | self._url(
                PIPELINE_RUN_URL, ""
            )
        elif subject.kind == "phase":
            self._phases += 1
            attributes |= {TASK_NAME: subject.name, TASK_RUN_ID: envelope.span_id} | self._url(TASK_RUN_URL, f"#phase-{self._phases}")
            attributes |= {TASK_TYPE: subject.name} if subject.name in _TASK_TYPES else {}
        attributes |= _ours(event.attributes)

    def _finish(self, record: _Record, event: Finished, now_ns: int) -> None:
        record.ended_ns = now_ns
        record.attributes |= {"cleanroom.result": event.result} | _ours(event.attributes)
        result_name = {"run": PIPELINE_RESULT, "phase": TASK_RUN_RESULT}.get(event.subject.kind)
        if result_name:
            record.attributes[result_name] = _RESULTS[event.result]
        if event.exit_code is not None:
            record.attributes[EXIT_CODE] = event.exit_code
        if event.result in ("failed", "refused", "error", "timeout"):
            record.error = event.reason or event.result
            record.attributes[ERROR_TYPE] = event.code or event.result

    def _url(self, name: str, fragment: str) -> dict[str, Value]:
        """Where a person reads about it: the page of this run, since a local run has no other address."""
        if not self._root:
            return {}
        from urllib.parse import quote

        return {name: f"file://{quote(self._root)}/.ggen/cleanroom/runs/{quote(self._run_id)}/test_results.html{fragment}"}

    def spans(self) -> list[ReadableSpan]:
        """The SDK's spans, in the order in which they began. One that has not ended ends with the last event, as an error."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        resource = Resource(self._resource(), SCHEMA_URL)
        scope = InstrumentationScope(SCOPE, self._version or None, SCHEMA_URL)
        return [self._span(record, resource, scope) for record in self._records.values()]

    def _resource(self) -> dict[str, str]:
        found = {"service.name": SERVICE_NAME, "service.version": self._version, PIPELINE_RUN_ID: self._run_id}
        if self._run is not None:
            found[PIPELINE_NAME] = self._run.subject.name
        return {name: value for name, value in found.items() if value}

    def _span(self, record: _Record, resource: Any, scope: Any) -> ReadableSpan:
        from opentelemetry.sdk.trace import Event as SpanEvent
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util import BoundedList
        from opentelemetry.trace import SpanKind, Status, StatusCode

        error = record.error if record.ended_ns is not None else _NOT_FINISHED
        events: Any = BoundedList(EVENTS_MAX)
        events.extend([SpanEvent(name, attributes, at_ns) for at_ns, name, attributes in record.events])
        events.dropped = record.dropped
        return ReadableSpan(
            name=_clip(record.name), context=self._context(record.span_id), parent=self._context(record.parent) if record.parent else None,
            resource=resource, attributes=record.attributes, events=events,
            kind=SpanKind.SERVER if record.subject.kind == "run" else SpanKind.INTERNAL,
            status=Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, _clip(error)),
            start_time=record.began_ns, end_time=self._last_ns if record.ended_ns is None else record.ended_ns, instrumentation_scope=scope,
        )  # fmt: skip

    def _context(self, span_id: str) -> SpanContext:
        from opentelemetry.trace import SpanContext, TraceFlags

        remote = span_id not in self._records
        return SpanContext(int(self._trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))


def spans(envelopes: Iterable[Envelope]) -> list[ReadableSpan]:
    """The spans that these events tell."""
    trace = Trace()
    for envelope in envelopes:
        trace.add(envelope)
    return trace.spans()


def otlp_json(found: Sequence[ReadableSpan]) -> bytes:
    """The spans of one run as an OTLP/JSON file: ids in hex, 64-bit numbers as strings, enumerations as numbers."""
    import msgspec

    if not found:
        return b'{"resourceSpans":[]}\n'
    first = found[0]
    scope = first.instrumentation_scope
    assert scope is not None
    scope_spans = {
        "scope": {"name": scope.name, "version": scope.version or ""},
        "schemaUrl": SCHEMA_URL,
        "spans": [_otlp_span(span) for span in found],
    }
    resource = {"attributes": _otlp_attributes(first.resource.attributes)}
    return msgspec.json.encode({"resourceSpans": [{"resource": resource, "scopeSpans": [scope_spans], "schemaUrl": SCHEMA_URL}]}) + b"\n"


def _otlp_span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    written: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "flags": int(context.trace_flags),
        "name": span.name,
        "kind": span.kind.value + 1,  # OTLP counts from 1, 0 is unspecified
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _otlp_attributes(span.attributes or {}),
        "events": [
            {"timeUnixNano": str(e.timestamp), "name": e.name, "attributes": _otlp_attributes(e.attributes or {})} for e in span.events
        ],
        "droppedEventsCount": span.dropped_events,
        "status": {"code": span.status.status_code.value},
    }
    if span.parent is not None:
        written["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.status.description:
        written["status"]["message"] = span.status.description
    return written


def _otlp_attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _otlp_value(value)} for name, value in attributes.items()]


def _otlp_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
    return {"arrayValue": {"values": [_otlp_value(item) for item in value]}}


def _ours(attributes: Mapping[str, str | int | float | bool]) -> dict[str, Value]:
    """An event's attributes under their names in a trace."""
    names = {"command": COMMAND_LINE}
    return {
        names.get(name, f"cleanroom.{name}"): _clip(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value != ""
    }


def _clip(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def _fact(event: Event) -> tuple[str, dict[str, Value]]:
    """Name and attributes of a fact as a span's event. Empty values are left out."""
    name, attributes = _named(event)
    shown = {key: _clip(value) if isinstance(value, str) else value for key, value in attributes.items()}
    return name, {key: value for key, value in shown.items() if not (isinstance(value, (str, tuple)) and not value)}


def _named(event: Event) -> tuple[str, dict[str, Value]]:
    match event:
        case Violation():
            return "violation", _violation(event)
        case Assertion():
            name = "canary" if event.subject.kind == "canary" else "assertion"
            return name, {
                "cleanroom.assertion.name": event.name, "cleanroom.assertion.passed": event.passed, "cleanroom.assertion.expected": event.expected,
                "cleanroom.assertion.found": event.found, "security_rule.name": event.rule, "security_rule.category": event.dimension,
            }  # fmt: skip
        case Recovery():
            return "recovery", {
                "cleanroom.recovery.action": event.action, "cleanroom.recovery.subject": str(event.subject), "cleanroom.recovery.cause": event.cause,
                "cleanroom.recovery.attempt": event.attempt, "cleanroom.recovery.delay_seconds": event.delay_seconds,
            }  # fmt: skip
        case Artifact():
            return "artifact", {
                "cleanroom.artifact.path": event.path, "cleanroom.artifact.role": event.role, "cleanroom.artifact.bytes": event.bytes,
                "cleanroom.artifact.files": event.files,
            }  # fmt: skip
        case Ledger():
            return "ledger", {
                "cleanroom.ledger.created": event.created, "cleanroom.ledger.removed": event.removed, "cleanroom.ledger.held": event.held,
                "cleanroom.ledger.left": event.left,
            }  # fmt: skip
        case Note():
            return "note", {"cleanroom.note.level": event.level, "cleanroom.note.text": event.text, "cleanroom.note.code": event.code}
        case Output():
            return "output", {
                "cleanroom.output.stream": event.stream,
                "cleanroom.output.text": event.text,
                "cleanroom.output.offset": event.offset,
            }
    raise AssertionError(f"not a fact of a trace: {event!r}")


def _violation(event: Violation) -> dict[str, Value]:
    found: dict[str, Value] = {
        "security_rule.name": event.rule, "security_rule.category": event.dimension, "cleanroom.violation.severity": event.severity,
        "cleanroom.violation.outcome": event.outcome, "cleanroom.violation.target": str(event.target), "cleanroom.violation.mechanism": event.mechanism,
        "cleanroom.violation.certainty": event.certainty, "cleanroom.violation.count": event.count, "cleanroom.violation.syscall": event.syscall,
        "cleanroom.violation.errno": event.errno, "cleanroom.violation.attribution_gap": event.attribution_gap,
    }  # fmt: skip
    if event.process is not None:
        found |= {
            "process.pid": event.process.pid,
            "process.executable.path": event.process.exe,
            COMMAND_LINE: " ".join(event.process.argv),
        }
    return found
