"""Removing what dead runs left on this machine: folders in the cache and control groups.

Processes, mounts and namespaces need no sweep: the kernel ends them with their wardens. A run is dead when the process that its `owner` file or its
journal names does not live any more (pid and start time, since pids are used again). Nothing of a living run is touched, and nothing outside the cache.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from cleanroom.backends.base import Left
from cleanroom.sandbox import cgroups, journal, layers

OWNER = "owner"
MINIMUM_AGE_SECONDS = 30.0  # a folder without an owner yet may belong to a run that is just beginning
PREFIX = "cleanroom-"


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, what could not be, and how many runs are alive and were left alone."""

    removed: tuple[Left, ...] = ()
    left: tuple[Left, ...] = ()
    living: int = 0


def claim(scratch: Path) -> None:
    """Write down whose this run's folder is."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    (scratch / OWNER).write_text(journal.process_name(os.getpid()))


def sweep(cache: Path, journals: Sequence[Path]) -> SweepReport:
    """Remove what dead runs left: their folders under `cache`/runs, their groups; then close the `journals` of a project that name them."""
    removed: list[Left] = []
    left: list[Left] = []
    runs = _runs(cache)
    living = {folder.name for folder in runs if not _dead(folder)}
    dead = [folder for folder in runs if folder.name not in living]
    for folder in dead:
        _try(removed, left, Left(kind="folder", name=str(folder)), lambda folder=folder: layers.remove_tree(folder))
    for group in _groups():
        if not _of(group, living) and (_of(group, {folder.name for folder in dead}) or _old(group)) and not _populated(group):
            _try(removed, left, Left(kind="cgroup", name=str(group)), lambda group=group: group.rmdir())
    for path in journals:
        _settle(path)
    return SweepReport(removed=tuple(removed), left=tuple(left), living=len(living))


def leftovers(cache: Path) -> list[Path]:
    """Folders of dead runs, for `doctor`."""
    return [folder for folder in _runs(cache) if _dead(folder)]


def _runs(cache: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder for folder in (cache / "runs").iterdir() if folder.is_dir() and not folder.is_symlink())
    return []


def _dead(folder: Path) -> bool:
    try:
        return not journal.alive((folder / OWNER).read_text())
    except (OSError, ValueError):
        return _old(folder)


def _old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > MINIMUM_AGE_SECONDS
    return False


def _of(group: Path, runs: set[str]) -> bool:
    """Whether a group belongs to one of these runs; one of another cache may be about to get its first process."""
    return any(group.name.startswith(f"{PREFIX}{run}-") for run in runs)


def _groups() -> Iterator[Path]:
    """Our groups beside this process's own, where `cgroups.homes` would make them."""
    for folder in sorted(set(cgroups.homes().folders.values())):
        with contextlib.suppress(OSError):
            yield from sorted(child for child in folder.iterdir() if child.is_dir() and child.name.startswith(PREFIX))


def _populated(group: Path) -> bool:
    try:
        return bool((group / "cgroup.procs").read_text().strip())
    except OSError:
        return True


def _try(removed: list[Left], left: list[Left], thing: Left, remove: object) -> None:
    assert callable(remove)
    try:
        remove()
        removed.append(thing)
    except OSError as error:
        left.append(msgspec.structs.replace(thing, detail=error.strerror or str(error)))


def _settle(path: Path) -> None:
    """Say in a dead run's journal what was seen to be gone, and close it when that is all."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        record = journal.read(path)
        if record.closed or record.owner_lives:
            return
        written = journal.Journal(path)
        remaining = [thing for thing in record.left if thing.kind == "folder" and os.path.lexists(thing.name)]
        for thing in record.left:
            if thing not in remaining:
                written.gone(thing)
        if not remaining:
            written.close()
