"""Which records of a project's runs are old enough to go, and their removal.

The audit log is cut first, so that a run whose folder is there is in it, where it can be.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cleanroom.core.arguments import PATH, check
from cleanroom.core.beneath import Folder
from cleanroom.core.clock import SystemClock
from cleanroom.core.files import named
from cleanroom.core.locations import cache_folder
from cleanroom.core.locks import is_in_use
from cleanroom.engine.own_folder import AUDIT, RUNS, check_own_folders, check_writable
from cleanroom.engine.records import EVENTS, events_in, list_runs
from cleanroom.model.plan import Plan, Retention
from cleanroom.sandbox.filesystem import tree_removal

PASSED = ("passed", "cached")
# Some hundred thousand events; what is larger says nothing of what passed.
_EVENTS_BYTES_MAX = 64 << 20


class RecordedRun(NamedTuple):
    """A run by what decides whether its records may go."""

    name: str
    written_ns: int  # when its events were written last, wall clock
    passed: frozenset[tuple[str, str]] = frozenset()  # workspace and phase
    size_bytes: int = 0  # of its folder


class Expired(NamedTuple):
    """What was removed, or would be."""

    runs: tuple[str, ...] = ()
    audit_records: int = 0


def expired(
    runs: Sequence[RecordedRun], limits: Retention, now_ns: int, living: Collection[str]
) -> tuple[str, ...]:
    """Runs whose records go, the oldest first; `runs` too are in that order.

    The newest run stays, those that live, and of each phase the last one that passed; they count.
    What number and size leave no room for is older than all else that stays.
    """
    gone = []
    covered: set[tuple[str, str]] = set()
    kept, size, full = 0, 0, False
    for run in reversed(runs):
        is_last_pass = not run.passed <= covered
        covered |= run.passed
        full = full or not _has_room(limits, kept + 1, size + run.size_bytes)
        is_old = limits.age_seconds is not None and run.written_ns < _before_ns(limits, now_ns)
        stays = kept == 0 or is_last_pass or run.name in living
        if stays or not (full or is_old):
            kept, size = kept + 1, size + run.size_bytes
        else:
            gone.append(run.name)
    return tuple(reversed(gone))


def _has_room(limits: Retention, runs: int, size_bytes: int) -> bool:
    """Whether so many records of this size together are within the limits."""
    return (limits.runs is None or runs <= limits.runs) and (
        limits.size_bytes is None or size_bytes <= limits.size_bytes
    )


def _before_ns(limits: Retention, now_ns: int) -> int:
    """The time before which records are too old; 0 where there is no limit."""
    return 0 if limits.age_seconds is None else now_ns - int(limits.age_seconds * 1e9)


def remove_expired(
    project: str | Path,
    older_seconds: float,
    *,
    dry_run: bool = False,
    caller: Mapping[str, str] | None = None,
) -> Expired:
    """Remove what a project has recorded of runs that ended so long ago.

    With `dry_run` it only says what would go.
    Killed in between, another call goes on; two at once remove each run once.

    Raises:
        ProjectError: the records belong to somebody else, or something else stands in the place of
            a folder of ours.
        ArtifactError: the audit log does not match its own chain, so nothing was removed; or a
            run's folder cannot be removed.
    """
    check("project", project, PATH)
    cache = cache_folder(os.environ if caller is None else caller)
    with Folder.at(Path(project), inherit_owner=True) as root:
        check_own_folders(root)
        check_writable(root)
        return _remove_beyond(root, Retention(age_seconds=older_seconds), cache, dry_run=dry_run)


def at_end_of_run(
    plan: Plan, projects: Mapping[str, Folder], caller: Mapping[str, str]
) -> Callable[[], int] | None:
    """What removes the records beyond the project's limits, and returns of how many runs;
    None where it sets none.

    Blocks, and raises as `remove_expired` does.
    """
    if plan.dry_run or not plan.retention:
        return None
    root, cache = projects[plan.root], cache_folder(caller)
    return lambda: len(_remove_beyond(root, plan.retention, cache).runs)


def _remove_beyond(
    root: Folder, limits: Retention, cache: Path, *, dry_run: bool = False
) -> Expired:
    now_ns, living = time.time_ns(), _not_swept(cache)
    try:
        runs = root.folder(RUNS)
    except FileNotFoundError:
        return Expired()
    with runs:
        found = list(_recorded(root))
        # Reading what passed takes longer than all else, and most ends have nothing to remove.
        if expired(found, limits, now_ns, living):
            found = [run._replace(passed=_passed(runs, run.name)) for run in found]
        names = _not_in_use(runs, expired(found, limits, now_ns, living))
        halves = _not_in_use(runs, _halves(runs, _before_ns(limits, now_ns), living))
        records = _cut_audit(root, names, dry_run) if names else 0
        for name in () if dry_run else (*names, *halves):
            _remove(runs, name)
    return Expired((*names, *halves), records)


def _not_swept(cache: Path) -> frozenset[str]:
    """The runs with this cache that live, or are not swept yet."""
    try:
        with Folder.at(cache) as held, held.folder("runs") as runs:
            return frozenset(runs.names())
    except OSError:
        return frozenset()


def _not_in_use(runs: Folder, names: Iterable[str]) -> tuple[str, ...]:
    """Those that no living engine writes to: it may have another cache, or be another user's."""
    found = []
    for name in names:
        # one that cannot be opened cannot be told, or another sweep was faster
        with suppress(OSError), runs.folder(name) as folder:
            if not is_in_use(folder):
                found.append(name)
    return tuple(found)


