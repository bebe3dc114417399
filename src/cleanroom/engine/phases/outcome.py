"""The outcome of one phase of the plan. Values only."""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Result


class PhaseOutcome(NamedTuple):
    """How one phase of the plan ended."""

    name: str
    workspace: str
    result: Result
    exit_code: int | None = None
    duration_seconds: float = 0.0
    conflicts: int = 0
    error: CleanroomError | None = None  # the one that kept it from running to its end
    started_unix_ns: int = 0
    reason: str = ""  # the same as in the end of its span

    @property
    def stops_the_run(self) -> bool:
        """True unless the next phase may run after this one."""
        return self.error is not None or self.result not in ("passed", "cached", "unverified")
