"""What runs at a moment of a run, how long it has been running, and what it waits for.

Pure: fed with events, asked by displays.
"""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.model.events import Started, Subject

_SLOW_SECONDS = 5.0  # reported first after this long, then each time the time has doubled


class Running(NamedTuple):
    """A phase or service that has begun and not ended."""

    subject: Subject
    seconds: float
    ready: bool = False  # of a service


class Slow(NamedTuple):
    """A phase or service that has been running for longer than a threshold."""

    subject: Subject
    threshold_seconds: float
    waits_for: Subject | None  # the service that has been starting for longest


class Progress:
    """Phases and services between their Started and their Finished."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._began: dict[Subject, int] = {}  # ns of the envelopes' monotonic clock
        self._slow: dict[Subject, float] = {}  # the next threshold, in seconds
        self._ready: set[Subject] = set()
        # Phases whose first command has not begun, with the names of the services they need.
        self._needs: dict[Subject, tuple[str, ...]] = {}

    def advance(self, now_ns: int) -> None:
        """Move the time on; an earlier time changes nothing."""
        self._now_ns = max(self._now_ns, now_ns)

    def start(self, event: Started, at_ns: int) -> None:
        """A phase or service began."""
        self._began[event.subject] = at_ns
        self._slow[event.subject] = _SLOW_SECONDS
        if event.subject.kind == "phase":
            services = str(event.attributes.get("services", ""))
            self._needs[event.subject] = tuple(services.split(","))

    def start_command(self, phase: Subject) -> None:
        """A command of `phase` began: the phase waits for no service any more."""
        self._needs.pop(phase, None)

    def set_ready(self, service: Subject) -> None:
        self._ready.add(service)

    def stop_timing(self, service: Subject) -> None:
        """No longer report `service` as slow."""
        self._slow.pop(service, None)

    def end(self, subject: Subject) -> None:
        self._began.pop(subject, None)
        self._slow.pop(subject, None)
        self._needs.pop(subject, None)
        self._ready.discard(subject)

    def is_running(self, subject: Subject) -> bool:
        return subject in self._began

    def running(self) -> list[Running]:
        """All that runs now, in the order in which it began."""
        return [
            Running(subject, self._seconds(subject), subject in self._ready)
            for subject in self._began
        ]

    def awaited(self) -> Running | None:
        """What the run waits for, the slowest of it: a phase that runs commands,
        or a service that a phase cannot begin without.
        """
        found = [
            blamed
            for subject in self._began
            if subject.kind == "phase"
            for blamed in (self._awaited_services(subject) or [subject])
        ]
        slowest = max(found, key=self._seconds, default=None)
        return Running(slowest, self._seconds(slowest)) if slowest else None

    def pass_thresholds(self, now_ns: int) -> list[Slow]:
        """What has been running for longer than its threshold; each threshold is doubled."""
        self.advance(now_ns)
        found = []
        for subject, threshold in self._slow.items():
            passed = (now_ns - self._began[subject]) / 1e9
            if passed < threshold:
                continue
            while threshold * 2 <= passed:
                threshold *= 2
            self._slow[subject] = threshold * 2
            waits_for = max(self._awaited_services(subject), key=self._seconds, default=None)
            found.append(Slow(subject, threshold, waits_for))
        return found

    def _awaited_services(self, phase: Subject) -> list[Subject]:
        """The services that this phase needs and that are not ready."""
        return [
            service
            for service in self._began
            if service.kind == "service"
            and service.name in self._needs.get(phase, ())
            and service not in self._ready
        ]

    def _seconds(self, subject: Subject) -> float:
        return max(self._now_ns - self._began[subject], 0) / 1e9
