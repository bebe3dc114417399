"""Commands: values that recovery sends to the supervisor. Facts are in `events.py`."""

from __future__ import annotations

import msgspec


class Restart(msgspec.Struct, frozen=True, kw_only=True, tag="restart"):
    """Start the service again after a delay."""

    service: str
    delay_seconds: float
    attempt: int
    cause: str


class GiveUp(msgspec.Struct, frozen=True, kw_only=True, tag="give_up"):
    """Leave the service down, and fail the phases that wait for it."""

    service: str
    cause: str


class KillEnvironment(msgspec.Struct, frozen=True, kw_only=True, tag="kill"):
    """End an environment with its whole process tree, because of a limit or, at Locked,
    of a violation.
    """

    environment: str
    cause: str
    rule: str


Command = Restart | GiveUp | KillEnvironment
