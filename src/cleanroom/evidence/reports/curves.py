"""One environment's readings over time, thinned so that an hour costs as much as a second."""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.evidence.reports.result import ResourceResult
from cleanroom.model.events import Metric

POINTS_MAX = 240  # twice the width of the picture that is drawn from them


class _Point(NamedTuple):
    seconds: float
    cpu_seconds: float
    memory_bytes: int


class Curve:
    """Takes readings in order, keeps their shape and their peak."""

    def __init__(self) -> None:
        self._points: list[_Point] = []
        self._peak = 0
        self._last: _Point | None = None
        self._stride = 1  # of how many readings one is kept
        self._skipped = 0
        self._highest = 0  # memory among the readings since the last kept one

    def add(self, seconds: float, metric: Metric) -> None:
        """Take a reading, so many seconds after the run's start."""
        self._peak = max(self._peak, metric.memory_bytes)
        self._highest = max(self._highest, metric.memory_bytes)
        self._last = _Point(seconds, metric.cpu_seconds, metric.memory_bytes)
        self._skipped += 1
        if self._skipped < self._stride and self._points:
            return
        self._points.append(_Point(seconds, metric.cpu_seconds, self._highest))
        self._skipped = self._highest = 0
        if len(self._points) > POINTS_MAX:
            self._points = _thinned(self._points)
            self._stride *= 2

    def result(self, environment: str, subject: str) -> ResourceResult:
        """Cores are computed between neighbours: the first reading,
        and one after a reset of the total, say 0.
        """
        samples: list[tuple[float, float, int]] = []
        before: _Point | None = None
        for point in self._points:
            elapsed = point.seconds - before.seconds if before else 0.0
            used = point.cpu_seconds - before.cpu_seconds if before else 0.0
            samples.append(
                (
                    round(point.seconds, 3),
                    round(max(used, 0.0) / elapsed, 3) if elapsed > 0 else 0.0,
                    point.memory_bytes,
                )
            )
            before = point
        return ResourceResult(
            environment=environment,
            subject=subject,
            peak_memory_bytes=self._peak,
            cpu_seconds=self._last.cpu_seconds if self._last else 0.0,
            samples=tuple(samples),
        )


def _thinned(points: list[_Point]) -> list[_Point]:
    """Every second point; the one that stays takes the higher memory of the two,
    so that no peak is lost.
    """
    pairs = zip(points[0::2], points[1::2], strict=False)
    kept = [
        later._replace(memory_bytes=max(earlier.memory_bytes, later.memory_bytes))
        for earlier, later in pairs
    ]
    return kept + points[len(kept) * 2 :]
