"""Folders of a test's own, held open as the engine holds those that it writes to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.core.files import hold
from cleanroom.sandbox.journal import Journal

_HELD: list[Folder] = []


def open_folder(path: Path) -> Folder:
    """Made where it is not there, and held until the test ends (`conftest.py`)."""
    _HELD.append(hold(path))
    return _HELD[-1]


def close_all() -> None:
    """Close what tests hold."""
    while _HELD:
        _HELD.pop().close()


def journal_at(path: Path) -> Callable[[], Journal]:
    """What opens the journal at this path."""
    return partial(Journal.at, hold(path.parent), path.name)
