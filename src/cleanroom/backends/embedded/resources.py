"""What a run makes on this machine: journalled and named to the keeper before it exists.

Should the engine die, the keeper removes what it was told; should both die, the next sweep does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread

from cleanroom.backends.base import Leftover
from cleanroom.backends.embedded.keeper_client import KeeperClient
from cleanroom.backends.embedded.ledger import Ledger
from cleanroom.backends.embedded.machine_facts import MachineFacts
from cleanroom.backends.run_folders import claim
from cleanroom.core.beneath import Folder
from cleanroom.model.errors import ArtifactError, EnvironmentFailed
from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.journal import Journal, Resource

# opens the run's journal, and makes it if it is not there
OpenJournal = Callable[[], Journal]


class RunSettings(NamedTuple):
    """What a backend is told of its run."""

    run_id: str
    # the run's own folder outside the project, which the backend makes and removes
    scratch: Path
    open_journal: OpenJournal


class FolderUser(Protocol):
    """An environment that may show a folder of the host."""

    id: str

    def uses(self, folder: Path) -> bool: ...


class Resources:
    """The journal, the folders and the ledger of one run."""

    def __init__(
        self,
        run: RunSettings,
        keeper: KeeperClient,
        ledger: Ledger,
        facts: MachineFacts,
        environments: Mapping[str, FolderUser],
    ) -> None:
        """`environments` are those that run now: a folder that one of them shows is not removed."""
        self._run = run
        self._keeper = keeper
        self._ledger = ledger
        self._facts = facts
        self._environments = environments
        self._journal: Journal | None = None
        # folders that only this run uses, each held open
        self._tops: list[Folder] = []
        # the scratch and further tops, to be removed in the end
        self._scratch: Resource | None = None
        self._run_folders: list[Resource] = []
        # path of a folder that was named to the keeper -> its parent
        self._parents: dict[str, Folder] = {}
        self._claiming = anyio.Lock()
        # the locked file that tells sweeps that this run lives
        self._owner_lock = -1

    # --- the journal

    def record(self, kind: str, name: str) -> Resource:
        """Journal a resource before it is made."""
        if self._journal is None:
            self._journal = self._run.open_journal()
            self._journal.open(self._run.run_id)
            self._keeper.send({"op": "journal"}, [self._journal.descriptor])
        self._ledger.created += 1
        return self._journal.make(kind, name)

    def gone(self, resource: Resource) -> None:
        """Journal that the resource was seen to be gone."""
        assert self._journal is not None
        self._ledger.removed += 1
        self._journal.gone(resource)

    # --- folders

    async def folder(self, path: Path) -> Resource:
        """Make a folder below one of the run's own; the keeper removes it should the engine die.

        Raises:
            ArtifactError: the disk refuses it.
        """
        resource: Resource | None = None
        # Shielded: a folder of a cancelled call would have no owner that drops it.
        with cache_errors(path), anyio.CancelScope(shield=True):
            resource = await self._make_folder(path)
        assert resource is not None
        return resource

    async def _make_folder(self, path: Path) -> Resource:
        async with self._claiming:
            if not self._tops:
                await self._claim_scratch()
        parent = self._below_top(path.parent)
        resource = self._own(parent, path.name)
        await anyio.to_thread.run_sync(
            lambda: parent.folder(path.name, make=True, mode=0o700).close()
        )
        return resource

    async def _claim_scratch(self) -> None:
        """Make the run's scratch, and write into it which process it belongs to."""
        scratch = self._run.scratch
        parent = await anyio.to_thread.run_sync(_make_parent, scratch)
        self._scratch = self._own(parent, scratch.name)
        top = parent.folder(scratch.name, make=True, mode=0o700)
        self._tops.append(top)
        homes = self._facts.cgroup_homes
        self._owner_lock = await anyio.to_thread.run_sync(
            lambda: claim(top, homes().folders.values())
        )
        self._keeper.send({"op": "hold"}, [self._owner_lock])

    def _below_top(self, path: Path) -> Folder:
        """The folder `path` below one of the run's own, made if missing; the caller closes it."""
        top = next((top for top in self._tops if path.is_relative_to(top.path)), None)
        assert top is not None, f"{path} is not below the run's own folder"
        return top.folder(path.relative_to(top.path).as_posix(), make=True, mode=0o711)

    async def make_run_folder(self, path: Path, make: Callable[[Folder, str], Folder]) -> None:
        """Make one more folder of the run's own, with `make(parent, name)`.

        Raises:
            FileExistsError: there is one of this name, which is not ours to remove.
        """
        parent = await anyio.to_thread.run_sync(Folder.at, path.parent)
        resource = self._own(parent, path.name)
        try:
            self._tops.append(await anyio.to_thread.run_sync(make, parent, path.name))
        except FileExistsError:
            self._disown(resource)
            raise
        self._run_folders.append(resource)

    def run_folder(self, path: Path) -> Folder:
        """The run's own folder at `path`, held open until the run ends."""
        found = next((top for top in self._tops if top.path == path), None)
        assert found is not None, f"{path} is no folder of this run's own"
        return found

    async def drop_folder(self, resource: Resource) -> None:
        """Remove a folder and all that is in it.

        One that a running environment shows stays, and so does one that cannot be removed:
        the ledger lists it.
        """
        path = Path(resource.name)
        self._ledger.withdraw(resource.name)
        user = next((e.id for e in self._environments.values() if e.uses(path)), "")
        if user:
            detail = f"environment {user} uses it: it has to end first"
            self._ledger.report_left(Leftover(kind="folder", name=resource.name, detail=detail))
            return
        parent = self._parents[resource.name]
        if not await anyio.to_thread.run_sync(_remove, parent, path.name):
            self._ledger.report_left(Leftover(kind="folder", name=resource.name))
            return
        self._disown(resource)

    async def drop_run_folders(self) -> None:
        """Remove the run's own folders, the scratch last."""
        for resource in self._run_folders:
            await self.drop_folder(resource)
        if self._scratch is not None:
            await self.drop_folder(self._scratch)

    def _own(self, parent: Folder, name: str) -> Resource:
        """Journal a folder and name it to the keeper, before it exists.

        `parent` stays open until the folder is dropped.
        """
        path = str(parent.path / name)
        resource = self.record("folder", path)
        self._parents[path] = parent
        self._keeper.send({"op": "own", "folder": path, "name": name}, [parent.descriptor])
        return resource

    def _disown(self, resource: Resource) -> None:
        self._parents.pop(resource.name).close()
        with contextlib.suppress(EnvironmentFailed):
            self._keeper.send({"op": "disown", "folder": resource.name})
        self.gone(resource)

    def close(self) -> None:
        """Close the journal and all folders."""
        if self._journal is not None:
            self._journal.close()
        if self._owner_lock >= 0:
            os.close(self._owner_lock)
        for folder in (*self._tops, *self._parents.values()):
            folder.close()


def _make_parent(scratch: Path) -> Folder:
    scratch.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Folder.at(scratch.parent)


def _remove(parent: Folder, name: str) -> bool:
    """Remove a folder; whether it is gone."""
    with contextlib.suppress(FileNotFoundError):
        tree_removal.remove_beneath(parent.descriptor, name)
    try:
        os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Translate the disk's errors in the cache.

    Raises:
        ArtifactError: the disk refused something; the message has the path and a hint.
    """
    try:
        yield
    except OSError as error:
        hint = "make room in the cache, or make it yours; CLEANROOM_CACHE names another folder"
        raise ArtifactError(
            "CR-SANDBOX-009",
            f"{error.filename or folder}: the cache cannot be used: {error.strerror}",
            hint=hint,
        ) from error
