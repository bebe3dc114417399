"""The tier without namespaces: environments with real paths, and a copied workspace.

Loaded only where it is used, which few machines need.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from cleanroom.backends.base import EnvironmentSpec, WorkspaceSpec
from cleanroom.backends.embedded import run_area, spec_hostns
from cleanroom.backends.embedded.copied_workspace import CopiedWorkspace
from cleanroom.backends.embedded.machinery import Machinery
from cleanroom.backends.embedded.resources import cache_errors
from cleanroom.backends.embedded.spec import Described, environment_user
from cleanroom.backends.embedded.tiers import Tier


class HostnsTier(Tier[CopiedWorkspace]):
    """Environments in the host's namespaces: they see the host's root, and a copied workspace."""

    def __init__(self, machinery: Machinery) -> None:
        super().__init__(machinery)
        self._area: run_area.RunArea | None = None
        self._making_area = anyio.Lock()
        self._copies = 0

    async def _run_area(self) -> run_area.RunArea:
        """The folders of this run's environments, made when asked for first."""
        async with self._making_area:
            if self._area is None:
                self._area = await self._make_run_area()
        return self._area

    async def _make_run_area(self) -> run_area.RunArea:
        resources, scratch = self._machinery.resources, self._run.scratch
        user = environment_user(self._run.run_id)
        large, short = run_area.area_paths(self._run.run_id, scratch)
        for path in {large, short} - {scratch}:
            await resources.make_run_folder(path, partial(run_area.make_area_folder, user=user))
        return run_area.RunArea(resources.run_folder(large), resources.run_folder(short), user)

    async def _make_workspace(self, spec: WorkspaceSpec) -> CopiedWorkspace:
        user = environment_user(self._run.run_id)
        with cache_errors(self._run.scratch):
            area = await self._run_area()
            self._copies += 1
            parent = await anyio.to_thread.run_sync(area.private_folder, "workspaces")
            copy = parent / str(self._copies)
            return await anyio.to_thread.run_sync(CopiedWorkspace, spec, copy, user)

    async def root_of(self, identity: str) -> Path:
        """The folder of one environment, which its user can reach."""
        return (await self._run_area()).path / "roots" / identity

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The specification without mounts. Makes the environment's folders."""
        facts, workspace = self._machinery.facts, self._workspace_of(spec)
        host = await facts.host()
        with cache_errors(self._run.scratch):
            area = await self._run_area()
            copy, cache = "", ""
            if workspace is not None:
                copy = str(workspace.place)
                if spec.home and os.geteuid() != 0:
                    claim = workspace.home.claim_folder
                    cache = str(await anyio.to_thread.run_sync(claim, spec.home))
            await self._machinery.keeper.wait_up()
            given = spec_hostns.HostFolders(area, root, copy, cache)
            find = partial(
                spec_hostns.describe,
                spec,
                host,
                facts.cgroup_homes(),
                given,
                landlock=facts.landlock,
            )
            return await anyio.to_thread.run_sync(find)

    async def return_prepared(self, spec: EnvironmentSpec) -> None:
        """Copy prepared data to its mounts' sources, which the environment could not reach."""
        if spec.role != "prepare":
            return
        area = await self._run_area()
        for mount in spec.mounts:
            if mount.writable:
                await anyio.to_thread.run_sync(area.copy_back, mount)

    @property
    def decoy_folder(self) -> Path:
        """The run area, once it was made."""
        return self._area.path if self._area is not None else self._run.scratch
