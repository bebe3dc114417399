"""Removes what killed runs left, and what killed fetch steps had begun. Blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom.backends.cleanup import SweepFindings

_BUILDING = "dependencies/building"


def sweep_all(cache: Path) -> SweepFindings:
    """Remove what killed runs and fetch steps left below the user's cache."""
    from cleanroom.backends.cleanup import sweep_runs

    sweep_store(cache)
    return sweep_runs(cache)


def sweep_store(cache: Path) -> None:
    """Remove folders of the store whose makers are dead; what lives is left alone."""
    folder = cache / _BUILDING
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    # Loaded for the few runs that follow a killed one.
    from cleanroom.dependencies.store import Store

    Store(cache).remove_abandoned()
