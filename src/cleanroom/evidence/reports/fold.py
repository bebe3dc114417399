"""From events to the result of a run.

Pure: the same events give the same result, whether they come from a live run or from
`events.jsonl`.

What is read from which event is the table of `docs/events.md`.
Memory stays flat: output is kept as a short tail, readings are thinned, violations are folded.
`reports` and `audit_head` are about files and are added by whoever writes those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from cleanroom.evidence.reports.curves import Curve
from cleanroom.evidence.reports.result import (
    AutorunResult,
    CanaryResult,
    LedgerResult,
    Outcome,
    PhaseResult,
    RunResult,
    ServiceResult,
    ViolationResult,
)
from cleanroom.evidence.reports.tail import Tail
from cleanroom.model.capability import Canary, CapabilityReport, DimensionReport, verified
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Attached,
    Capability,
    Envelope,
    Finished,
    Ledger,
    Metric,
    Note,
    Output,
    Recovery,
    Started,
    Subject,
    Violation,
)

Attributes = dict[str, str | int | float | bool]
ViolationKey = tuple[str, str, str, str, str]

# distinct violations, and notes: more than a person reads,
# little enough that a flood cannot fill memory or a report
ROWS_MAX = 1000
NOT_FINISHED = "not finished: the events end here"

_OUTCOMES: dict[str, Outcome] = {
    "passed": "passed",
    "failed": "failed",
    "refused": "refused",
    "unverified": "unverified",
    "skipped": "unverified",
    "error": "error",
    "timeout": "timeout",
    "cancelled": "interrupted",
}
_EXIT_CODES: dict[Outcome, int] = {
    "passed": 0,
    "failed": 1,
    "refused": 3,
    "unverified": 4,
    "error": 5,
    "timeout": 124,
    "interrupted": 130,
}
_REPORT_ROLES = {
    "report.json": "json",
    "report.junit": "junit",
    "report.html": "html",
    "events": "events",
    "trace": "trace",
    "audit": "audit",
}


def fold(envelopes: Iterable[Envelope]) -> RunResult:
    """The result that these events tell."""
    builder = ResultBuilder()
    for envelope in envelopes:
        builder.add(envelope)
    return builder.result()


class _Span:
    """What has begun and may have ended. The subject's attributes are those of both its ends."""

    def __init__(self, subject: Subject, began_ns: int, attributes: Attributes) -> None:
        self.subject = subject
        self.began_ns = began_ns
        self.ended_ns: int | None = None
        self.attributes = dict(attributes)
        self.finished: Finished | None = None
        self.tail = Tail()

    def end(self, event: Finished, at_ns: int) -> None:
        self.finished = event
        self.ended_ns = at_ns
        self.attributes.update(event.attributes)

    def text(self, name: str, default: str = "") -> str:
        return str(self.attributes.get(name, default))

    def number(self, name: str) -> int | float | None:
        """None where it is not there, or no number."""
        value = self.attributes.get(name)
        return None if isinstance(value, str | bool) else value


