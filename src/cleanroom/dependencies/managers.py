"""The package managers that are known, in the order in which they are shown."""

from __future__ import annotations

from cleanroom.dependencies.npm import Npm
from cleanroom.dependencies.session import Manager
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.uv import Uv

MANAGERS: tuple[type[Manager], ...] = (Uv, Npm)


def managers(settings: Settings) -> tuple[Manager, ...]:
    """One of each."""
    return tuple(manager(settings) for manager in MANAGERS)
