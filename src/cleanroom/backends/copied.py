"""The embedded backend's workspaces where no overlay can be mounted: one copy of the project for the run, which its environments share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from cleanroom.backends.base import BroughtBack, Change, WorkspaceSpec
from cleanroom.backends.homes import HomeCache
from cleanroom.sandbox import copies, layers, layout


class CopiedWorkspace:
    """The same promises as `EmbeddedWorkspace`; the copy lies at `place`, another path than the project's."""

    def __init__(self, spec: WorkspaceSpec, place: Path, user: int) -> None:
        self.root = spec.root
        self.masked = spec.masked
        self.place = place
        self._owner = (user, user) if os.geteuid() == 0 else None
        self._returner = layers.Returner(Path(spec.root), time.time_ns())
        place.mkdir(mode=0o700)
        self.unchangeable = tuple(copies.copy(Path(spec.root), place, owner=self._owner, masked=spec.masked)[:3])
        self._before = copies.look(place, spec.masked)
        self._changes: list[layers.Entry] = []
        self.home = HomeCache(Path(spec.scratch), Path(spec.root))

    async def settle_home(self, keep: bool) -> None:
        """Keep what the last environment wrote in its home's `.cache`, or throw it away."""
        await anyio.to_thread.run_sync(self.home.settle, keep)

    async def changes(self) -> tuple[Change, ...]:
        """What the environment that was left last changed."""

        def find() -> list[layers.Entry]:
            after = copies.look(self.place, self.masked)
            found = copies.changes(self.place, Path(self.root), self._before, after, layout.TRUSTED_LINKS)
            self._before = after
            return found

        self._changes = await anyio.to_thread.run_sync(find)
        return tuple(Change(path=e.path, kind=e.kind, bytes=e.bytes, reason=e.reason) for e in self._changes)  # type: ignore[arg-type]

    async def bring_back(self, paths: Sequence[str] | None, conflicts: Path) -> BroughtBack:
        """Write the chosen changes to the project. What stays in the copy is there for later environments."""
        chosen = set(paths) if paths is not None else None
        selected = [e for e in self._changes if (e.path in chosen if chosen is not None else e.path.split("/")[0] not in layers.NEVER)]
        done = await anyio.to_thread.run_sync(self._returner.bring, self.place, selected, conflicts)
        refused = tuple(Change(path=e.path, kind="refused", reason=e.reason) for e in done.refused)
        return BroughtBack(files=done.files, bytes=done.bytes, deleted=done.deleted, conflicts=done.conflicts, refused=refused)

    async def keep(self, folder: Path) -> None:
        """Copy the last changes for a person to read."""

        def copy() -> None:
            for entry in self._changes:
                if entry.kind == "file":
                    target = folder / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    layers.copy_file(self.place / entry.path, target)

        await anyio.to_thread.run_sync(copy)
