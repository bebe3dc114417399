"""The fetch step of a run: finds dependencies, fetches what the store lacks, lays it out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from cleanroom.core.files import write_atomic
from cleanroom.dependencies.eviction import StoreUse, evict
from cleanroom.dependencies.managers import measures
from cleanroom.dependencies.model import (
    NO_ACCESS,
    RECORD,
    Access,
    Complete,
    Fetched,
    Overlay,
    Problem,
    problem_lines,
)
from cleanroom.dependencies.session import Manager
from cleanroom.dependencies.store import PAUSE_SECONDS, Store
from cleanroom.engine.fetch.environment import FetchEnvironments
from cleanroom.engine.fetch.find import FoundSet
from cleanroom.engine.fetch.progress import Progress
from cleanroom.engine.fetch.session import FetchPolicy, FetchSession
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver
from cleanroom.engine.supervision.service_data import in_thread
from cleanroom.model.errors import DependencyUnavailable
from cleanroom.model.events import Artifact, Note, Subject


@asynccontextmanager
async def fetched_dependencies(
    context: RunContext,
    observer: EnvironmentObserver,
    sets: Sequence[FoundSet],
    cache: Path,
    policy: FetchPolicy,
) -> AsyncIterator[Access]:
    """Fetch what these sets name, and keep it while phases use it; yields how they reach it.

    A run that added to the store prunes it at its end.

    Raises:
        DependencyRejected: a registry gave another file than a lock names.
        ProjectError: a lock file cannot be read.
    """
    store = await anyio.to_thread.run_sync(Store, cache, measures())
    # In no thread: cancelled there, the run would lose what it has to close.
    use = StoreUse(store)
    step = FetchStep(context, observer, store, use, policy)
    try:
        yield await step.run(sets)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(use.close)
            if step.added:
                await anyio.to_thread.run_sync(evict, store)


class FetchStep:
    """The fetch step of one run."""

    def __init__(
        self,
        context: RunContext,
        observer: EnvironmentObserver,
        store: Store,
        use: StoreUse,
        policy: FetchPolicy,
    ) -> None:
        self.added = False  # to the store
        self._use = use
        self._context = context
        self._bus = context.bus
        self._store = store
        self._policy = policy
        self._environments = FetchEnvironments(context, observer)

    async def run(self, sets: Sequence[FoundSet]) -> Access:
        """See that all of these are in the store, and return how phases reach them.

        What no registry gives is a warning: the phases may not need it.

        Raises:
            DependencyRejected: a registry gave another file than a lock names.
            ProjectError: a lock file cannot be read.
        """
        complete: list[tuple[FoundSet, Fetched]] = []
        recorded: list[Fetched] = []
        await anyio.to_thread.run_sync(lambda: self._use.add(*(one.key for one in sets)))
        for one in sets:
            try:
                fetched = await self._ensure(one)
            except DependencyUnavailable as error:
                self._warn(error)
                recorded.append(_missing(one, error))
            else:
                complete.append((one, fetched))
                recorded.append(fetched)
        views = _views(complete)
        await anyio.to_thread.run_sync(lambda: self._use.add(*views))
        accesses = [await self._lay_out(name, pairs) for name, pairs in views.items()]
        await self._record(recorded)
        return merged(accesses)

    async def _ensure(self, one: FoundSet) -> Fetched:
        """The complete set.

        Raises:
            DependencyUnavailable: it cannot be had.
        """
        fetched = await anyio.to_thread.run_sync(self._store.load, one.key)
        if fetched is not None:
            return fetched
        lock = await self._acquire(one.key)
        try:
            # Another run may have fetched it while this one waited.
            fetched = await anyio.to_thread.run_sync(self._store.load, one.key)
            return fetched or await self._fetch(one)
        finally:
            os.close(lock)

    def _warn(self, error: DependencyUnavailable) -> None:
        """Say what cannot be had; an error where it must be."""
        if self._policy.required:
            raise error
        self._note(f"{error}; {error.hint}", error.code)

    async def _acquire(self, key: str) -> int:
        """The lock of a key, a descriptor; another run may be fetching the same set."""
        while True:
            # In no thread: cancelled there, the run would lose the descriptor of a lock it has.
            lock = self._store.try_lock(key)
            if lock is not None:
                return lock
            await anyio.sleep(PAUSE_SECONDS)

    async def _fetch(self, one: FoundSet) -> Fetched:
        subject = Subject("fetch", f"{one.manager.name} {one.found.name}")
        with self._bus.span(subject) as span:
            pump = self._context.pump(subject, "fetch", span.context)
            progress = Progress(lambda data: pump.feed("stdout", data), one.found.name)
            lock = await anyio.to_thread.run_sync(one.manager.read, one.found)
            session = FetchSession(
                one.manager, self._store, self._environments, progress, self._policy
            )
            try:
                async with session:
                    artifacts = await one.manager.resolve(session, one.found, lock)
                    files = await session.download(artifacts)
            finally:
                pump.end()
            problems = (*lock.problems, *session.problems)
            fetched = Fetched(
                manager=one.manager.name,
                folder=one.found.folder,
                name=one.found.name,
                files=files,
                unpinned=lock.unpinned,
                problems=problems,
                fetched_unix=int(time.time()),
            )
            self.added = True
            await anyio.to_thread.run_sync(self._store.save, one.key, fetched)
            span.attributes["files"] = len(files)
            span.attributes["fetched"] = progress.fetched
            span.attributes["bytes"] = progress.bytes
            for line in problem_lines(problems):
                self._note(f"{one.found.name}: {line}", "CR-FETCH-008")
            for caution in lock.cautions:
                self._note(f"{one.found.name}: {caution}", "CR-FETCH-020")
        return fetched

    async def _lay_out(self, name: str, complete: Sequence[tuple[FoundSet, Fetched]]) -> Access:
        """The view of all of a manager's sets, made unless it is there."""
        manager = complete[0][0].manager
        view = await anyio.to_thread.run_sync(self._store.view, name)
        if view is None:
            sets = [Complete(one.found, fetched) for one, fetched in complete]
            try:
                view = await self._build(manager, sets, name, [one.key for one, _ in complete])
            except DependencyUnavailable as error:
                self._warn(error)
                return NO_ACCESS
        return manager.access(str(view))

    async def _build(
        self, manager: Manager, sets: Sequence[Complete], name: str, keys: Sequence[str]
    ) -> Path:
        place = self._store.place(name)
        subject = Subject("prepare", f"{manager.name} store")
        with self._bus.span(subject) as span:
            pump = self._context.pump(subject, "fetch", span.context)
            progress = Progress(lambda data: pump.feed("stdout", data), manager.name)
            session = FetchSession(manager, self._store, self._environments, progress, self._policy)
            try:
                async with session, in_thread(self._store.building()) as around:
                    assert around is not None, "a new folder"
                    built = around / "view"
                    built.mkdir(mode=0o755)
                    await manager.lay_out(session, sets, built, str(place))
                    for line in problem_lines(session.problems):
                        self._note(f"{manager.name}: {line}", "CR-FETCH-008")
                    return await anyio.to_thread.run_sync(
                        self._store.finish_view, built, name, keys
                    )
            finally:
                pump.end()

    async def _record(self, sets: Sequence[Fetched]) -> None:
        """Write what phases could use, and what could not be had, into the run's folder."""
        encoded = msgspec.json.format(msgspec.json.encode(sets), indent=1).decode()
        text = self._context.redactor.text(encoded).encode()
        folder = self._context.folder
        await anyio.to_thread.run_sync(write_atomic, folder, RECORD, text)
        self._bus.publish(
            Artifact(
                subject=Subject("run", self._context.plan.project),
                path=self._context.shown(folder.path / RECORD),
                role="dependencies",
                bytes=len(text),
                sha256=hashlib.sha256(text).hexdigest(),
                files=1,
            )
        )

    def _note(self, text: str, code: str) -> None:
        subject = Subject("run", self._context.plan.project)
        self._bus.publish(Note(subject=subject, level="warning", text=text, code=code))


def _views(
    complete: Sequence[tuple[FoundSet, Fetched]],
) -> dict[str, list[tuple[FoundSet, Fetched]]]:
    """The name of each manager's view, with the sets that are in it."""
    found = {}
    for manager in dict.fromkeys(one.manager for one, _ in complete):
        pairs = [pair for pair in complete if pair[0].manager is manager]
        keys = sorted({one.key for one, _ in pairs})
        context = manager.view_context()
        parts = [*keys, *([context] if context else [])]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        found[f"{manager.name}-{manager.layout}-{digest}"] = pairs
    return found


def _missing(one: FoundSet, error: DependencyUnavailable) -> Fetched:
    """The record of a set of which there is nothing."""
    return Fetched(
        manager=one.manager.name,
        folder=one.found.folder,
        name=one.found.name,
        problems=(Problem(entry=one.found.name, why=str(error), hint=error.hint),),
    )


def merged(accesses: Iterable[Access]) -> Access:
    """All of them as one; managers have variables of their own."""
    variables: dict[str, str] = {}
    folders: list[str] = []
    overlays: list[Overlay] = []
    for access in accesses:
        variables |= access.variables
        folders += access.folders
        overlays += access.overlays
    return Access(variables, tuple(folders), tuple(overlays))
