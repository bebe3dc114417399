"""The violations of a result: equal attempts are one row with their number."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cleanroom.evidence.reports.result import ViolationResult
from cleanroom.evidence.reports.spans import Attributes
from cleanroom.model.capability import aggregation_key
from cleanroom.model.events import Violation
from cleanroom.model.rule_codes import RULE_CODES

# Distinct violations, and other texts of a result: more than a person reads,
# few enough that a flood fills neither memory nor a report.
ROWS_MAX = 1000

# severity, workspace, phase or service, and the three parts of `aggregation_key`
ViolationKey = tuple[str, str, str, str, str, str]


class Owner(NamedTuple):
    """The phase that a violation belongs to, or the service; the other is empty."""

    phase: str = ""
    service: str = ""
    # of the phase
    workspace: str = ""


_NOBODY = Owner()


class ViolationResults:
    """Takes violations, each with its owner."""

    def __init__(self) -> None:
        self._rows: dict[ViolationKey, ViolationResult] = {}
        self._dropped = 0
        # dimensions in which not every attempt was recorded
        self.lossy: set[str] = set()

    def add(self, event: Violation, of: Owner) -> None:
        """Take a violation of this phase or service."""
        if "dropped" in event.tags:
            self.lossy.add(event.dimension)
        same = aggregation_key(event.rule, event.process, event.target)
        key = (event.severity, of.workspace, of.phase or of.service, *same)
        known = self._rows.get(key)
        if known is not None:
            self._rows[key] = msgspec.structs.replace(known, count=known.count + event.count)
        elif len(self._rows) >= ROWS_MAX:
            self._dropped += 1
        else:
            self._rows[key] = violation_row(event, of)

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


def owner(event: Violation, environment: Attributes, workspace: str = "") -> Owner:
    """Whom a violation belongs to.

    `environment` are the attributes of its environment's span, `workspace` is that of its phase.
    """
    if event.subject.kind == "phase":
        return Owner(phase=event.subject.name, workspace=event.subject.workspace)
    name = str(environment.get("of", ""))
    if environment.get("role") == "phase":
        return Owner(phase=name, workspace=workspace)
    return Owner(service=name)


def violation_row(event: Violation, of: Owner = _NOBODY) -> ViolationResult:
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
        phase=of.phase,
        service=of.service,
        workspace=of.workspace,
        environment=event.environment,
        syscall=event.syscall,
        errno=event.errno,
        attribution_gap=event.attribution_gap,
        tags=event.tags,
        reason=event.reason,
        code=RULE_CODES.get(event.rule, ""),
    )
