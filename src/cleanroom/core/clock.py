"""Time and the run's randomness, passed in so that tests can own both."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time in nanoseconds."""

    def wall_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class SystemClock:
    """The machine's own clocks."""

    wall_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


class LoopClock:
    """Follows the running event loop's time, so that a virtual-time loop moves it;
    wall time starts at `origin_ns`.
    """

    def __init__(self, origin_ns: int = 1_700_000_000_000_000_000) -> None:
        self._origin = origin_ns

    def wall_ns(self) -> int:
        return self._origin + self.monotonic_ns()

    def monotonic_ns(self) -> int:
        import asyncio

        return int(asyncio.get_running_loop().time() * 1e9)


def seeded(seed: int, purpose: str) -> random.Random:
    """A generator that depends on the run's seed and on what it is for,
    so that one use does not shift another.
    """
    return random.Random(f"{seed}:{purpose}")


def new_run_id(wall_ns: int) -> str:
    """Sorts by time and is unique: 20261124-023501-k3f9x."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, without those that are easily confused
    tail = "".join(letters[byte % 32] for byte in os.urandom(5))
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(wall_ns / 1e9))}-{tail}"
