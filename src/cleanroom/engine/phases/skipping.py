"""What the lifecycle asks of the phase cache: whether a phase runs, and to remember that it passed.

Values and a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Parts = Mapping[str, str]


class Decision(NamedTuple):
    """What becomes of one phase, and why. Without parts nothing is remembered of it either."""

    parts: Parts | None = None
    run_id: str = ""  # of the run that passed it; empty: it runs
    key: str = ""
    why: str = ""

    @property
    def skips(self) -> bool:
        return bool(self.run_id)


RUNS = Decision()


class Remembered(NamedTuple):
    """What became of a phase's result, so that a later run may skip it."""

    said: Mapping[str, str] = {}  # what the end of its span has to say, as evidence
    why_not: str = ""  # nothing is remembered: why, for people


class Skipping(Protocol):
    """What the lifecycle asks. Positions count the plan's phases over all workspaces."""

    async def decide(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """What becomes of this phase now.

        `uncommitted` are paths that phases of this run changed and that did not come back to the
        project.
        """

    async def remember(
        self, position: int, decision: Decision, written_back: Sequence[str]
    ) -> Remembered:
        """It passed, and these paths came back."""
