"""What the store keeps, and what goes: the sets that were used last, within a size and an age.

A run that lives says what it uses (`StoreUse`), and that is left alone.
What is looked up under the lock "evict" after it was named is there until the run ends.
All functions block.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.core.locks import locked, try_lock
from cleanroom.dependencies.model import Fetched
from cleanroom.dependencies.store import Store, remove_tree

BYTES_MAX = 20 << 30  # of the whole store
AGE_SECONDS = 90 * 86400.0  # since a set was used last
# An evictor holds the lock while it renames and unlinks; longer only where it was stopped.
WAIT_SECONDS = 60.0


class Limits(NamedTuple):
    """What the store may keep."""

    bytes_max: int = BYTES_MAX
    age_seconds: float = AGE_SECONDS


class Usage(NamedTuple):
    """What the store has."""

    sets: int = 0
    files: int = 0
    bytes: int = 0  # of files, and of what views have beside them


class StoreUse:
    """What one run uses of the store: names of sets and views, known to all evictors.

    It counts until `close`, or until the process ends.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token = secrets.token_hex(8)
        self._names: set[str] = set()
        with Folder.at(store.path / "locks") as locks:
            self._lock = try_lock(locks, f"use-{self._token}")

    def add(self, *names: str) -> None:
        """Name sets or views, before they are looked up."""
        self._names |= set(names)
        with _evicting(self._store):
            (self._store.path / "uses" / self._token).write_text("\n".join(sorted(self._names)))

    def close(self) -> None:
        """Nothing of it is used any more."""
        (self._store.path / "uses" / self._token).unlink(missing_ok=True)
        (self._store.path / "locks" / f"use-{self._token}").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def evict(store: Store, limits: Limits | None = None) -> int:
    """Remove what dead builders left, sets and views not used for long, and files of no set.

    Returns the number of bytes of files that were freed.
    """
    limits = limits or Limits()
    store.remove_abandoned()
    with store.building() as aside:
        with _evicting(store):
            used = _used_by_runs(store)
            _remove_sets(store, limits, used)
            _set_aside_views(store, limits, used, aside)
        # Views have names of files: only without them is a file's last name the store's own.
        for path in aside.iterdir():
            remove_tree(path)
    with _evicting(store):
        return _remove_files(store, _used_by_runs(store))


def usage(store: Store) -> Usage:
    """What the store has. Looks at every file."""
    sizes: dict[tuple[int, int], int] = {}
    for part in ("files", "views"):
        for folder, _, names in os.walk(store.path / part):
            for name in names:
                with suppress(FileNotFoundError):
                    found = os.lstat(os.path.join(folder, name))
                    sizes[found.st_dev, found.st_ino] = found.st_size
    files = sum(1 for _ in (store.path / "files").glob("*/*"))
    return Usage(len(_sets(store, forget=False)), files, sum(sizes.values()))


@contextmanager
def _evicting(store: Store) -> Iterator[None]:
    """While it is held nothing is evicted, and nothing new is used."""
    with Folder.at(store.path / "locks") as locks, locked(locks, "evict", seconds=WAIT_SECONDS):
        yield


def _used_by_runs(store: Store) -> frozenset[str]:
    """The sets and views that living runs named. What dead ones named is forgotten."""
    found: set[str] = set()
    for path in (store.path / "uses").iterdir():
        lock = store.try_lock(f"use-{path.name}")
        if lock is not None:
            path.unlink(missing_ok=True)
            (store.path / "locks" / f"use-{path.name}").unlink(missing_ok=True)
            os.close(lock)
            continue
        with suppress(FileNotFoundError):
            found |= set(path.read_text().split("\n"))
    return frozenset(found)


def _remove_sets(store: Store, limits: Limits, used: frozenset[str]) -> None:
    """Remove sets that are too old or too many."""
    oldest = time.time() - limits.age_seconds
    kept: set[str] = set()
    total = 0
    # Those in use count first: they stay in any case.
    for when, path, fetched in sorted(_sets(store), key=lambda one: one[1].stem not in used):
        new = {one.sha256: one.size for one in fetched.files if one.sha256 not in kept}
        fits = when >= oldest and total + sum(new.values()) <= limits.bytes_max
        if fits or path.stem in used:
            kept |= set(new)
            total += sum(new.values())
        else:
            path.unlink(missing_ok=True)


def _set_aside_views(store: Store, limits: Limits, used: frozenset[str], aside: Path) -> None:
    """Move views of which a set is gone."""
    oldest = time.time() - limits.age_seconds
    known = {path.stem for path in (store.path / "sets").glob("*.json")}
    for path in (store.path / "views").iterdir():
        whole = known.issuperset(store.sets_of_view(path.name))
        if path.name not in used and (not whole or path.lstat().st_mtime < oldest):
            path.rename(aside / path.name)
            store.layout(path.name).unlink(missing_ok=True)


def _remove_files(store: Store, used: frozenset[str]) -> int:
    """Remove files that no set and no view has."""
    sets = _sets(store)
    if used - {path.stem for _, path, _ in sets} - {one.name for one in _views(store)}:
        # A run is fetching: any file may belong to the set that it will save.
        return 0
    kept = {one.sha256 for _, _, fetched in sets for one in fetched.files}
    freed = 0
    for path in (store.path / "files").glob("*/*"):
        found = path.lstat()
        # A view has it by another name.
        if path.name not in kept and found.st_nlink == 1:
            path.unlink(missing_ok=True)
            freed += found.st_size
    return freed


def _views(store: Store) -> list[Path]:
    return list((store.path / "views").iterdir())


def _sets(store: Store, *, forget: bool = True) -> list[tuple[float, Path, Fetched]]:
    """The sets, the last used first; with `forget` those that cannot be read are removed."""
    found = []
    for path in (store.path / "sets").glob("*.json"):
        try:
            fetched = msgspec.json.decode(path.read_bytes(), type=Fetched)
            found.append((path.stat().st_mtime, path, fetched))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if forget:
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda one: one[0], reverse=True)
