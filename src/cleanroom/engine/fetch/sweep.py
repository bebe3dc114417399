"""Removes what killed fetch steps had begun. Blocks."""

from __future__ import annotations

from pathlib import Path

_BUILDING = "dependencies/building"


def sweep_store(cache: Path) -> None:
    """Remove folders of the store whose makers are dead; what lives is left alone."""
    folder = cache / _BUILDING
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    # Loaded for the few runs that follow a killed one.
    from cleanroom.dependencies.store import Store

    Store(cache).remove_abandoned()
