"""The end of a phase's commands, as a value."""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.core.bus import Span
from cleanroom.model.events import Subject
from cleanroom.model.plan import PhaseRun, Workspace


class PhaseEnd(NamedTuple):
    """A phase whose commands have ended: what decides which of its changes are written back."""

    phase: PhaseRun
    planned: Workspace
    environment: EnvironmentSpec
    passed: bool
    broke_rule: bool
    span: Span

    @property
    def subject(self) -> Subject:
        return Subject("phase", self.phase.name, self.planned.name)

    @property
    def tools(self) -> tuple[str, ...]:
        """Folders outside that were shown at their own paths: links may lead there."""
        mounts = self.environment.mounts
        return tuple(m.target for m in mounts if m.source == m.target and not m.writable)

    @property
    def spares_ignored(self) -> bool:
        """Whether it writes back undeclared changes that the host ignores, though it failed."""
        return self.phase.policy.returns_ignored and not self.passed and not self.broke_rule

    def __str__(self) -> str:
        name = self.phase.name
        return f"phase {self.planned.name}/{name}" if self.planned.name else f"phase {name}"
