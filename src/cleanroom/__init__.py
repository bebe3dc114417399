"""cleanroom-engine: a project's lifecycle in hermetic environments with real services,
and evidence of what held.

Importing the package does nothing; public names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanroom.core.version import __version__
    from cleanroom.engine import Engine, Options, open
    from cleanroom.evidence.reports.result import RunResult
    from cleanroom.model.errors import CleanroomError, Exit

__all__ = ["CleanroomError", "Engine", "Exit", "Options", "RunResult", "__version__", "open"]

_HOMES = {
    "Engine": "cleanroom.engine",
    "Options": "cleanroom.engine",
    "open": "cleanroom.engine",
    "CleanroomError": "cleanroom.model.errors",
    "Exit": "cleanroom.model.errors",
    "__version__": "cleanroom.core.version",
    "RunResult": "cleanroom.evidence.reports.result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cleanroom' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
