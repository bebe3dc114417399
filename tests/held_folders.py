"""Folders of a test's own, held open as the engine holds those that it writes to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cleanroom.artifacts import hold
from cleanroom.beneath import Folder
from cleanroom.sandbox.journal import Journal


def held(path: Path) -> Folder:
    """Made where it is not there, and held until the test's process ends."""
    return hold(path)


def journal_at(path: Path) -> Callable[[], Journal]:
    """What opens the journal at this path."""
    return partial(Journal.at, hold(path.parent), path.name)
