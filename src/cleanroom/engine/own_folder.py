"""The folder of ours in a project, `.ggen/cleanroom`: its contents, held open during a run.

A phase, a repository or the owner of the project may put a link, or another user's file, anywhere
below it.
So its parts are opened relative to the project's folder, which is held open, and the folders that a
run writes to are opened and checked once, before anything runs.
If one is renamed later, the run still writes to the same folder.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.files import hold, misplaced, named
from cleanroom.core.locks import in_use
from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import Plan

GGEN = ".ggen"
OURS = f"{GGEN}/cleanroom"
RUNS, AUDIT, REPORTS, SESSIONS, CACHE = (
    f"{OURS}/{name}" for name in ("runs", "audit", "reports", "sessions", "cache")
)
_OF_OTHERS = "make the folder above it readable and yours; a run as root may have made it"
STATE_LOCK = f"{OURS}/state.lock"
# These are read or changed in place; every other file of ours is created or replaced.
_FILES = (f"{AUDIT}/audit.jsonl", f"{AUDIT}/audit.head", f"{AUDIT}/audit.lock", STATE_LOCK)


class RunFolders(NamedTuple):
    """The folders that one run writes to, held open."""

    run: Folder  # .ggen/cleanroom/runs/<run_id>
    logs: Folder
    audit: Folder
    reports: Folder


def check_own_folders(root: Folder) -> None:
    """Check that nothing else stands in the place of a folder or file of ours.

    Raises:
        ProjectError: something does, or a folder cannot be opened; it names the first one.
    """
    folders = (GGEN, OURS, RUNS, AUDIT, REPORTS, SESSIONS, CACHE, *_entries(root))
    for name in (*folders, *_FILES):
        try:
            _check_entry(root, name, name in folders)
        # a file that is missing or unreadable is an error where it is needed
        except OSError as error:
            if is_misplaced(error):
                raise misplaced(name, error.strerror or str(error)) from None
            if isinstance(error, PermissionError) and name in folders:
                found = f"expected a folder, found one that cannot be looked at: {error.strerror}"
                raise ProjectError(
                    "CR-STATE-004", found, hint=_OF_OTHERS, where=f"{name}:1:1"
                ) from None


def check_writable(root: Folder) -> None:
    """Check that nothing of ours belongs to somebody else and cannot be written by this user.

    A run as root in somebody's project made folders of root's once. Only for a clear message:
    nothing relies on it.

    Raises:
        ProjectError: something does; it names the first one, and the command that mends it.
    """
    folders = (GGEN, OURS, RUNS, AUDIT, REPORTS, SESSIONS, CACHE, *_entries(root))
    for name in (*folders, *_FILES):
        try:
            found = os.stat(name, dir_fd=root.descriptor, follow_symlinks=False)
        except OSError:
            continue  # what is missing is made, what cannot be looked at was refused
        if found.st_uid == os.geteuid():
            continue
        needed = os.W_OK | (os.X_OK if name in folders else 0)
        if not os.access(name, needed, dir_fd=root.descriptor, effective_ids=True):
            raise _of_somebody_else(root, name, found.st_uid)


def _of_somebody_else(root: Folder, name: str, owner: int) -> ProjectError:
    said = f"expected one that you can write, found one that belongs to {_user(owner)}"
    around = os.fstat(root.descriptor).st_uid
    if around == os.geteuid():
        top = shlex.quote(str(root.path / GGEN))
        beside = shlex.quote(str(root.path / f"{GGEN}.{_user(owner)}"))
        give = f"sudo chown -R {_user(around)} {top}"
        hint = f"`{give}` gives it back; `mv {top} {beside}` begins anew"
    else:
        hint = f"run as {_user(around)}, who owns the project, or in a copy of your own"
    return ProjectError("CR-STATE-005", said, hint=hint, where=f"{name}:1:1")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _check_entry(root: Folder, name: str, is_folder: bool) -> None:
    if is_folder:
        root.folder(name).close()
    else:
        os.close(root.open_own(name, os.O_RDONLY))


def _entries(root: Folder) -> list[str]:
    """The folders in the cache of phases, which are named after the project's phases."""
    try:
        with root.folder(CACHE) as cache:
            return [f"{CACHE}/{name}" for name in cache.names()]
    except OSError:
        return []


@contextmanager
def run_folders(root: Folder, run_id: str, reports: Path | None) -> Iterator[RunFolders]:
    """Make and hold the folders that a run writes to; `reports` is a folder that a person named.

    The run's own folder is marked as in use, so that whoever removes old records leaves it.

    Raises:
        ProjectError: something else stands in the place of one.
        ArtifactError: one cannot be made.
    """
    with ExitStack() as stack:
        run = stack.enter_context(own_folder(root, f"{RUNS}/{run_id}"))
        with named("CR-FILE-001", "read", run.path):
            stack.enter_context(in_use(run))
        logs = stack.enter_context(own_folder(run, "logs"))
        audit = stack.enter_context(own_folder(root, AUDIT))
        place = own_folder(root, REPORTS) if reports is None else hold(reports)
        yield RunFolders(run, logs, audit, stack.enter_context(place))


def own_folder(root: Folder, name: str) -> Folder:
    """Open one folder of ours; make it where it does not exist.

    Raises:
        ProjectError: something else stands in its place.
        ArtifactError: it cannot be made.
    """
    with named("CR-FILE-001", "write to", root.path / name):
        return root.folder(name, make=True)


def reports_aside(plan: Plan, run_id: str) -> Path:
    """The folder of the reports of a run that is about no phase: a fetch, a shell."""
    return Path(plan.root) / ".ggen/cleanroom/runs" / run_id / "reports"
