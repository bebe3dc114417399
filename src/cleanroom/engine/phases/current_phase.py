"""A phase of a workspace while it runs, and its constant facts. Values only."""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.core.bus import Span
from cleanroom.engine.supervision.context import RunContext
from cleanroom.model.events import Subject
from cleanroom.model.plan import PhaseRun
from cleanroom.model.plan import Workspace as PlannedWorkspace


class CurrentPhase(NamedTuple):
    """A phase that has begun."""

    phase: PhaseRun
    planned: PlannedWorkspace
    number: int  # of the phases that this run began, from 1
    span: Span

    @property
    def subject(self) -> Subject:
        return phase_subject(self.phase, self.planned)


def phase_subject(phase: PhaseRun, planned: PlannedWorkspace) -> Subject:
    """The subject of the phase's events."""
    return Subject("phase", phase.name, planned.name)


def log_name(phase: PhaseRun, planned: PlannedWorkspace) -> str:
    """The name of the phase's log file, without folder and suffix."""
    return f"{planned.name}-{phase.name}" if planned.name else phase.name


def phase_attributes(
    context: RunContext, phase: PhaseRun, planned: PlannedWorkspace
) -> dict[str, str | int | float | bool]:
    """The attributes of the phase's span that are known before it runs."""
    attributes: dict[str, str | int | float | bool] = {
        "hermetic": phase.hermetic and not phase.policy.egress,
        "host": not phase.hermetic,
        "role": phase.role,
        "of": phase.of,
        "policy": phase.policy.level.value,
        "timeout_seconds": phase.timeout_seconds,
        "reaction": phase.policy.reaction,
        "log": context.log_path(log_name(phase, planned)),
        "services": ",".join(phase.services),
    }
    if phase.origin is not None:
        attributes["origin"] = str(phase.origin)
    if phase.budget_seconds is not None:
        attributes["budget_seconds"] = phase.budget_seconds
    return attributes
