"""The phases of a result, and the time in which none of their commands ran."""

from __future__ import annotations

from cleanroom.evidence.reports.result import PhaseResult
from cleanroom.evidence.reports.spans import RunTimes, Span
from cleanroom.model.events import Envelope, Finished, Output

NOT_FINISHED = "not finished: the events end here"


class PhaseResults:
    """Takes spans of phases and of everything inside them."""

    def __init__(self, times: RunTimes) -> None:
        self._times = times
        self._phases: list[Span] = []
        # id of every open span inside a phase -> that phase
        self._phase_of: dict[str, Span] = {}
        self._commands_open = 0
        # when the first of the open commands began, and time with one open before
        self._commands_since_ns = self._commands_ns = 0

    def begin(self, envelope: Envelope, span: Span) -> None:
        """Any span has begun."""
        kind = span.subject.kind
        phase = span if kind == "phase" else self._phase_of.get(envelope.parent)
        if phase is None:
            return
        self._phase_of[envelope.span_id] = phase
        if kind == "phase":
            self._phases.append(span)
        elif kind == "command":
            if not self._commands_open:
                self._commands_since_ns = envelope.monotonic_ns
            self._commands_open += 1

    def end(self, envelope: Envelope, span: Span) -> None:
        """A span that `begin` has taken has ended."""
        phase = self._phase_of.pop(envelope.span_id, None)
        if span.subject.kind == "command" and phase is not None:
            self._commands_open -= 1
            if not self._commands_open:
                self._commands_ns += envelope.monotonic_ns - self._commands_since_ns

    def add_skipped(self, envelope: Envelope, event: Finished) -> None:
        """A phase that never began."""
        span = Span(event.subject, envelope.monotonic_ns, {})
        span.end(event, envelope.monotonic_ns)
        self._phases.append(span)

    def add_output(self, envelope: Envelope, event: Output) -> None:
        phase = self._phase_of.get(envelope.span_id)
        if phase is not None and event.subject.kind in ("phase", "command"):
            phase.tail.add(event.text)

    def phase_of(self, span_id: str) -> tuple[str, str]:
        """Name and workspace of the phase in which this open span lies; empty where in none."""
        phase = self._phase_of.get(span_id)
        return (phase.subject.name, phase.subject.workspace) if phase is not None else ("", "")

    def engine_seconds(self, run: Span, duration_seconds: float) -> float:
        """The run's duration without the union of the times in which a command was open."""
        busy_ns = self._commands_ns
        if self._commands_open:
            busy_ns += (run.ended_ns or self._times.last_ns) - self._commands_since_ns
        return round(max(0.0, duration_seconds - busy_ns / 1e9), 6)

    def results(self) -> tuple[PhaseResult, ...]:
        return tuple(self._result(span) for span in self._phases)

    def _result(self, span: Span) -> PhaseResult:
        finished, times = span.finished, self._times
        budget = span.number("budget_seconds")
        on_host = span.attributes.get("host") is True
        began = times.seconds(span.began_ns)
        so_far = times.seconds(times.last_ns) - began
        return PhaseResult(
            name=span.subject.name,
            workspace=span.subject.workspace,
            result=finished.result if finished else "error",
            hermetic=span.attributes.get("hermetic") is True,  # a missing attribute is no claim
            host=on_host,
            policy="" if on_host else span.text("policy"),
            exit_code=finished.exit_code if finished else None,
            duration_seconds=finished.duration_seconds if finished else so_far,
            budget_seconds=float(budget) if budget is not None else None,
            role=span.text("role", "phase"),
            started_seconds=began,
            reason=finished.reason if finished else NOT_FINISHED,
            code=finished.code if finished else "",
            hint=span.text("hint"),
            log=span.text("log"),
            origin=span.text("origin"),
            cached_run=span.text("cached_run"),
            cache=span.text("cache"),
            excerpt=span.tail.lines(),
        )
