"""Workspaces of the embedded backend: their base, and the one made of copy-on-write layers.

`copied_workspace` has the other one, for where no overlay can be mounted.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import anyio.to_thread

from cleanroom.backends.base import CONFLICTS, Change, Renewed, WorkspaceSpec, WrittenBack
from cleanroom.backends.embedded.home_cache import HomeCache
from cleanroom.core.beneath import Folder
from cleanroom.model.errors import ArtifactError
from cleanroom.sandbox.filesystem import changes as layer_changes
from cleanroom.sandbox.filesystem import (
    layers,
    merge_layers,
    mount_plan,
    saved_changes,
    tree_removal,
)
from cleanroom.sandbox.filesystem.changes import Entry
from cleanroom.sandbox.filesystem.write_back import Outcome, ProjectWriter


class HostWorkspace(ABC):
    """A workspace whose changes lie in a folder of the host, until they are written back."""

    unchangeable: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()

    def __init__(self, spec: WorkspaceSpec) -> None:
        """Holds the project's folder until `close`."""
        self.root = spec.root
        self.masked = spec.masked
        self._project = Folder.at(Path(spec.root))
        self._writer = ProjectWriter(self._project, time.time_ns())
        self._changes: list[Entry] = []
        self._visible: tuple[str, ...] = mount_plan.TRUSTED_LINKS
        self.home = HomeCache(Path(spec.scratch), Path(spec.root))

    async def finish_home(self, keep: bool) -> None:
        """Keep or discard what the last environment wrote to its home's `.cache`."""
        await anyio.to_thread.run_sync(self.home.finish, keep)

    def close(self) -> None:
        """Close the project's folder."""
        self._project.close()

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        """Count changes of the project between these moments (wall clock) as the run's own."""
        self._writer.host.add_own_interval(began_ns, ended_ns)

    async def renew(self, since_ns: int) -> Renewed:
        """Forget the last changes, and show the project as it is now."""
        return await anyio.to_thread.run_sync(self._renew, since_ns)

    @abstractmethod
    def _renew(self, since_ns: int) -> Renewed:
        """As `renew`. Blocks."""

    @abstractmethod
    def _changed_folder(self) -> Path | None:
        """The folder with the changes of the environment that was left last, if there is one."""

    @abstractmethod
    def _find_changes(self, written: Folder) -> list[Entry]:
        """The differences between this folder and the project."""

    def _forget_changes(self) -> None:
        """Forget the last changes, all of which the project has now. Blocks."""
        self._changes = []

    async def changes(self, tools: Sequence[str] = ()) -> tuple[Change, ...]:
        """The changes of the environment that was left last."""
        self._visible = (*mount_plan.TRUSTED_LINKS, *tools)
        self._changes = await anyio.to_thread.run_sync(self._read_changes)
        return tuple(map(_change, self._changes))

    def _read_changes(self) -> list[Entry]:
        place = self._changed_folder()
        if place is None:
            return []
        with Folder.at(place) as written:
            return self._find_changes(written)

    async def write_back(
        self,
        paths: Sequence[str] | None,
        run: Folder,
        conflicts: str = CONFLICTS,
    ) -> WrittenBack:
        """Write the changes at `paths` to the project; None means all but git's and ggen's."""
        chosen = None if paths is None else frozenset(paths)
        return await anyio.to_thread.run_sync(self._write_back, chosen, run, conflicts)

    def _write_back(
        self,
        chosen: frozenset[str] | None,
        run: Folder,
        conflicts: str,
    ) -> WrittenBack:
        place = self._changed_folder()
        if place is None:
            return WrittenBack(files=0, bytes=0)
        selected = [entry for entry in self._changes if _is_chosen(entry, chosen)]
        with Folder.at(place) as written:
            done = self._writer.apply(written, selected, run, self._visible, conflicts)
        whole = not (done.conflicts or done.refused or done.failed)
        if whole and len(selected) == len(self._changes):
            self._forget_changes()
        return written_back(done)

    async def save_changes(self, run: Folder, inside: str) -> None:
        """Copy the last changes to a folder of the run, for a person to read."""
        await anyio.to_thread.run_sync(self._save_changes, run, inside)

    def _save_changes(self, run: Folder, inside: str) -> None:
        place = self._changed_folder()
        if place is None:
            return
        try:
            with Folder.at(place) as written:
                saved_changes.save(written, self._changes, run, inside)
        except OSError as error:
            raise ArtifactError(
                "CR-WORKSPACE-004",
                (
                    f"what was to be kept could not be written to {run.path / inside}: "
                    f"{error.strerror}"
                ),
                hint="make room, and run again",
            ) from error


