"""A project's files: make.toml in all its dialects read into a `Plan`, `.ggen/state.json`,
and the make.toml that `init` writes.

Reads and checks; runs nothing.
What a plan means is in `cleanroom.model.plan`, how it is carried out is the engine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanroom.project.loader import Overrides, load

__all__ = ["Overrides", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cleanroom.project import loader

    return getattr(loader, name)
