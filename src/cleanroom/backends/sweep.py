"""Removing what dead runs left on this machine: folders in the cache and control groups.

Processes, mounts and namespaces need no sweep: the kernel ends them with their wardens. A run lives while one of its processes holds its `owner` file, in
whatever pid namespace, or while the process that this file or its journal names lives (pid and start time, since pids are used again). Nothing of a
living run is touched, and nothing outside the cache. A run that begins sweeps too, so several sweeps may run at once: who removes a folder holds it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cleanroom.artifacts import open_to_read
from cleanroom.backends.base import Left
from cleanroom.backends.places import grounds
from cleanroom.sandbox import cgroups, journal, layers

OWNER = "owner"
GROUPS = "groups"
MINIMUM_AGE_SECONDS = 30.0  # a folder without an owner yet may belong to a run that is just beginning
_GROUPS_BYTES = 64 << 10  # one path a line
_OWNER_BYTES = 64  # PID:START
PREFIX = "cleanroom-"


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, what could not be, and the runs that are alive and were left alone."""

    removed: tuple[Left, ...] = ()
    left: tuple[Left, ...] = ()
    living: frozenset[str] = frozenset()


def claim(scratch: Path, groups: Iterable[Path] = ()) -> int:
    """Write down whose this run's folder is, and in which folders its control groups are made. The run lives while the descriptor is open somewhere."""
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    (scratch / GROUPS).write_text("".join(f"{folder}\n" for folder in sorted(set(groups))))
    descriptor = os.open(scratch / OWNER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    journal.hold(descriptor)
    os.write(descriptor, journal.process_name(os.getpid()).encode())
    return descriptor


def sweep(cache: Path, journals: Sequence[Path]) -> SweepReport:
    """Remove what dead runs left: their folders under `cache`/runs, their groups; then close the `journals` of a project that name them."""
    found = sweep_runs(cache)
    removed, left = list(found.removed), list(found.left)
    for group in _groups(cgroups.homes().folders.values()):
        if not _of(group, found.living) and _old(group) and not _populated(group):
            _remove(group, "cgroup", removed, left)
    for path in journals:
        _settle(path)
    return SweepReport(removed=tuple(removed), left=tuple(left), living=found.living)


def sweep_runs(cache: Path) -> SweepReport:
    """The runs alone, which takes no time where all are alive."""
    removed: list[Left] = []
    left: list[Left] = []
    living: set[str] = set()
    for folder in _runs(cache):
        with _seized(folder) as dead:
            if not dead:
                living.add(folder.name)
                continue
            for group in _groups(_named_groups(folder)):
                if _of(group, {folder.name}) and not _populated(group):
                    _remove(group, "cgroup", removed, left)
            for ground in grounds(folder.name):
                if ground.is_dir() and not ground.is_symlink() and ground.stat().st_uid == os.geteuid():
                    _remove(ground, "folder", removed, left)
            _remove(folder, "folder", removed, left)
    return SweepReport(removed=tuple(removed), left=tuple(left), living=frozenset(living))


def leftovers(cache: Path) -> list[Path]:
    """Folders of dead runs, for `doctor`."""
    return [folder for folder in _runs(cache) if not journal.held(folder / OWNER) and not _names_a_living(folder)]


def _runs(cache: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder for folder in (cache / "runs").iterdir() if folder.is_dir() and not folder.is_symlink())
    return []


@contextmanager
def _seized(folder: Path) -> Iterator[bool]:
    """Whether the folder's run is dead. If so, it is held until the block ends, so that others who sweep take it for a living one."""
    with journal.seized(folder / OWNER) as free:
        yield free and not _names_a_living(folder)


def _names_a_living(folder: Path) -> bool:
    """By the process that is written down; without one, young folders count as living."""
    try:
        with open_to_read(folder / OWNER) as file:
            return journal.alive(file.read(_OWNER_BYTES).decode())
    except (OSError, ValueError):
        return not _old(folder)


def _old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > MINIMUM_AGE_SECONDS
    return False


def _of(group: Path, runs: Set[str]) -> bool:
    """Whether a group belongs to one of these runs; one of another cache may be about to get its first process."""
    return any(group.name.startswith(f"{PREFIX}{run}-") for run in runs)


def _named_groups(folder: Path) -> list[Path]:
    """Where the run made its control groups: not where whoever sweeps would make them, who may have been started elsewhere."""
    with contextlib.suppress(OSError, ValueError), open_to_read(folder / GROUPS) as file:
        return [Path(line) for line in file.read(_GROUPS_BYTES).decode().splitlines()]
    return []


def _groups(folders: Iterable[Path]) -> Iterator[Path]:
    """Our groups in these folders."""
    for folder in sorted(set(folders)):
        with contextlib.suppress(OSError):
            yield from sorted(child for child in folder.iterdir() if child.is_dir() and child.name.startswith(PREFIX))


def _populated(group: Path) -> bool:
    try:
        return bool((group / "cgroup.procs").read_text().strip())
    except OSError:
        return True


def _remove(path: Path, kind: str, removed: list[Left], left: list[Left]) -> None:
    thing = Left(kind=kind, name=str(path))
    try:
        path.rmdir() if kind == "cgroup" else layers.remove_tree(path)
        removed.append(thing)
    except FileNotFoundError:
        return  # whoever made it was faster
    except OSError as error:
        left.append(msgspec.structs.replace(thing, detail=error.strerror or str(error)))


def _settle(path: Path) -> None:
    """Say in a dead run's journal what was seen to be gone, and close it when that is all."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if path.parent.is_symlink():  # no folder of ours
            return
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
