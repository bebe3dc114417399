"""The violations of a result: equal attempts are one row with their number."""

from __future__ import annotations

import msgspec

from cleanroom.evidence.reports.result import ViolationResult
from cleanroom.evidence.reports.spans import Attributes
from cleanroom.model.capability import aggregation_key
from cleanroom.model.events import Violation
from cleanroom.model.rule_codes import RULE_CODES

# Distinct violations, and other texts of a result: more than a person reads,
# few enough that a flood fills neither memory nor a report.
ROWS_MAX = 1000

# severity, phase or service, and the three parts of `aggregation_key`
ViolationKey = tuple[str, str, str, str, str]


class ViolationResults:
    """Takes violations, each with its owner."""

    def __init__(self) -> None:
        self._rows: dict[ViolationKey, ViolationResult] = {}
        self._dropped = 0
        # dimensions in which not every attempt was recorded
        self.lossy: set[str] = set()

    def add(self, event: Violation, phase: str, service: str) -> None:
        """Take a violation of this phase or service; the other is empty."""
        if "dropped" in event.tags:
            self.lossy.add(event.dimension)
        same = aggregation_key(event.rule, event.process, event.target)
        key = (event.severity, phase or service, *same)
        known = self._rows.get(key)
        if known is not None:
            self._rows[key] = msgspec.structs.replace(known, count=known.count + event.count)
        elif len(self._rows) >= ROWS_MAX:
            self._dropped += 1
        else:
            self._rows[key] = violation_row(event, phase, service)

    def rows(self, *severities: str) -> tuple[ViolationResult, ...]:
        return tuple(row for row in self._rows.values() if row.severity in severities)

    def notes(self) -> tuple[str, ...]:
        """What a reader has to know about rows that are missing."""
        if not self._dropped:
            return ()
        return (
            f"{self._dropped} more violation events are only in the event log: a report holds "
            f"{ROWS_MAX} distinct ones",
        )


def owner(event: Violation, environment: Attributes) -> tuple[str, str]:
    """The phase that a violation belongs to, or the service; the other is empty.

    `environment` are the attributes of its environment's span.
    """
    if event.subject.kind == "phase":
        return event.subject.name, ""
    name = str(environment.get("of", ""))
    return (name, "") if environment.get("role") == "phase" else ("", name)


def violation_row(event: Violation, phase: str = "", service: str = "") -> ViolationResult:
    """An event as its row in the result."""
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
        code=RULE_CODES.get(event.rule, ""),
    )
