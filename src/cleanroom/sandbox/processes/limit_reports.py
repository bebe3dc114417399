"""Limits that acted, as attempts of the command under which they did."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cleanroom.sandbox.kernel import cgroups
    from cleanroom.sandbox.protocol import Attempt, Process


class _Limit(NamedTuple):
    """A limit, and how it is known that it acted. `word` stands before its value in the report."""

    rule: str
    word: str
    outcome: str
    mechanism: str
    certainty: str
    source: str


_COUNTER = ("cgroup", "counter", "the group's counter")
_SIGNAL = ("rlimit", "inferred", "the signal")
_MEMORY = _Limit("resource.memory", "memory", "killed", *_COUNTER)
_PIDS = _Limit("resource.pids", "processes", "blocked", *_COUNTER)
_CONNECTIONS = _Limit("resource.connections", "", "observed", "relay", "counter", "the relay")
_DISK = _Limit("resource.disk", "file of", "killed", *_SIGNAL)


class LimitReports:
    """Compares the counters of a control group with those of the last report."""

    def __init__(
        self,
        group: cgroups.Group | None,
        shown: Mapping[str, str],
        emit: Callable[[Attempt], None],
    ) -> None:
        """`shown`: the limit of each rule as a reader sees it."""
        self._shown = shown
        self._emit = emit
        self.watch(group)

    def watch(self, group: cgroups.Group | None) -> None:
        """Count in this group from now on."""
        self._group = group
        self.restart()

    def restart(self) -> None:
        """Leave events that were counted until now out of later reports."""
        self._previous = self._counters()

    def report(self, command: Process | None, status: int) -> None:
        """Emit an attempt for each limit that acted since the last report.

        `status`: how the command ended, as a shell has it: 128 and the signal.
        """
        # The counters never fall, so a difference is what happened since.
        now, previous = self._counters(), self._previous
        self._previous = now
        if now is not None and previous is not None:
            # The OOM killer may take a child of the command, whose status then shows nothing.
            self._report(_MEMORY, now.oom_kills - previous.oom_kills, command)
            self._report(_PIDS, now.pids_refused - previous.pids_refused, command)
        # setrlimit(2): beyond RLIMIT_FSIZE the writer gets SIGXFSZ.
        self._report(_DISK, int(status == 128 + signal.SIGXFSZ), command)

    def report_connections(self, to: str, most: int) -> None:
        """Emit an attempt for connections to `to` that wait until one of `most` ends."""
        text = f"{most} connections at once to {to}"
        self._emit_attempt(_CONNECTIONS, text, 1, None, "the relay does not tell who connects")

    def _counters(self) -> cgroups.Counters | None:
        return self._group.counters() if self._group is not None else None

    def _report(self, limit: _Limit, count: int, command: Process | None) -> None:
        if count <= 0:
            return
        gap = f"{limit.source} names no process"
        if command:
            gap += "; this is the command under which it happened"
        text = f"{limit.word} {self._shown[limit.rule]}"
        self._emit_attempt(limit, text, count, command, gap)

    def _emit_attempt(
        self, limit: _Limit, text: str, count: int, command: Process | None, gap: str
    ) -> None:
        now = time.time_ns()
        self._emit(
            {
                "dimension": "resource",
                "rule": limit.rule,
                "outcome": limit.outcome,
                "mechanism": limit.mechanism,
                "certainty": limit.certainty,
                "target": {"limit": text},
                "process": command,
                "attribution_gap": gap,
                "syscall": "",
                "errno": "",
                "tags": [],
                "count": count,
                "first_unix_ns": now,
                "last_unix_ns": now,
            }
        )
