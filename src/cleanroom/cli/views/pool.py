"""How a pool's state reads. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.cli.views.text import safe
from cleanroom.evidence.reports.text import plural, seconds

if TYPE_CHECKING:
    from cleanroom.engine import PoolStatus


def pool_lines(found: PoolStatus, word: str = "runs") -> list[str]:
    """The pool on one line, and each server on its own."""
    if not found.id:
        return ["no pool runs for this project"]
    idle = (
        f"ends after {seconds(found.idle_seconds)} without a run"
        if found.idle_seconds
        else "never ends by itself"
    )
    lines = [
        f"{found.id} {word}: process {found.pid}, {plural(found.leases, 'run')} using it, {idle}"
    ]
    lines += [
        safe(f"  {s.name} {s.version} {'ready' if s.ready else 'not ready'}")
        for s in found.services
    ]
    return lines
