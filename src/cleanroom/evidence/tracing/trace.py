"""Spans of a run, made of its events as they come.

Costs no import of OpenTelemetry.

Names and attributes are the table of `otel/spans.md`: those of OpenTelemetry's conventions where
one exists, `cleanroom.*` else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cleanroom.evidence.tracing import names
from cleanroom.evidence.tracing.otlp_json import from_otlp
from cleanroom.evidence.tracing.settings import Settings
from cleanroom.evidence.tracing.span import Attributes, Source, SpanData, SpanEvent, SpanLink
from cleanroom.evidence.tracing.span_events import clipped, span_event
from cleanroom.model.events import (
    LINK,
    Artifact,
    Assertion,
    Attached,
    Envelope,
    Event,
    Finished,
    Ledger,
    Note,
    Output,
    Recovery,
    Spans,
    Started,
    Violation,
)

EVENTS_MAX = 128  # per span, OpenTelemetry's own default
OUTPUT_EVENTS_MAX = 16  # of those: an excerpt; the whole output is in the log file
# What `Trace.add` reads.
KINDS: tuple[type[Event], ...] = (
    Started,
    Finished,
    Output,
    Violation,
    Assertion,
    Recovery,
    Artifact,
    Ledger,
    Attached,
    Note,
    Spans,
)

_RESULTS = {
    "passed": "success",
    "failed": "failure",
    "refused": "failure",
    "error": "error",
    "timeout": "timeout",
    "cancelled": "cancellation",
    "cached": "skip",
    "skipped": "skip",
    "unverified": "skip",
}
_SUITE_STATUSES = {
    "passed": "success",
    "failed": "failure",
    "refused": "aborted",
    "error": "aborted",
    "timeout": "timed_out",
    "cancelled": "aborted",
    "cached": "skipped",
    "skipped": "skipped",
    "unverified": "skipped",
}
_TASK_TYPES = ("build", "test", "deploy")
_NOT_FINISHED = "not finished"
_INTERNAL, _SERVER = 1, 2
_ERROR = 2


class _SpanRecord:
    """One span that the engine makes, while it collects its attributes and events."""

    def __init__(self, envelope: Envelope, began_ns: int, attributes: Attributes) -> None:
        self.span_id = envelope.span_id
        self.parent = envelope.parent
        self.subject = envelope.event.subject
        self.began_ns = began_ns
        self.ended_ns: int | None = None
        self.attributes = attributes
        self.events: list[SpanEvent] = []
        self.links: tuple[SpanLink, ...] = ()
        self.outputs = 0
        self.dropped = 0
        self.error: str | None = None

    @property
    def name(self) -> str:
        if self.subject.kind == "run":
            return f"RUN {self.subject.name}".rstrip()
        path = (
            f"{self.subject.workspace}/{self.subject.name}"
            if self.subject.workspace
            else self.subject.name
        )
        return f"{self.subject.kind} {path}".rstrip()

    def add_event(self, at_ns: int, event: Event) -> None:
        """Add a fact as an event of the span.

        Output never takes the place of another fact: past its share, or when the span is full,
        it is dropped first.
        """
        if isinstance(event, Output):
            if self.outputs >= OUTPUT_EVENTS_MAX:
                self.dropped += 1
                return
            self.outputs += 1
        name, attributes = span_event(event)
        self.events.append(SpanEvent(name, at_ns, attributes))
        if len(self.events) > EVENTS_MAX:
            first = next(
                (index for index, each in enumerate(self.events) if each.name == "output"),
                len(self.events) - 1,
            )
            self.events.pop(first)
            self.dropped += 1


class Trace:
    """Collects what spans need, in bounded memory per span."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._records: dict[str, _SpanRecord] = {}
        self._foreign: list[SpanData] = []
        self._ready: list[_SpanRecord | SpanData] = []  # complete, and not taken yet
        self._run: _SpanRecord | None = None
        self._run_id = self._trace_id = self._root = self._version = ""
        self._origin_ns = self._last_ns = 0
        self._phases = 0

    def add(self, envelope: Envelope) -> None:
        """Take one event, in the order of `seq`.

        Wall time counts from the first event on by the monotonic clock,
        so that no step of the clock shows.
        """
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
        elif isinstance(event, Spans):
            self._add_foreign(event, record or self._run)
        elif isinstance(event, KINDS) and (record or self._run):
            (record or self._run).add_event(now_ns, event)  # type: ignore[union-attr]

    def _start(self, envelope: Envelope, event: Started, now_ns: int) -> None:
        subject = event.subject
        attributes: Attributes = {
            "cleanroom.subject.kind": subject.kind,
            "cleanroom.subject.name": subject.name,
        }
        if subject.workspace:
            attributes["cleanroom.subject.workspace"] = subject.workspace
        record = self._records[envelope.span_id] = _SpanRecord(envelope, now_ns, attributes)
        if subject.kind == "run" and self._run is None:
            self._run = record
            self._root, self._version = (
                str(event.attributes.get("root", "")),
                str(event.attributes.get("version", "")),
            )
            attributes |= {
                names.PIPELINE_NAME: subject.name,
                names.PIPELINE_RUN_ID: self._run_id,
                names.PIPELINE_ACTION: "RUN",
            }
            attributes |= self._url(names.PIPELINE_RUN_URL, "")
        elif subject.kind == "phase":
            self._phases += 1
            attributes |= {names.TASK_NAME: subject.name, names.TASK_RUN_ID: envelope.span_id}
            attributes |= self._url(names.TASK_RUN_URL, f"#phase-{self._phases}")
            attributes |= {names.TASK_TYPE: subject.name} if subject.name in _TASK_TYPES else {}
            attributes |= {names.SUITE_NAME: subject.name} if subject.name == "test" else {}
        elif subject.kind == "environment":
            attributes[names.CONTAINER_NAME] = subject.name
        if linked := names.read_traceparent(str(event.attributes.get(LINK, ""))):
            record.links = (SpanLink(*linked),)
        attributes |= _span_attributes(event.attributes)

    def _finish(self, record: _SpanRecord, event: Finished, now_ns: int) -> None:
        record.ended_ns = now_ns
        record.attributes |= {"cleanroom.result": event.result} | _span_attributes(event.attributes)
        result_name = {"run": names.PIPELINE_RESULT, "phase": names.TASK_RUN_RESULT}.get(
            event.subject.kind
        )
        if result_name:
            record.attributes[result_name] = _RESULTS[event.result]
        if names.SUITE_NAME in record.attributes:
            record.attributes[names.SUITE_STATUS] = _SUITE_STATUSES[event.result]
        if event.exit_code is not None:
            record.attributes[names.EXIT_CODE] = event.exit_code
        if event.result in ("failed", "refused", "error", "timeout"):
            record.error = event.reason or event.result
            record.attributes[names.ERROR_TYPE] = event.code or event.result
        self._ready.append(record)

    def _url(self, name: str, fragment: str) -> Attributes:
        """The address of the run's page: a local run has no other."""
        if not self._root:
            return {}
        from urllib.parse import quote

        return {
            name: f"file://{quote(self._root)}/.ggen/cleanroom/runs/{quote(self._run_id)}/test_results.html{fragment}"
        }

    def _add_foreign(self, event: Spans, record: _SpanRecord | None) -> None:
        """Take complete spans that the code under test has made.

        Spans that a changed event log holds in another form are counted as dropped.
        """
        try:
            spans = from_otlp(event.resource_spans)
        except ValueError:
            if record is not None:
                record.dropped += event.count
            return
        self._foreign += spans
        self._ready += spans

    @property
    def ready(self) -> int:
        """The number of spans that are complete and were not taken yet."""
        return len(self._ready)

    def take(self) -> list[SpanData]:
        """The complete spans that were not taken yet, in the order in which they ended."""
        taken, self._ready = self._ready, []
        source = self.source()
        return [span if isinstance(span, SpanData) else self._span(span, source) for span in taken]

    def spans(self) -> list[SpanData]:
        """All spans, in the order in which they began, then those of the code under test.

        One that has not ended ends with the last event, as an error.
        """
        source = self.source()
        return [*(self._span(record, source) for record in self._records.values()), *self._foreign]

    def source(self) -> Source:
        """The source of these spans: the engine, with the resource that the settings name."""
        found: Attributes = {
            "service.name": names.SERVICE_NAME,
            "service.version": self._version,
            names.PIPELINE_RUN_ID: self._run_id,
        }
        if self._run is not None:
            found[names.PIPELINE_NAME] = self._run.subject.name
        found |= self._settings.resource
        if self._settings.service_name:
            found["service.name"] = self._settings.service_name
        return Source(
            {name: value for name, value in found.items() if value},
            names.SCOPE,
            self._version,
            names.SCHEMA_URL,
        )

    def _span(self, record: _SpanRecord, source: Source) -> SpanData:
        error = record.error if record.ended_ns is not None else _NOT_FINISHED
        return SpanData(
            trace_id=self._trace_id,
            span_id=record.span_id,
            parent_id=record.parent,
            name=clipped(record.name),
            kind=_SERVER if record.subject.kind == "run" else _INTERNAL,
            start_ns=record.began_ns,
            end_ns=self._last_ns if record.ended_ns is None else record.ended_ns,
            attributes=record.attributes,
            events=tuple(record.events),
            links=record.links,
            dropped_events=record.dropped,
            status=0 if error is None else _ERROR,
            message="" if error is None else clipped(error),
            source=source,
        )


def spans(envelopes: Iterable[Envelope], settings: Settings | None = None) -> list[SpanData]:
    """The spans of the run with these events."""
    trace = Trace(settings)
    for envelope in envelopes:
        trace.add(envelope)
    return trace.spans()


def _span_attributes(attributes: Mapping[str, str | int | float | bool]) -> Attributes:
    """An event's attributes under their names in a trace."""
    known = {"command": names.COMMAND_LINE, "pid": names.PID}
    return {
        known.get(name, f"cleanroom.{name}"): clipped(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value != "" and name != LINK
    }
