"""Removing what dead runs left on this machine: folders in the cache and control groups.

Processes, mounts and namespaces need no sweep: the kernel ends them with their wardens.
A run lives while one of its processes holds its `owner` file, in whatever pid namespace,
or while the process that this file or its journal names lives (pid and start time,
since pids are used again).
Nothing of a living run is touched, and nothing outside the cache.
A run that begins sweeps too, so several sweeps may run at once: who removes a folder holds it.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from pathlib import Path

import msgspec

from cleanroom.backends.base import Leftover
from cleanroom.backends.run_folders import GROUPS, OWNER, PREFIX, run_areas
from cleanroom.core.beneath import Folder
from cleanroom.sandbox import journal
from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.kernel import cgroups

# a folder without an owner yet may belong to a run that is just beginning
MINIMUM_AGE_SECONDS = 30.0
_GROUPS_BYTES = 64 << 10  # one path a line
_OWNER_BYTES = 64  # PID:START


class SweepFindings(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, what could not be, what is left for now and why,
    and the runs that are alive and were left alone.
    """

    removed: tuple[Leftover, ...] = ()
    left: tuple[Leftover, ...] = ()
    living: frozenset[str] = frozenset()
    # nobody can tell yet, or from here; `detail` says why and until when
    waiting: tuple[Leftover, ...] = ()


def merged(one: SweepFindings, other: SweepFindings) -> SweepFindings:
    """Both as one."""
    return SweepFindings(
        removed=one.removed + other.removed,
        left=one.left + other.left,
        living=one.living | other.living,
        waiting=one.waiting + other.waiting,
    )


def sweep(cache: Path, journals: Iterable[Folder]) -> SweepFindings:
    """Remove what dead runs left: their folders under `cache`/runs, their groups;
    then close the journals that name them in these folders of a project.
    """
    found = sweep_runs(cache)
    removed, left, waiting = list(found.removed), list(found.left), list(found.waiting)
    for group in _groups(cgroups.homes().folders.values()):
        if _is_of(group, found.living) or _populated(group):
            continue
        if wait := _group_too_young(group):
            waiting.append(Leftover(kind="cgroup", name=str(group), detail=wait))
        else:
            _remove(group, "cgroup", removed, left)
    for folder in journals:
        _record_removals(folder)
    return SweepFindings(
        removed=tuple(removed), left=tuple(left), living=found.living, waiting=tuple(waiting)
    )


def sweep_runs(cache: Path) -> SweepFindings:
    """The runs alone, which takes no time where all are alive."""
    removed: list[Leftover] = []
    left: list[Leftover] = []
    waiting: list[Leftover] = []
    living: set[str] = set()
    for runs, folder in _runs(cache):
        name = folder.path.name
        # Held until the block ends, so that others who sweep take it for a living one.
        with journal.try_lock(folder, OWNER) as free:
            alive = _owner_lives(folder)
            if alive or not free:
                living.add(name)
                continue
            if alive is None and (wait := _too_young(os.fstat(folder.descriptor))):
                waiting.append(Leftover(kind="folder", name=str(folder.path), detail=wait))
                continue
            for group in _groups(_named_groups(folder)):
                if _is_of(group, {name}) and not _populated(group):
                    _remove(group, "cgroup", removed, left)
            for area in run_areas(name):
                _remove_run_area(area, removed, left)
            _remove_folder(runs, name, removed, left)
    return SweepFindings(
        removed=tuple(removed), left=tuple(left), living=frozenset(living), waiting=tuple(waiting)
    )


def dead_run_folders(cache: Path) -> list[Path]:
    """Folders of dead runs, for `doctor`."""
    return [
        folder.path
        for _, folder in _runs(cache)
        if not journal.locked(folder, OWNER) and not _names_a_living(folder)
    ]


def left_of(run_id: str) -> tuple[Leftover, ...]:
    """Control groups and folders outside the cache that a run with this id has still."""
    groups = [
        Leftover(kind="cgroup", name=str(group))
        for group in _groups(cgroups.homes().folders.values())
        if _is_of(group, {run_id})
    ]
    areas = [
        Leftover(kind="folder", name=str(area))
        for area in run_areas(run_id)
        if os.path.lexists(area)
    ]
    return (*groups, *areas)