class _Service:
    """One service by name, over all its starts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spans: list[_Span] = []
        self.ready_ns: int | None = None  # when it was for the first time
        self.ready_seconds: float | None = None  # how long that start took
        self.restarts = 0
        self.given_up = ""
        self.attached: Attached | None = None  # another process holds it
        self.attached_ns = 0


class ResultBuilder:
    """The same, one event at a time."""

    def __init__(self) -> None:
        self._run: _Span | None = None
        self._run_id = self._trace_id = ""
        self._began_ns = self._began_unix_ns = self._last_ns = 0
        self._phases: list[_Span] = []
        self._phase_of: dict[str, _Span] = {}  # id of every open span inside a phase
        self._open: dict[str, _Span] = {}
        self._environments: dict[str, Attributes] = {}
        self._services: dict[str, _Service] = {}
        self._canaries: list[CanaryResult] = []
        self._capability: CapabilityReport | None = None
        self._violations: dict[ViolationKey, ViolationResult] = {}
        self._violations_dropped = 0
        self._lossy: set[str] = set()  # dimensions of which not every attempt was told apart
        self._recoveries: list[str] = []
        self._notes: list[str] = []
        self._ledger = LedgerResult()
        self._curves: dict[str, Curve] = {}
        self._brought_back: dict[str, int] = {}
        self._autorun: list[AutorunResult] = []
        self._reports: dict[str, str] = {}
        self._commands_open = 0
        self._commands_since_ns = self._commands_ns = 0

    def add(self, envelope: Envelope) -> None:
        """Take one event, in the order of `seq`."""
        if not self._began_ns:
            self._began_ns, self._began_unix_ns = envelope.monotonic_ns, envelope.time_unix_ns
            self._run_id, self._trace_id = envelope.run_id, envelope.trace_id
        self._last_ns = envelope.monotonic_ns
        match envelope.event:
            case Started() as event:
                self._started(envelope, event)
            case Finished() as event:
                self._finished(envelope, event)
            case Output() as event:
                self._output(envelope, event)
            case Metric() as event:
                self._curves.setdefault(event.environment, Curve()).add(
                    self._seconds(envelope.monotonic_ns), event
                )
            case Violation() as event:
                self._violation(envelope, event)
            case Assertion() as event:
                self._assertion(event)
            case Recovery() as event:
                self._recovery(event)
            case Artifact() as event:
                self._artifact(event)
            case Capability(report=report):
                self._capability = report
            case Ledger() as event:
                self._ledger = LedgerResult(
                    created=event.created, removed=event.removed, held=event.held, left=event.left
                )
            case Attached() as event:
                service = self._service(event.subject.name)
                service.attached, service.attached_ns = event, envelope.monotonic_ns
            case Note() as event:
                self._note(event)

    def _started(self, envelope: Envelope, event: Started) -> None:
        span = _Span(event.subject, envelope.monotonic_ns, event.attributes)
        self._open[envelope.span_id] = span
        phase = span if event.subject.kind == "phase" else self._phase_of.get(envelope.parent)
        if phase is not None:
            self._phase_of[envelope.span_id] = phase
        match event.subject.kind:
            case "run":
                self._run = self._run or span
            case "phase":
                self._phases.append(span)
            case "environment":
                self._environments[event.subject.name] = span.attributes
            case "service":
                self._service(event.subject.name).spans.append(span)
            case "command" if phase is not None:
                if not self._commands_open:
                    self._commands_since_ns = envelope.monotonic_ns
                self._commands_open += 1

    def _finished(self, envelope: Envelope, event: Finished) -> None:
        span = self._open.get(envelope.span_id)
        if span is None or span.subject != event.subject:  # it never started: a skipped phase
            if event.subject.kind == "phase":
                never = _Span(event.subject, envelope.monotonic_ns, {})
                never.end(event, envelope.monotonic_ns)
                self._phases.append(never)
            return
        del self._open[envelope.span_id]
        phase = self._phase_of.pop(envelope.span_id, None)
        span.end(event, envelope.monotonic_ns)
        if event.result == "passed":
            span.tail.clear()
        if event.subject.kind == "readiness" and event.result == "passed":
            service = self._service(event.subject.name)
            if service.ready_ns is None:
                service.ready_ns, service.ready_seconds = (
                    envelope.monotonic_ns,
                    event.duration_seconds,
                )
        if event.subject.kind == "command" and phase is not None:
            self._commands_open -= 1
            if not self._commands_open:
                self._commands_ns += envelope.monotonic_ns - self._commands_since_ns

    def _output(self, envelope: Envelope, event: Output) -> None:
        phase = self._phase_of.get(envelope.span_id)
        if phase is not None and event.subject.kind in ("phase", "command"):
            phase.tail.add(event.text)

    def _service(self, name: str) -> _Service:
        return self._services.setdefault(name, _Service(name))

    def _violation(self, envelope: Envelope, event: Violation) -> None:
        phase, service = self._owner_of(envelope, event)
        if "dropped" in event.tags:
            self._lossy.add(event.dimension)
        who = (event.process.exe or str(event.process.pid)) if event.process else ""
        key = (event.severity, event.rule, who, str(event.target), phase or service)
        known = self._violations.get(key)
        if known is not None:
            self._violations[key] = msgspec.structs.replace(known, count=known.count + event.count)
        elif len(self._violations) >= ROWS_MAX:
            self._violations_dropped += 1
        else:
            self._violations[key] = violation_row(event, phase, service)

    def _owner_of(self, envelope: Envelope, event: Violation) -> tuple[str, str]:
        """Which phase a violation belongs to, else which service; the other is empty."""
        found = owner(event, self._environments.get(event.environment, {}))
        span = self._phase_of.get(envelope.span_id)
        return found if any(found) or span is None else (span.subject.name, "")

    def _assertion(self, event: Assertion) -> None:
        if event.subject.kind == "canary":
            self._canaries.append(
                CanaryResult(
                    name=event.name,
                    dimension=event.dimension,
                    expected=event.expected,
                    result="passed" if event.passed else "failed",
                    found=event.found,
                    rule=event.rule,
                    environment=event.environment,
                )
            )

    def _recovery(self, event: Recovery) -> None:
        if event.subject.kind == "service":
            service = self._service(event.subject.name)
            service.restarts += event.action == "restarted"
            if event.action == "gave_up":
                service.given_up = event.cause
        if len(self._recoveries) < ROWS_MAX:
            attempt = f" (attempt {event.attempt})" if event.attempt else ""
            self._recoveries.append(
                f"{event.action.replace('_', ' ')} {event.subject}{attempt}: {event.cause}"
            )

    def _artifact(self, event: Artifact) -> None:
        if event.role == "changes":
            counts = {"files": event.files, "bytes": event.bytes, "deleted": event.deleted}
            _sum(self._brought_back, counts)
        elif event.role == "autorun":
            _sum(self._brought_back, {"autorun": event.files})
            self._autorun += _autorun_rows(event)[: ROWS_MAX - len(self._autorun)]
        elif event.role == "conflict":
            _sum(self._brought_back, {"conflicts": event.files})
        elif event.role in _REPORT_ROLES:
            self._reports[_REPORT_ROLES[event.role]] = event.path

    def _note(self, event: Note) -> None:
        if len(self._notes) < ROWS_MAX:
            text = f"{event.text} [{event.code}]" if event.code else event.text
            self._notes.append(f"DEGRADED: {text}" if event.level == "degraded" else text)

    def _seconds(self, monotonic_ns: int) -> float:
        return round((monotonic_ns - self._began_ns) / 1e9, 6)

    def _moment(self, monotonic_ns: int | None) -> float | None:
        return None if monotonic_ns is None else self._seconds(monotonic_ns)

    def result(self) -> RunResult:
        """What is known by now; before the run's end that is an error,
        since nobody can tell how it would have gone on.
        """
        run = self._run or _Span(Subject("run", ""), self._began_ns, {})
        finished = run.finished
        outcome = _OUTCOMES[finished.result] if finished else "error"
        exit_code = finished.exit_code if finished else None
        duration = finished.duration_seconds if finished else self._seconds(self._last_ns)
        slo, seed = run.number("slo_seconds"), run.number("seed")
        slo = 20.0 if slo is None else float(slo)
        report = self._capability
        return RunResult(
            run_id=self._run_id,
            outcome=outcome,
            exit_code=_EXIT_CODES[outcome] if exit_code is None else exit_code,
            reason=finished.reason if finished else NOT_FINISHED,
            project=run.subject.name,
            degraded=_split(run.text("degraded")),
            backend=run.text("backend") or (report.backend if report else ""),
            tier=run.text("tier") or (report.tier if report else ""),
            policy=run.text("policy"),
            environment=run.text("environment"),
            requested=_split(run.text("requested")),
            phases=tuple(self._phase_result(span) for span in self._phases),
            services=tuple(self._service_result(service) for service in self._services.values()),
            canaries=tuple(self._canaries),
            capabilities=self._dimensions(),
            violations=self._rows("violation", "tolerated"),
            notices=self._rows("notice"),
            recoveries=tuple(self._recoveries),
            notes=self._all_notes(finished),
            ledger=self._ledger,
            duration_seconds=duration,
            engine_seconds=self._engine_seconds(run, duration),
            slo_seconds=slo,
            slo_met=duration <= slo,
            seed=42 if seed is None else int(seed),
            trace_id=self._trace_id,
            version=run.text("version"),
            started_unix_ns=self._began_unix_ns,
            resources=tuple(
                curve.result(name, self._owner(name)) for name, curve in self._curves.items()
            ),
            brought_back=dict(self._brought_back),
            reports=dict(self._reports),
            error=_error(finished),
            autorun=tuple(self._autorun),
        )

    def _all_notes(self, finished: Finished | None) -> tuple[str, ...]:
        dropped = self._violations_dropped
        flood = (
            (
                (
                    f"{dropped} more violation events are only in the event log: a report holds "
                    f"{ROWS_MAX} distinct ones"
                ),
            )
            if dropped
            else ()
        )
        return (*self._notes, *flood, *(() if finished else (NOT_FINISHED,)))

    def _engine_seconds(self, run: _Span, duration: float) -> float:
        busy_ns = self._commands_ns
        if self._commands_open:
            busy_ns += (run.ended_ns or self._last_ns) - self._commands_since_ns
        return round(max(0.0, duration - busy_ns / 1e9), 6)

    def _phase_result(self, span: _Span) -> PhaseResult:
        finished = span.finished
        budget = span.number("budget_seconds")
        return PhaseResult(
            name=span.subject.name,
            workspace=span.subject.workspace,
            result=finished.result if finished else "error",
            hermetic=span.attributes.get("hermetic") is True,  # unsaid is not a claim
            host=span.attributes.get("host") is True,
            policy="" if span.attributes.get("host") is True else span.text("policy"),
            exit_code=finished.exit_code if finished else None,
            duration_seconds=finished.duration_seconds
            if finished
            else self._seconds(self._last_ns) - self._seconds(span.began_ns),
            budget_seconds=float(budget) if budget is not None else None,
            role=span.text("role", "phase"),
            started_seconds=self._seconds(span.began_ns),
            reason=finished.reason if finished else NOT_FINISHED,
            log=span.text("log"),
            cached_run=span.text("cached_run"),
            cache=span.text("cache"),
            excerpt=span.tail.lines(),
        )

    def _service_result(self, service: _Service) -> ServiceResult:
        if service.attached is not None:
            return self._held_result(service, service.attached)
        first = (
            service.spans[0]
            if service.spans
            else _Span(Subject("service", service.name), self._began_ns, {})
        )
        last = service.spans[-1] if service.spans else first
        reason = service.given_up or (last.finished.reason if last.finished else NOT_FINISHED)
        return ServiceResult(
            name=service.name,
            version=last.text("version"),
            ready_seconds=service.ready_seconds,
            ready_at_seconds=self._moment(service.ready_ns),
            restarts=service.restarts,
            started_seconds=self._seconds(first.began_ns),
            ended_seconds=self._seconds(last.ended_ns or self._last_ns),
            reason=reason,
        )

    def _held_result(self, service: _Service, attached: Attached) -> ServiceResult:
        """Ready in the time that this run waited for it."""
        return ServiceResult(
            name=service.name,
            version=attached.version,
            held_by=attached.holder_id,
            restarts=service.restarts,
            reason=service.given_up,
            ready_seconds=service.ready_seconds,
            ready_at_seconds=self._moment(service.ready_ns),
            started_seconds=self._seconds(service.attached_ns),
            ended_seconds=self._seconds(self._last_ns),
        )

    def _dimensions(self) -> tuple[DimensionReport, ...]:
        if self._capability is None:
            return ()
        rows = verified(self._capability, tuple(_canary(row) for row in self._canaries)).dimensions
        return tuple(
            msgspec.structs.replace(row, completeness="lossy")
            if row.dimension in self._lossy
            else row
            for row in rows
        )

    def _rows(self, *severities: str) -> tuple[ViolationResult, ...]:
        return tuple(row for row in self._violations.values() if row.severity in severities)

    def _owner(self, environment: str) -> str:
        attributes = self._environments.get(environment, {})
        return " ".join(str(attributes[name]) for name in ("role", "of") if attributes.get(name))


def owner(event: Violation, environment: Attributes) -> tuple[str, str]:
    """The phase that a violation belongs to, or the service;
    `environment` is what its Started said of its environment.
    """
    if event.subject.kind == "phase":
        return event.subject.name, ""
    name = str(environment.get("of", ""))
    return (name, "") if environment.get("role") == "phase" else ("", name)


def violation_row(event: Violation, phase: str = "", service: str = "") -> ViolationResult:
    """An event as the row that it becomes in the result."""
    return ViolationResult(
        rule=event.rule,
        action=event.outcome,
        certainty=event.certainty,
        mechanism=event.mechanism,
        process=event.process,
        target=event.target,
        count=event.count,
        severity=event.severity,
        dimension=event.dimension,
        phase=phase,
        service=service,
        environment=event.environment,
        syscall=event.syscall,
        errno=event.errno,
        attribution_gap=event.attribution_gap,
        tags=event.tags,
        reason=event.reason,
    )


def _canary(row: CanaryResult) -> Canary:
    result: Literal["passed", "failed"] = "passed" if row.result == "passed" else "failed"
    return Canary(
        name=row.name,
        dimension=row.dimension,  # type: ignore[arg-type]
        rule=row.rule,
        expected=row.expected,
        found=row.found,
        result=result,
    )


def _error(finished: Finished | None) -> dict[str, str]:
    if finished is None or not finished.code:
        return {}
    return {
        "code": finished.code,
        "message": finished.reason,
        "hint": str(finished.attributes.get("hint", "")),
    }


def _split(joined: str) -> tuple[str, ...]:
    return tuple(part for part in joined.split(",") if part)


def _autorun_rows(event: Artifact) -> list[AutorunResult]:
    phase, workspace = event.subject.name, event.subject.workspace
    return [
        AutorunResult(path=path, by=by, phase=phase, workspace=workspace)
        for path, by in event.autorun.items()
    ]


def _sum(totals: dict[str, int], further: Mapping[str, int]) -> None:
    for name, number in further.items():
        totals[name] = totals.get(name, 0) + number
