"""Workspaces and environments of one run, of whatever tier: what all backends here share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from cleanroom.backends.base import EnvironmentSpec, Leftover, WorkspaceSpec
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.backends.embedded.machinery import Machinery
from cleanroom.backends.embedded.tiers import Tier
from cleanroom.backends.embedded.workspace import HostWorkspace
from cleanroom.model.errors import PolicyRefused


class Runtime:
    """Opens and closes what a run has, in order."""

    def __init__(self, machinery: Machinery, tier: Tier[Any]) -> None:
        self.machinery = machinery
        # chosen before the first workspace is made
        self.tier = tier

    def open(self) -> None:
        """Start the keeper, or take over one that was started early."""
        self.machinery.keeper.open()

    async def close(self) -> None:
        """End all environments, remove everything, end the keeper."""
        with anyio.CancelScope(shield=True):
            for environment in list(self.machinery.environments.values()):
                await environment.leave()
            await self.tier.wait_discarded()
            await self.machinery.resources.drop_run_folders()
            await self.machinery.keeper.close()
            self.machinery.resources.close()

    @asynccontextmanager
    async def workspace(self, spec: WorkspaceSpec) -> AsyncIterator[HostWorkspace]:
        """A copy-on-write view of `spec.root`.

        Its layers lie in `spec.scratch` and are removed when it is left.

        Raises:
            PolicyRefused: the scratch lies inside the project.
        """
        root, scratch = Path(spec.root), Path(spec.scratch)
        if scratch.resolve().is_relative_to(root.resolve()):
            raise PolicyRefused(
                "CR-SANDBOX-003",
                f"the cache folder {scratch} lies inside the project",
                hint="set CLEANROOM_CACHE to a folder outside of it",
            )
        folder = await self.machinery.resources.folder(scratch)
        try:
            workspace: HostWorkspace = await self.tier.open_workspace(spec)
            yield workspace
        finally:
            with anyio.CancelScope(shield=True):
                await self.tier.close_workspace(spec.root)
                await self.machinery.resources.drop_folder(folder)

    @asynccontextmanager
    async def environment(self, spec: EnvironmentSpec) -> AsyncIterator[EmbeddedEnvironment]:
        """Start an environment.

        Leaving ends its processes, and waits until kernel and keeper have removed it.
        """
        environment = EmbeddedEnvironment(self.machinery, self.tier, spec)
        try:
            await environment.start()
            yield environment
        finally:
            with anyio.CancelScope(shield=True):
                await environment.leave()

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """Numbers of created and of removed resources, and what is left."""
        await self.tier.wait_discarded()
        return self.machinery.ledger.totals()
