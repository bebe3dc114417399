"""Many attempts, few records: what is the same is counted,
what is too much is dropped and said so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt

_REPEAT_SECONDS = 0.25  # a loop of refused calls makes four records a second, whatever its speed
_DISTINCT_MOST = 1000  # per environment: a report with more of them is read by nobody


class _Rest(NamedTuple):
    """The key of what is counted only."""

    rule: str


class Aggregate:
    """Emits the first attempt of a kind at once and repeats in intervals;
    `count` of each record is what came since the one before.
    """

    def __init__(
        self, emit: Callable[[Attempt], None], clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._emit = emit
        self._clock = clock
        self._records: dict[object, Attempt] = {}
        self._waiting: set[object] = set()
        self._next_ns = 0
        self.dropped = 0

    @property
    def completeness(self) -> str:
        return "lossy" if self.dropped else "exact"

    def add(self, key: object, build: Callable[[], Attempt], rule: str = "") -> None:
        """Count one attempt; `build` makes the record and is called for a new key only.

        Past the limit all of one `rule` are one record without names.
        """
        now = self._clock()
        record = self._records.get(key)
        if record is None:
            if len(self._records) >= _DISTINCT_MOST and not isinstance(key, _Rest):
                self.dropped += 1
                self.add(_Rest(rule), lambda: _untold(build()))
                return
            record = build()
            self._records[key] = record
            self._emit({**record, "count": 1, "first_unix_ns": now, "last_unix_ns": now})
            record["count"] = 0
            return
        if key not in self._waiting:
            if not self._waiting:
                self._next_ns = now + int(_REPEAT_SECONDS * 1e9)
            self._waiting.add(key)
            record["first_unix_ns"] = now
        record["count"] += 1
        record["last_unix_ns"] = now

    def wait_seconds(self) -> float | None:
        """How long until `tick` has something to do; None while nothing waits."""
        return max(0.0, (self._next_ns - self._clock()) / 1e9) if self._waiting else None

    def tick(self) -> None:
        """Emit the repeats whose time has come."""
        if self._waiting and self._clock() >= self._next_ns:
            self.flush()

    def flush(self) -> None:
        """Emit every repeat that waits."""
        for key in self._waiting:
            record = self._records[key]
            self._emit({**record})
            record["count"] = 0
        self._waiting.clear()


def _untold(attempt: Attempt) -> Attempt:
    """The record of all that is counted only."""
    most = f"more than {_DISTINCT_MOST} different attempts"
    gap = (
        f"the first {_DISTINCT_MOST} different attempts are told one by one, these are only counted"
    )
    return {
        **attempt,
        "target": {"limit": most},
        "process": None,
        "tags": ["dropped"],
        "attribution_gap": gap,
    }
