"""The lifecycle's view of the phase cache: whether a phase is skipped, and remembering one.

Values and a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Parts = Mapping[str, str]


class Decision(NamedTuple):
    """Whether one phase is skipped, and why. Without parts it is not remembered either."""

    parts: Parts | None = None
    run_id: str = ""  # of the run that passed it; empty: it runs
    key: str = ""
    why: str = ""

    @property
    def skips(self) -> bool:
        return bool(self.run_id)


RUNS = Decision()


class Remembered(NamedTuple):
    """Whether a phase was remembered, so that a later run may skip it."""

    # for the end of the phase's span, as evidence for a later run
    attributes: Mapping[str, str] = {}
    # why nothing is remembered, for people; empty where something is
    why_not: str = ""


class Skipping(Protocol):
    """The phase cache. Positions count the plan's phases over all workspaces."""

    async def decide(self, position: int, uncommitted: Sequence[str]) -> Decision:
        """Whether this phase is skipped now.

        `uncommitted` are paths that phases of this run changed and that did not come back to the
        project.
        """

    async def remember(
        self, position: int, decision: Decision, written_back: Sequence[str]
    ) -> Remembered:
        """Remember a phase that passed, and of which these paths came back."""
