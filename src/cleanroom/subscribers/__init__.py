"""Subscribers of the bus: each has a pure function that decides, and a loop that does not.

They never call each other and touch no environment.

`TABLE` says what each reads and what it publishes, straight or by way of a command;
a test holds it free of cycles and true.
Only commands lead back: those of `recovery` make the supervisor publish further facts, as often as
`restarts_max` allows.
"""

from __future__ import annotations

from typing import NamedTuple


class Flow(NamedTuple):
    """Kinds of events, by their tags."""

    reads: tuple[str, ...]
    publishes: tuple[str, ...]


ALL = (
    "started",
    "finished",
    "output",
    "metric",
    "violation",
    "assertion",
    "recovery",
    "artifact",
    "capability",
    "ledger",
    "attached",
    "note",
    "spans",
)

TABLE: dict[str, Flow] = {
    "audit": Flow(reads=ALL, publishes=()),
    "monitor": Flow(reads=("started", "finished", "metric"), publishes=("violation",)),
    "recovery": Flow(reads=("started", "finished", "violation"), publishes=()),
    "reporter": Flow(reads=ALL, publishes=()),
    "tracer": Flow(reads=tuple(kind for kind in ALL if kind != "capability"), publishes=()),
}
