"""The metrics of one run, from its events: resources, durations, restarts, violations.

Plain values; units are UCUM's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cleanroom.evidence.tracing import names
from cleanroom.evidence.tracing.span import Attributes, Source
from cleanroom.model.events import Envelope, Event, Finished, Metric, Recovery, Started, Violation

KINDS: tuple[type[Event], ...] = (Started, Finished, Metric, Recovery, Violation)
# per environment; beyond that every second one is dropped, so that an hour's run stays small
READINGS_MAX = 600

# name -> (kind, unit, description)
# A count is what this run adds (delta), so that runs add up wherever they are collected;
# a sum is read again and again while the run goes on.
TABLE: dict[str, tuple[Literal["count", "sum", "gauge", "histogram"], str, str]] = {
    "cicd.pipeline.run.duration": ("histogram", "s", "Duration of the run"),
    "cicd.pipeline.run.errors": ("count", "{error}", "Runs that did not pass, by type of error"),
    "cleanroom.phase.duration": ("histogram", "s", "Duration of a phase"),
    "cleanroom.service.ready.duration": (
        "histogram",
        "s",
        "From a service's start until it answered",
    ),
    "cleanroom.service.restarts": ("count", "{restart}", "Restarts of services"),
    "cleanroom.violations": ("count", "{attempt}", "Attempts against the policy"),
    "container.cpu.time": ("sum", "s", "CPU time used by an environment"),
    "container.memory.usage": ("gauge", "By", "Memory used by an environment"),
    "container.filesystem.usage": ("gauge", "By", "Written by an environment to its layers"),
    "container.network.io": ("sum", "By", "Sent and received by an environment"),
    "cleanroom.environment.processes": ("gauge", "{process}", "Processes of an environment"),
}


def shared(source: Source) -> Source:
    """The source without the run's id, so that the runs of a project are one series."""
    return msgspec.structs.replace(
        source,
        resource={
            name: value for name, value in source.resource.items() if name != names.PIPELINE_RUN_ID
        },
    )


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a metric. `start_ns` is when its counting began."""

    name: str
    value: float
    unix_ns: int
    start_ns: int
    attributes: Attributes = {}


class Metrics:
    """Collects the points of one run."""

    def __init__(self) -> None:
        self._origin_ns = self._start_ns = 0
        self._project = ""
        self._readings: dict[str, list[tuple[int, Metric]]] = {}
        self._durations: list[Point] = []
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, int]] = {}

    def add(self, envelope: Envelope) -> None:
        """Take one event, in the order of `seq`; times as in the run's spans."""
        if not self._origin_ns:
            self._origin_ns, self._start_ns = (
                envelope.time_unix_ns - envelope.monotonic_ns,
                envelope.time_unix_ns,
            )
        now_ns = self._origin_ns + envelope.monotonic_ns
        match envelope.event:
            case Started(subject=subject) if subject.kind == "run":
                self._project = subject.name
            case Finished() as event:
                self._finish(event, now_ns)
            case Metric() as event:
                self._add_reading(event, now_ns)
            case Recovery(subject=subject, action="restarted"):
                self._count(
                    "cleanroom.service.restarts", now_ns, 1, {"cleanroom.service": subject.name}
                )
            case Violation() as event:
                self._count(
                    "cleanroom.violations",
                    now_ns,
                    event.count,
                    {
                        "security_rule.name": event.rule,
                        "security_rule.category": event.dimension,
                        "cleanroom.violation.severity": event.severity,
                    },
                )

    def _finish(self, event: Finished, now_ns: int) -> None:
        subject, seconds = event.subject, event.duration_seconds
        failed = (
            {names.ERROR_TYPE: event.code or event.result}
            if event.result not in ("passed", "skipped")
            else {}
        )
        if subject.kind == "run":
            self._add_duration(
                "cicd.pipeline.run.duration",
                seconds,
                now_ns,
                {"cicd.pipeline.run.state": "finalizing"} | failed,
            )
            if failed:
                self._count("cicd.pipeline.run.errors", now_ns, 1, failed)
        elif subject.kind == "phase" and event.result != "skipped":
            self._add_duration(
                "cleanroom.phase.duration",
                seconds,
                now_ns,
                {names.TASK_NAME: subject.name, "cleanroom.result": event.result},
            )
        elif subject.kind == "readiness" and event.result == "passed":
            self._add_duration(
                "cleanroom.service.ready.duration",
                seconds,
                now_ns,
                {"cleanroom.service": subject.name},
            )

    def _add_reading(self, event: Metric, now_ns: int) -> None:
        readings = self._readings.setdefault(event.environment, [])
        readings.append((now_ns, event))
        if len(readings) > READINGS_MAX:
            del readings[1:-1:2]  # the first and the newest stay

    def _add_duration(
        self, name: str, value: float, now_ns: int, attributes: dict[str, str]
    ) -> None:
        self._durations.append(
            Point(
                name=name,
                value=value,
                unix_ns=now_ns,
                start_ns=self._start_ns,
                attributes={**attributes},
            )
        )

    def _count(self, name: str, now_ns: int, value: float, attributes: dict[str, str]) -> None:
        key = name, tuple(sorted(attributes.items()))
        self._counts[key] = self._counts.get(key, (0, 0))[0] + value, now_ns

    def points(self) -> list[Point]:
        """All points so far, with the project's name on each."""
        counted = [
            Point(
                name=name,
                value=value,
                unix_ns=at_ns,
                start_ns=self._start_ns,
                attributes=dict(attributes),
            )
            for (name, attributes), (value, at_ns) in self._counts.items()
        ]
        read = [
            point
            for readings in self._readings.values()
            for at_ns, event in readings
            for point in self._points(event, at_ns)
        ]
        common: Attributes = {names.PIPELINE_NAME: self._project}
        return [
            msgspec.structs.replace(point, attributes=common | point.attributes)
            for point in (*self._durations, *counted, *read)
        ]

    def _points(self, event: Metric, at_ns: int) -> list[Point]:
        values: dict[str, float] = {
            "container.cpu.time": event.cpu_seconds,
            "container.memory.usage": event.memory_bytes,
            "container.filesystem.usage": event.disk_bytes,
            "container.network.io": event.network_bytes,
            "cleanroom.environment.processes": event.processes,
        }
        attributes: Attributes = {names.CONTAINER_NAME: event.environment}
        return [
            Point(
                name=name,
                value=value,
                unix_ns=at_ns,
                start_ns=self._start_ns,
                attributes=attributes,
            )
            for name, value in values.items()
        ]