def written_back(done: Outcome) -> WrittenBack:
    """The outcome of a write-back in the protocol's terms."""
    return WrittenBack(
        files=done.files,
        bytes=done.bytes,
        deleted=done.deleted,
        conflicts=done.conflicts,
        unremoved=done.unremoved,
        unkept=done.unkept,
        refused=_changes(done.refused),
        failed=_changes(done.failed),
    )


def _changes(entries: Iterable[Entry]) -> tuple[Change, ...]:
    return tuple(map(_change, entries))


def _change(entry: Entry) -> Change:
    return Change(
        path=entry.path,
        kind=entry.kind,
        bytes=entry.bytes,
        reason=entry.reason,
        target=entry.target,
        mode=entry.mode,
        former_link=entry.former_link,
    )


def _is_chosen(entry: Entry, chosen: frozenset[str] | None) -> bool:
    if chosen is None:
        return not any(name in layers.NEVER_WRITTEN_BACK for name in entry.path.split("/"))
    return entry.path in chosen


class EmbeddedWorkspace(HostWorkspace):
    """A project's folder below a growing stack of layers, one per environment that used it."""

    def __init__(self, spec: WorkspaceSpec, user: int) -> None:
        super().__init__(spec)
        self._user = (user, user) if os.geteuid() == 0 else None
        self.unchangeable = tuple(layers.foreign_files(Path(spec.root))) if os.geteuid() else ()
        self._scratch = Path(spec.scratch)
        # Oldest first; one whose changes are all in the project is taken out.
        self._layers: list[Path] = []
        self._number = 0
        self._in_place = False

    async def push(self) -> list[Path]:
        """Put a new layer on top; returns the stack, the newest first."""
        if len(self._layers) >= merge_layers.LAYERS_MAX:
            self._layers = [await anyio.to_thread.run_sync(merge_layers.merge, self._layers)]
        # Whatever was written to the project in place was the run's own.
        if self._in_place:
            self._in_place = False
            self._writer = ProjectWriter(self._project, time.time_ns())
        self._number += 1
        layer = self._scratch / f"layer-{self._number}"
        await anyio.to_thread.run_sync(layers.make, layer, Path(self.root), self._user)
        self._layers.append(layer)
        return list(reversed(self._layers))

    def used_in_place(self) -> None:
        """The next environment writes to the project itself: nothing is to be written back."""
        self._in_place = True

    def _renew(self, since_ns: int) -> Renewed:
        if not self._in_place and self._layers:
            tree_removal.remove_tree(self._layers.pop())
        self.add_own_interval(since_ns, time.time_ns())
        hidden = {path for layer in self._layers for path in self._changed_above(layer, since_ns)}
        return Renewed(possible=True, hidden=tuple(sorted(hidden)))

    def _changed_above(self, layer: Path, since_ns: int) -> Iterator[str]:
        """Files of a layer that changed in the project since then."""
        upper = layer / "upper"
        for folder, _, names in os.walk(upper):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), upper)
                if self._changed_ns(path) >= since_ns:
                    yield path

    def _changed_ns(self, path: str) -> int:
        """When the project's file changed last; 0 where there is none."""
        try:
            descriptor = self._project.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            return os.fstat(descriptor).st_ctime_ns
        finally:
            os.close(descriptor)

    def _changed_folder(self) -> Path | None:
        return self._layers[-1] / "upper" if self._layers and not self._in_place else None

    def _find_changes(self, written: Folder) -> list[Entry]:
        return layer_changes.find_changes(written, self._project, self._visible)

    def _forget_changes(self) -> None:
        super()._forget_changes()
        # The project shows the same without it, unless an older layer lies in between.
        if len(self._layers) == 1:
            tree_removal.remove_tree(self._layers.pop())
