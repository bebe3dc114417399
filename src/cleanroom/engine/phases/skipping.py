"""The protocol between `lifecycle` and `engine/phase_cache`: whether a phase runs, and that it
passed.

Values and a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Parts = Mapping[str, str]


class Decision(NamedTuple):
    """Whether one phase runs, and why. Without parts its result is not remembered either."""

    parts: Parts | None = None
    run_id: str = ""  # of the run that passed it; empty: it runs
    key: str = ""
    why: str = ""

    @property
    def skips(self) -> bool:
        return bool(self.run_id)


RUNS = Decision()


class Remembered(NamedTuple):
    """Whether a phase's result was remembered, so that a later run may skip the phase."""

    attributes: Mapping[str, str] = {}  # for the end of the phase's span, as evidence
    why_not: str = ""  # for people: why nothing is remembered


class Skipping(Protocol):
    """Decides on phases. Positions count the plan's phases over all workspaces."""

    async def decide(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """Whether this phase is skipped now.

        `uncommitted` are paths that phases of this run changed and that did not come back to the
        project.
        """

    async def remember(
        self, position: int, decision: Decision, written_back: Sequence[str]
    ) -> Remembered:
        """Remember that the phase passed, and that these paths were written back."""
