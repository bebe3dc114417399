"""What the fetch step would find and do, for people who ask before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from cleanroom.dependencies.addresses import GIT_SCHEME, is_web_address
from cleanroom.dependencies.model import Artifact, Lock, Problem
from cleanroom.dependencies.settings import host_of
from cleanroom.engine.fetch.find import FoundSet, find_all
from cleanroom.model.plan import Plan

if TYPE_CHECKING:
    from cleanroom.dependencies.store import Store


class SetForecast(msgspec.Struct, frozen=True, kw_only=True):
    """One set of dependencies, and what a run would do about it."""

    manager: str
    file: str  # the lock file, relative to the project
    set_files: tuple[str, ...] = ()  # every file of the set, relative to the project
    files: int  # that the lock names; a resolver may find more
    packages: int = 0  # that the lock pins; which of their files, an index or the tool tells
    stored: bool  # nothing would be fetched
    hosts: tuple[str, ...] = ()  # HOST:PORT of the registries that the lock names
    unresolved: tuple[str, ...] = ()  # asked of a registry or of the tool first
    resolved: tuple[str, ...] = ()  # those of them that no lock pins: the tool takes versions
    unpinned: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    cautions: tuple[str, ...] = ()  # what is less safe than it may look: one sentence each


def forecast_dependencies(plan: Plan, caller: Mapping[str, str]) -> list[SetForecast]:
    """One entry for each set. Reads lock files and the store, makes nothing, and blocks.

    Raises:
        ProjectError: a lock file cannot be read.
        ArtifactError: others can change the store.
    """
    sets = find_all(plan, caller)
    if not sets:
        return []
    # Most plans have nothing to look up in the store.
    from cleanroom.core.locations import cache_folder
    from cleanroom.core.private_cache import open_cache
    from cleanroom.dependencies.store import FOLDER, Store

    cache = cache_folder(caller)
    store = None
    if (cache / FOLDER).is_dir():
        # Reading a set verifies its files, and removes those that are others: as a run does.
        open_cache(cache).close()
        store = Store(cache)
    return [_forecast(one, store) for one in sets]


def _forecast(one: FoundSet, store: Store | None) -> SetForecast:
    lock = one.manager.read(one.found)
    fetched = store.load(one.key) if store is not None else None
    unpinned = frozenset(lock.unpinned)
    resolved = tuple(name for name in lock.unresolved if name in unpinned)
    return SetForecast(
        manager=one.manager.name,
        file=one.found.name,
        set_files=tuple(one.found.files),
        files=len(fetched.files if fetched is not None else lock.artifacts),
        packages=len(lock.unresolved) - len(resolved),
        stored=fetched is not None,
        hosts=_hosts(lock),
        unresolved=lock.unresolved,
        resolved=resolved,
        unpinned=lock.unpinned,
        problems=(*lock.problems, *map(_refused, _without_address(lock))),
        cautions=lock.cautions,
    )


def _has_address(one: Artifact) -> bool:
    return is_web_address(one.url.removeprefix(GIT_SCHEME))


def _hosts(lock: Lock) -> tuple[str, ...]:
    return tuple(sorted({host_of(one.url) for one in lock.artifacts if _has_address(one)}))


def _without_address(lock: Lock) -> list[Artifact]:
    """Files that a fetch will refuse: addresses are made of the project's own settings too."""
    return [one for one in lock.artifacts if one.url and not _has_address(one)]


def _refused(one: Artifact) -> Problem:
    return Problem(
        entry=f"{one.name} {one.version}",
        why="its address is no plain one of a file on the web",
        hint="look at the registry that the package manager is configured for",
    )
