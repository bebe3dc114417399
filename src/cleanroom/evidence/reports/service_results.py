"""The services of a result, each over all its starts."""

from __future__ import annotations

from cleanroom.evidence.reports.phase_results import NOT_FINISHED
from cleanroom.evidence.reports.result import ServiceResult
from cleanroom.evidence.reports.spans import RunTimes, Span
from cleanroom.model.events import Attached, Envelope, Finished, Recovery, Subject


class _Service:
    """What is known of one service by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spans: list[Span] = []
        # when it was ready for the first time, and how long that start took
        self.ready_ns: int | None = None
        self.ready_seconds: float | None = None
        self.restarts = 0
        # why it was given up
        self.given_up = ""
        # set where a session or a pool has it
        self.attached: Attached | None = None
        self.attached_ns = 0


class ServiceResults:
    """Takes the spans of services and what happens to them."""

    def __init__(self, times: RunTimes) -> None:
        self._times = times
        self._services: dict[str, _Service] = {}

    def _service(self, name: str) -> _Service:
        return self._services.setdefault(name, _Service(name))

    def begin(self, span: Span) -> None:
        """A start of a service has begun."""
        self._service(span.subject.name).spans.append(span)

    def add_ready(self, envelope: Envelope, event: Finished) -> None:
        """A readiness has passed; only the first one of a service counts."""
        service = self._service(event.subject.name)
        if service.ready_ns is None:
            service.ready_ns = envelope.monotonic_ns
            service.ready_seconds = event.duration_seconds

    def add_recovery(self, event: Recovery) -> None:
        service = self._service(event.subject.name)
        service.restarts += event.action == "restarted"
        if event.action == "gave_up":
            service.given_up = event.cause

    def attach(self, envelope: Envelope, event: Attached) -> None:
        """The service is one of a session or a pool."""
        service = self._service(event.subject.name)
        service.attached, service.attached_ns = event, envelope.monotonic_ns

    def results(self) -> tuple[ServiceResult, ...]:
        """The services in the order of their first events."""
        return tuple(
            self._shared_result(service, service.attached)
            if service.attached is not None
            else self._own_result(service)
            for service in self._services.values()
        )

    def _own_result(self, service: _Service) -> ServiceResult:
        never = Span(Subject("service", service.name), self._times.began_ns, {})
        first = service.spans[0] if service.spans else never
        last = service.spans[-1] if service.spans else never
        reason = service.given_up or (last.finished.reason if last.finished else NOT_FINISHED)
        return ServiceResult(
            name=service.name,
            version=last.text("version"),
            ready_seconds=service.ready_seconds,
            ready_at_seconds=self._times.moment(service.ready_ns),
            restarts=service.restarts,
            started_seconds=self._times.seconds(first.began_ns),
            ended_seconds=self._times.seconds(last.ended_ns or self._times.last_ns),
            reason=reason,
            code=last.finished.code if last.finished else "",
            hint=last.text("hint"),
        )

    def _shared_result(self, service: _Service, attached: Attached) -> ServiceResult:
        """It is ready in the time that this run waited for it."""
        return ServiceResult(
            name=service.name,
            version=attached.version,
            held_by=attached.holder_id,
            restarts=service.restarts,
            reason=service.given_up,
            ready_seconds=service.ready_seconds,
            ready_at_seconds=self._times.moment(service.ready_ns),
            started_seconds=self._times.seconds(service.attached_ns),
            ended_seconds=self._times.seconds(self._times.last_ns),
        )
