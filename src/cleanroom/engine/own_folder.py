"""The folder that we have in a project, `.ggen/cleanroom`:
what is in it, and holding it during a run.

A phase, a repository or whoever owns the project may put a link, or another's file, anywhere below
it. So it is reached from the project's folder, which is held open, and what a run writes to is
opened and checked once, before anything runs: whatever is renamed later, the same folders are
written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.files import hold, misplaced, named
from cleanroom.model.errors import ProjectError

GGEN = ".ggen"
OURS = f"{GGEN}/cleanroom"
RUNS, AUDIT, REPORTS, SESSIONS, CACHE = (
    f"{OURS}/{name}" for name in ("runs", "audit", "reports", "sessions", "cache")
)
_OF_OTHERS = "make the folder above it readable and yours; a run as root may have made it"
STATE_LOCK = f"{OURS}/state.lock"
# Read, or changed in place; every other file of ours is made anew or replaced.
_FILES = (f"{AUDIT}/audit.jsonl", f"{AUDIT}/audit.head", f"{AUDIT}/audit.lock", STATE_LOCK)


class RunFolders(NamedTuple):
    """What one run writes to, held open."""

    run: Folder  # .ggen/cleanroom/runs/<run_id>
    logs: Folder
    audit: Folder
    reports: Folder


def check_own_folders(root: Folder) -> None:
    """Refuse a project that brings something else in the place of a folder or file of ours.

    Raises:
        ProjectError: it names the first one, or a folder that cannot be looked at.
    """
    folders = (GGEN, OURS, RUNS, AUDIT, REPORTS, SESSIONS, CACHE, *_entries(root))
    for name in (*folders, *_FILES):
        try:
            _look(root, name, name in folders)
        # what is not there, or a file that may not be read, is said when it is needed
        except OSError as error:
            if is_misplaced(error):
                raise misplaced(name, error.strerror or str(error)) from None
            if isinstance(error, PermissionError) and name in folders:
                found = f"expected a folder, found one that cannot be looked at: {error.strerror}"
                raise ProjectError(
                    "CR-STATE-004", found, hint=_OF_OTHERS, where=f"{name}:1:1"
                ) from None


def _look(root: Folder, name: str, is_folder: bool) -> None:
    if is_folder:
        root.folder(name).close()
    else:
        os.close(root.open_own(name, os.O_RDONLY))


def _entries(root: Folder) -> list[str]:
    """Folders in the cache of phases, which only a project's phases name."""
    try:
        with root.folder(CACHE) as cache:
            return [f"{CACHE}/{name}" for name in cache.names()]
    except OSError:
        return []


@contextmanager
def run_folders(root: Folder, run_id: str, reports: Path | None) -> Iterator[RunFolders]:
    """Make and hold what a run writes to; `reports` is a folder that a person named.

    Raises:
        ProjectError: something else stands in the place of one.
        ArtifactError: one cannot be made.
    """
    with ExitStack() as stack:
        run = stack.enter_context(own_folder(root, f"{RUNS}/{run_id}"))
        logs = stack.enter_context(own_folder(run, "logs"))
        audit = stack.enter_context(own_folder(root, AUDIT))
        place = own_folder(root, REPORTS) if reports is None else hold(reports)
        yield RunFolders(run, logs, audit, stack.enter_context(place))


def own_folder(root: Folder, name: str) -> Folder:
    """One folder of ours, made where it is not there. Raises as `run_folders` does."""
    with named("CR-FILE-001", "write to", root.path / name):
        return root.folder(name, make=True)
