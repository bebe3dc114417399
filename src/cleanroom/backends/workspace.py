"""The embedded backend's workspaces: a project's folder below a growing stack of copy-on-write layers."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from cleanroom.backends.base import BroughtBack, Change, WorkspaceSpec
from cleanroom.backends.homes import HomeCache
from cleanroom.sandbox import layers, layout, stacking


class EmbeddedWorkspace:
    """A project's folder below a growing stack of layers, one per environment that used it."""

    def __init__(self, spec: WorkspaceSpec, user: int) -> None:
        self._user = (user, user) if os.geteuid() == 0 else None
        self.root = spec.root
        self.unchangeable = tuple(layers.foreign(Path(spec.root))) if os.geteuid() else ()
        self.masked = spec.masked
        self._scratch = Path(spec.scratch)
        self._layers: list[Path] = []  # oldest first; those whose changes are all in the project are taken out
        self._number = 0
        self._changes: list[layers.Entry] = []
        self._returner = layers.Returner(Path(spec.root), time.time_ns())
        self._in_place = False
        self.home = HomeCache(self._scratch, Path(spec.root))

    async def settle_home(self, keep: bool) -> None:
        """Keep what the last environment wrote in its home's `.cache`, or throw it away."""
        await anyio.to_thread.run_sync(self.home.settle, keep)

    async def push(self) -> list[Path]:
        """A fresh layer on top; the stack with the newest first."""
        if len(self._layers) >= stacking.LAYERS_MAX:
            self._layers = [await anyio.to_thread.run_sync(stacking.fold, self._layers)]
        if self._in_place:  # what was written there meanwhile was ours, and lies below what comes now
            self._in_place, self._returner = False, layers.Returner(Path(self.root), time.time_ns())
        self._number += 1
        layer = self._scratch / f"layer-{self._number}"
        await anyio.to_thread.run_sync(layers.make, layer, Path(self.root), self._user)
        self._layers.append(layer)
        return list(reversed(self._layers))

    def used_in_place(self) -> None:
        """The next environment writes to the project itself: there will be nothing to bring back."""
        self._in_place = True

    @property
    def _upper(self) -> Path:
        return self._layers[-1] / "upper"

    async def changes(self) -> tuple[Change, ...]:
        """What the last environment changed."""
        if not self._layers or self._in_place:
            return ()
        self._changes = await anyio.to_thread.run_sync(layers.changes, self._upper, Path(self.root), layout.TRUSTED_LINKS)
        return tuple(Change(path=e.path, kind=e.kind, bytes=e.bytes, reason=e.reason) for e in self._changes)  # type: ignore[arg-type]

    async def bring_back(self, paths: Sequence[str] | None, conflicts: Path) -> BroughtBack:
        """Write the chosen changes to the project."""
        chosen = set(paths) if paths is not None else None

        def wanted(entry: layers.Entry) -> bool:
            if chosen is not None:
                return entry.path in chosen
            return entry.path.split("/")[0] not in layers.NEVER

        selected = [entry for entry in self._changes if wanted(entry)]
        done = await anyio.to_thread.run_sync(self._returner.bring, self._upper, selected, conflicts)
        if len(selected) == len(self._changes) and not (done.conflicts or done.refused or done.failed):
            settled = self._layers.pop()  # the project below says the same now
            await anyio.to_thread.run_sync(layers.remove_tree, settled)
        refused, failed = (tuple(Change(path=e.path, kind="refused", reason=e.reason) for e in es) for es in (done.refused, done.failed))
        return BroughtBack(
            files=done.files, bytes=done.bytes, deleted=done.deleted, conflicts=done.conflicts, refused=refused, failed=failed
        )  # fmt: skip

    async def keep(self, folder: Path) -> None:
        """Copy the last layer's files for a person to read."""

        def copy() -> None:
            for entry in self._changes:
                if entry.kind == "file" and self._layers:
                    target = folder / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    layers.copy_file(self._upper / entry.path, target)

        await anyio.to_thread.run_sync(copy)