def _recorded(root: Folder) -> Iterator[RecordedRun]:
    """The runs of a project, the oldest first, without what passed in them."""
    for name in list_runs(root.path):
        with suppress(OSError), root.folder(f"{RUNS}/{name}") as folder:
            events = os.stat(EVENTS, dir_fd=folder.descriptor, follow_symlinks=False)
            yield RecordedRun(name, events.st_mtime_ns, size_bytes=_size(folder))


def _size(folder: Folder) -> int:
    """Bytes of the files in a run's folder and in the folders in it, where nearly all lies."""
    size = 0
    for name in folder.names():
        info = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            with suppress(OSError), folder.folder(name) as inner:
                size += sum(
                    os.stat(each, dir_fd=inner.descriptor, follow_symlinks=False).st_size
                    for each in inner.names()
                )
        else:
            size += info.st_size
    return size


def _passed(runs: Folder, name: str) -> frozenset[tuple[str, str]]:
    """The phases that passed in a run; none where its events cannot be read."""
    from cleanroom.evidence.reports.fold import fold

    try:
        with runs.folder(name) as folder:
            events = os.stat(EVENTS, dir_fd=folder.descriptor, follow_symlinks=False)
            if events.st_size > _EVENTS_BYTES_MAX:
                return frozenset()
            phases = fold(events_in(folder)).phases
    except Exception:  # records may have come with the project, and say anything
        return frozenset()
    return frozenset((one.workspace, one.name) for one in phases if one.result in PASSED)


def _cut_audit(root: Folder, names: Collection[str], dry_run: bool) -> int:
    from cleanroom.evidence.audit.cut import cut

    try:
        audit = root.folder(AUDIT)
    except FileNotFoundError:
        return 0
    with audit, named("CR-FILE-001", "write to", audit.path):
        return cut(audit, frozenset(names), SystemClock(), dry_run=dry_run)


def _halves(runs: Folder, before_ns: int, living: Collection[str]) -> Iterator[str]:
    """Folders of old runs whose events are gone: whoever removed them was killed.

    One that is just beginning has none yet.
    """
    for name in runs.names():
        with suppress(OSError), runs.folder(name) as folder:
            changed_ns = os.fstat(folder.descriptor).st_mtime_ns
            is_half = EVENTS not in folder.names()
            if is_half and changed_ns < before_ns and name not in living:
                yield name


def _remove(runs: Folder, name: str) -> None:
    """Remove a run's folder: its events first, so that half of one is no run any more.

    Raises:
        ArtifactError: the disk refuses it.
    """
    # FileNotFoundError: another sweep was faster.
    with named("CR-FILE-001", "remove", runs.path / name), suppress(FileNotFoundError):
        with suppress(FileNotFoundError), runs.folder(name) as folder:
            os.unlink(EVENTS, dir_fd=folder.descriptor)
        tree_removal.remove_beneath(runs.descriptor, name)
