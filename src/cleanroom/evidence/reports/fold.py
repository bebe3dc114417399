"""From events to the result of a run.

Pure: the same events give the same result, whether they come from a live run or from
`events.jsonl`.

`docs/events.md` has the table of what is read from which event.
Each part of a result has a module beside this one.
Memory stays flat: of output only a short tail is kept, readings are thinned, and equal violations
are one row.
`reports` and `audit_head` are about files; whoever writes those adds them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.evidence.reports.curves import Curve
from cleanroom.evidence.reports.file_results import FileResults
from cleanroom.evidence.reports.phase_results import NOT_FINISHED, PhaseResults
from cleanroom.evidence.reports.proof_results import ProofResults
from cleanroom.evidence.reports.result import LedgerResult, NoteResult, Outcome, RunResult
from cleanroom.evidence.reports.service_results import ServiceResults
from cleanroom.evidence.reports.spans import Attributes, OpenSpans, RunTimes, Span
from cleanroom.evidence.reports.text import with_code
from cleanroom.evidence.reports.violation_results import ROWS_MAX, Owner, ViolationResults, owner
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

__all__ = ["NOT_FINISHED", "ROWS_MAX", "ResultBuilder", "fold"]

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


def fold(envelopes: Iterable[Envelope]) -> RunResult:
    """The result of the run with these events."""
    builder = ResultBuilder()
    for envelope in envelopes:
        builder.add(envelope)
    return builder.result()


class ResultBuilder:
    """Builds a result, one event at a time."""

    def __init__(self) -> None:
        self._run: Span | None = None
        self._run_id = self._trace_id = ""
        self._started_unix_ns = 0
        self._times = RunTimes()
        self._open = OpenSpans()
        # attributes of environments' spans, by the environments' ids
        self._environments: dict[str, Attributes] = {}
        # the workspaces of their phases, by the same ids
        self._workspaces: dict[str, str] = {}
        self._phases = PhaseResults(self._times)
        self._services = ServiceResults(self._times)
        self._violations = ViolationResults()
        self._proof = ProofResults()
        self._files = FileResults()
        self._curves: dict[str, Curve] = {}
        self._recoveries: list[str] = []
        self._notes: list[NoteResult] = []
        self._ledger = LedgerResult()

    def add(self, envelope: Envelope) -> None:
        """Take one event, in the order of `seq`."""
        times = self._times
        if not times.began_ns:
            times.began_ns, self._started_unix_ns = envelope.monotonic_ns, envelope.time_unix_ns
            self._run_id, self._trace_id = envelope.run_id, envelope.trace_id
        times.last_ns = envelope.monotonic_ns
        match envelope.event:
            case Started() as event:
                self._start(envelope, event)
            case Finished() as event:
                self._finish(envelope, event)
            case Output() as event:
                self._phases.add_output(envelope, event)
            case Metric() as event:
                curve = self._curves.setdefault(event.environment, Curve())
                curve.add(times.seconds(envelope.monotonic_ns), event)
            case Violation() as event:
                self._violations.add(event, self._owner(envelope, event))
            case Assertion() as event:
                self._proof.add(event)
            case Recovery() as event:
                self._add_recovery(event)
            case Artifact() as event:
                self._files.add(event)
            case Capability(report=report):
                self._proof.capability = report
            case Ledger() as event:
                self._ledger = LedgerResult(
                    created=event.created, removed=event.removed, held=event.held, left=event.left
                )
            case Attached() as event:
                self._services.attach(envelope, event)
            case Note() as event:
                self._add_note(event)

    def _start(self, envelope: Envelope, event: Started) -> None:
        span = self._open.begin(envelope, event)
        self._phases.begin(envelope, span)
        match event.subject.kind:
            case "run":
                self._run = self._run or span
            case "environment":
                name = event.subject.name
                self._environments[name] = span.attributes
                self._workspaces[name] = self._phases.phase_of(envelope.span_id)[1]
            case "service":
                self._services.begin(span)

    def _finish(self, envelope: Envelope, event: Finished) -> None:
        span = self._open.end(envelope, event)
        if span is None:
            if event.subject.kind == "phase":
                self._phases.add_skipped(envelope, event)
            return
        self._phases.end(envelope, span)
        if event.subject.kind == "readiness" and event.result == "passed":
            self._services.add_ready(envelope, event)

    def _owner(self, envelope: Envelope, event: Violation) -> Owner:
        """Which phase a violation belongs to, else which service."""
        identity = event.environment
        workspace = self._workspaces.get(identity, "")
        found = owner(event, self._environments.get(identity, {}), workspace)
        if found.phase or found.service:
            return found
        name, workspace = self._phases.phase_of(envelope.span_id)
        return Owner(phase=name, workspace=workspace)

    def _add_recovery(self, event: Recovery) -> None:
        if event.subject.kind == "service":
            self._services.add_recovery(event)
        if len(self._recoveries) < ROWS_MAX:
            attempt = f" (attempt {event.attempt})" if event.attempt else ""
            self._recoveries.append(
                f"{event.action.replace('_', ' ')} {event.subject}{attempt}: {event.cause}"
            )

    def _add_note(self, event: Note) -> None:
        if len(self._notes) < ROWS_MAX:
            self._notes.append(NoteResult(level=event.level, text=event.text, code=event.code))

    @property
    def dependencies_sha256(self) -> str:
        """The digest of the run's record of its dependencies; "" where it has none."""
        return self._files.dependencies_sha256

    def result(self) -> RunResult:
        """The result of the events so far.

        Before the run's end its outcome is an error, since nobody can tell how it would have
        ended.
        """
        times = self._times
        run = self._run or Span(Subject("run", ""), times.began_ns, {})
        finished = run.finished
        outcome = _OUTCOMES[finished.result] if finished else "error"
        exit_code = finished.exit_code if finished else None
        notes = self._all_notes(finished)
        duration = finished.duration_seconds if finished else times.seconds(times.last_ns)
        slo, seed = run.number("slo_seconds"), run.number("seed")
        slo_seconds = 20.0 if slo is None else float(slo)
        capability = self._proof.capability
        return RunResult(
            run_id=self._run_id,
            outcome=outcome,
            exit_code=_EXIT_CODES[outcome] if exit_code is None else exit_code,
            reason=finished.reason if finished else NOT_FINISHED,
            project=run.subject.name,
            degraded=_split(run.text("degraded")),
            backend=run.text("backend") or (capability.backend if capability else ""),
            tier=run.text("tier") or (capability.tier if capability else ""),
            policy=run.text("policy"),
            environment=run.text("environment"),
            requested=_split(run.text("requested")),
            phases=self._phases.results(),
            services=self._services.results(),
            canaries=self._proof.canaries(),
            capabilities=self._proof.dimensions(self._violations.lossy),
            violations=self._violations.rows("violation", "tolerated"),
            notices=self._violations.rows("notice"),
            recoveries=tuple(self._recoveries),
            notes=tuple(map(_note_line, notes)),
            note_details=notes,
            ledger=self._ledger,
            duration_seconds=duration,
            engine_seconds=self._phases.engine_seconds(run, duration),
            slo_seconds=slo_seconds,
            slo_met=duration <= slo_seconds,
            seed=42 if seed is None else int(seed),
            trace_id=self._trace_id,
            version=run.text("version"),
            started_unix_ns=self._started_unix_ns,
            resources=tuple(
                curve.result(name, self._subject_of(name)) for name, curve in self._curves.items()
            ),
            brought_back=dict(self._files.brought_back),
            reports=dict(self._files.reports),
            error=_error(finished),
            autorun=tuple(self._files.autorun),
            dry_run=bool(run.attributes.get("dry_run")),
            would_change=tuple(row for _, row in sorted(self._files.would_change.items())),
        )

    def _all_notes(self, finished: Finished | None) -> tuple[NoteResult, ...]:
        end = () if finished else (NOT_FINISHED,)
        added = (*self._violations.notes(), *end)
        return (*self._notes, *(NoteResult(level="warning", text=text) for text in added))

    def _subject_of(self, environment: str) -> str:
        """Role and name of what an environment is for."""
        attributes = self._environments.get(environment, {})
        return " ".join(str(attributes[name]) for name in ("role", "of") if attributes.get(name))


def _note_line(note: NoteResult) -> str:
    text = with_code(note.text, note.code)
    return f"DEGRADED: {text}" if note.level == "degraded" else text


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
