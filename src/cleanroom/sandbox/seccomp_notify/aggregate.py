"""Aggregates attempts: equal ones become one record with a count.

Beyond 1,000 different ones only their number by rule is kept, and reported as dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt

# a loop of refused calls makes four records a second, however fast it is
_REPEAT_SECONDS = 0.25
# different attempts of one environment: a report with more of them is read by nobody
_DISTINCT_MOST = 1000


class _Beyond(NamedTuple):
    """The key of the attempts that are counted only."""

    rule: str


class Aggregate:
    """Emits the first attempt with a key at once, and repetitions in intervals.

    `count` of each record is the number of attempts since the record before.
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
        """Count one attempt; `build` makes the record, and is called for a new key only.

        Beyond the limit all attempts on one `rule` are one record without process and target.
        """
        now = self._clock()
        record = self._records.get(key)
        if record is None:
            if len(self._records) >= _DISTINCT_MOST and not isinstance(key, _Beyond):
                self.dropped += 1
                self.add(_Beyond(rule), lambda: _counted_only(build()))
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
        """Emit the repetitions whose time has come."""
        if self._waiting and self._clock() >= self._next_ns:
            self.flush()

    def flush(self) -> None:
        """Emit every repetition that waits."""
        for key in self._waiting:
            record = self._records[key]
            self._emit({**record})
            record["count"] = 0
        self._waiting.clear()


def _counted_only(attempt: Attempt) -> Attempt:
    """The record of the attempts that are counted only."""
    most = f"more than {_DISTINCT_MOST} different attempts"
    one_by_one = f"the first {_DISTINCT_MOST} different attempts are reported one by one"
    gap = f"{one_by_one}, these are only counted"
    return {
        **attempt,
        "target": {"limit": most},
        "process": None,
        "tags": ["dropped"],
        "attribution_gap": gap,
    }