def _runs(cache: Path) -> Iterator[tuple[Folder, Folder]]:
    """The folder of all runs and each run's, which are held open until the next."""
    try:
        with Folder.at(cache) as around:
            runs = around.folder("runs")
    except OSError:
        return
    with runs:
        for name in _names(runs):
            try:
                folder = runs.folder(name)
            except OSError:  # no folder, or removed meanwhile
                continue
            with folder:
                yield runs, folder


def _names(folder: Folder) -> list[str]:
    with contextlib.suppress(OSError):
        return folder.names()
    return []


def _names_a_living(folder: Folder) -> bool:
    """By the process that is written down; without one, young folders count as living."""
    alive = _owner_lives(folder)
    return bool(_too_young(os.fstat(folder.descriptor))) if alive is None else alive


def _owner_lives(folder: Folder) -> bool | None:
    """None: no process is written down."""
    try:
        with folder.reading(OWNER) as file:
            return journal.alive(file.read(_OWNER_BYTES).decode())
    except (OSError, ValueError):
        return None


def _too_young(info: os.stat_result) -> str:
    """Until when what nobody has claimed may belong to a run that just begins;
    empty once it is old.
    """
    left = info.st_mtime + MINIMUM_AGE_SECONDS - time.time()
    return (
        f"may be of a run that just begins; a sweep takes it in {math.ceil(left)} s"
        if left > 0
        else ""
    )


def _group_too_young(group: Path) -> str:
    """As `_too_young`; empty where it is gone."""
    with contextlib.suppress(OSError):
        return _too_young(group.stat())
    return ""


def _is_of(group: Path, runs: Set[str]) -> bool:
    """Whether a group belongs to one of these runs; one of another cache may be about to get its
    first process.
    """
    return any(group.name.startswith(f"{PREFIX}{run}-") for run in runs)


def _named_groups(folder: Folder) -> list[Path]:
    """Where the run made its control groups: not where whoever sweeps would make them,
    who may have been started elsewhere.
    """
    with contextlib.suppress(OSError, ValueError), folder.reading(GROUPS) as file:
        return [Path(line) for line in file.read(_GROUPS_BYTES).decode().splitlines()]
    return []


def _groups(folders: Iterable[Path]) -> Iterator[Path]:
    """Our groups in these folders."""
    for folder in sorted(set(folders)):
        with contextlib.suppress(OSError):
            yield from sorted(
                child
                for child in folder.iterdir()
                if child.is_dir() and child.name.startswith(PREFIX)
            )


def _populated(group: Path) -> bool:
    try:
        return bool((group / "cgroup.procs").read_text().strip())
    except OSError:
        return True


def _remove(path: Path, kind: str, removed: list[Leftover], left: list[Leftover]) -> None:
    _try(path.rmdir, Leftover(kind=kind, name=str(path)), removed, left)


def _remove_folder(
    around: Folder, name: str, removed: list[Leftover], left: list[Leftover]
) -> None:
    leftover = Leftover(kind="folder", name=str(around.path / name))
    _try(partial(tree_removal.remove_beneath, around.descriptor, name), leftover, removed, left)


def _remove_run_area(area: Path, removed: list[Leftover], left: list[Leftover]) -> None:
    """One that this user made: in a sticky folder nobody else can put another in its place."""
    with contextlib.suppress(OSError), Folder.at(area.parent) as around:
        found = os.stat(area.name, dir_fd=around.descriptor, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            _remove_folder(around, area.name, removed, left)


def _try(
    act: Callable[[], None], leftover: Leftover, removed: list[Leftover], left: list[Leftover]
) -> None:
    try:
        act()
        removed.append(leftover)
    except FileNotFoundError:
        return  # whoever made it was faster
    except OSError as error:
        left.append(msgspec.structs.replace(leftover, detail=error.strerror or str(error)))


def _record_removals(folder: Folder) -> None:
    """Say in a dead run's journal what was seen to be gone, and close it when that is all."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        record = journal.read(folder)
        if record.closed or record.owner_lives:
            return
        written = journal.Journal.at(folder)
        remaining = [
            leftover
            for leftover in record.left
            if leftover.kind == "folder" and os.path.lexists(leftover.name)
        ]
        for leftover in record.left:
            if leftover not in remaining:
                written.gone(leftover)
        if not remaining:
            written.close()
