"""The project around a folder: the nearest folder upwards that has phases, as git and cargo look.

The search ends at the top of a repository, at the end of a file system, below the home folder, and
below a folder that everybody writes to, such as /tmp.
A project that belongs to somebody else is not used: its phases would run for whoever stands below
it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.files import is_missing, is_there
from cleanroom.project.project_file import FILE, PYPROJECT, has_table

_OWN_FOLDER = Path(".ggen", "cleanroom")


class Surroundings(NamedTuple):
    """What a search upwards found."""

    file: Path | None  # the file with the phases
    of_another: Path | None = None  # a file that ended the search: somebody else's


def search(start: Path, home: str) -> Surroundings:
    """Look for the project that the folder `start` lies in; `start` itself is believed.

    As of a repository, it believes none that is neither `start`'s owner's, the caller's, nor
    root's.
    """
    if _project_file(start) or is_there(start / _OWN_FOLDER):
        return Surroundings(_project_file(start))
    try:
        trusted = {start.stat().st_uid, os.geteuid(), 0}
        for folder in _folders_above(start, home):
            if (file := _project_file(folder)) is None:
                continue
            owners = {folder.stat().st_uid, file.lstat().st_uid, file.stat().st_uid}
            return Surroundings(file) if owners <= trusted else Surroundings(None, file)
    except OSError:
        pass  # what cannot be looked at is no project of the caller's
    return Surroundings(None)


def _folders_above(start: Path, home: str) -> Iterator[Path]:
    device = start.stat().st_dev
    folder = start
    while not is_there(folder / ".git") and folder != folder.parent:
        folder = folder.parent
        found = folder.stat()
        if found.st_dev != device or found.st_mode & stat.S_IWOTH or _is_home(folder, home):
            return
        yield folder


def _is_home(folder: Path, home: str) -> bool:
    try:
        return bool(home) and folder.samefile(home)
    except OSError:
        return False


def _project_file(folder: Path) -> Path | None:
    if not is_missing(folder / FILE):
        return folder / FILE
    return folder / PYPROJECT if has_table(folder) else None
