"""What the backend claims to hold, and what canaries of this run have proven of it."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal

import msgspec

from cleanroom.evidence.reports.result import CanaryResult
from cleanroom.model.capability import Canary, CapabilityReport, DimensionReport, verified
from cleanroom.model.events import Assertion


class ProofResults:
    """Takes the capability report and the canaries."""

    def __init__(self) -> None:
        self._canaries: list[CanaryResult] = []
        self.capability: CapabilityReport | None = None

    def add(self, event: Assertion) -> None:
        """Take an assertion, if it is a canary."""
        if event.subject.kind == "canary":
            self._canaries.append(
                CanaryResult(
                    name=event.name,
                    dimension=event.dimension,
                    expected=event.expected,
                    result="passed" if event.passed else "failed",
                    found=event.found,
                    rule=event.rule,
                    environment=event.environment,
                )
            )

    def canaries(self) -> tuple[CanaryResult, ...]:
        return tuple(self._canaries)

    def dimensions(self, lossy: AbstractSet[str]) -> tuple[DimensionReport, ...]:
        """The capability report's rows, with what the canaries showed.

        In the dimensions `lossy` not every attempt was recorded.
        """
        if self.capability is None:
            return ()
        rows = verified(self.capability, tuple(map(_canary, self._canaries))).dimensions
        return tuple(
            msgspec.structs.replace(row, completeness="lossy") if row.dimension in lossy else row
            for row in rows
        )


def _canary(row: CanaryResult) -> Canary:
    result: Literal["passed", "failed"] = "passed" if row.result == "passed" else "failed"
    return Canary(
        name=row.name,
        dimension=row.dimension,  # type: ignore[arg-type]
        rule=row.rule,
        expected=row.expected,
        found=row.found,
        result=result,
    )
