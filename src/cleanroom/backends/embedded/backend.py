"""The embedded backend: environments from Linux namespaces, Landlock and seccomp, no daemon.

As root and as an ordinary user.
This package is the engine's side: it describes environments and talks to their wardens.
What happens in the kernel is in `sandbox/`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio.to_thread

from cleanroom.backends.base import EnvironmentSpec, Leftover, WorkspaceSpec
from cleanroom.backends.embedded.capability_report import capability_report
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.backends.embedded.keeper_process import KeeperProcess
from cleanroom.backends.embedded.machinery import assemble
from cleanroom.backends.embedded.resources import OpenJournal, RunSettings
from cleanroom.backends.embedded.runtime import Runtime
from cleanroom.backends.embedded.tiers import NamespacesTier, Tier
from cleanroom.backends.embedded.workspace import HostWorkspace
from cleanroom.model.capability import CapabilityReport
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import Resource


class EmbeddedBackend:
    """Makes environments with the kernel's own means."""

    name = "embedded"
    shows_host = True
    forwards_elsewhere = True
    runs_programs = True

    def __init__(
        self, run_id: str, scratch: Path, journal: OpenJournal, keeper: KeeperProcess | None = None
    ) -> None:
        """`keeper` was started early; without it entering starts one."""
        self.scratch = scratch
        self._machinery = assemble(RunSettings(run_id, scratch, journal), keeper)
        self._namespaces = NamespacesTier(self._machinery)
        self._runtime = Runtime(self._machinery, self._namespaces)

    async def __aenter__(self) -> EmbeddedBackend:
        self._runtime.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runtime.close()

    async def probe(self, level: Level) -> CapabilityReport:
        """Probe the kernel in a child of the keeper, and choose the tier."""
        found = await self._machinery.keeper.probe(self.scratch)
        self._machinery.facts.accept(found)
        if found["mode"] == "bare":
            self.use_host_namespaces()
        else:
            self._runtime.tier = self._namespaces
        homes = await anyio.to_thread.run_sync(self._machinery.facts.cgroup_homes)
        return capability_report(found, homes)

    @property
    def tier(self) -> Tier[Any]:
        """How environments are made here; known after `probe`."""
        return self._runtime.tier

    @property
    def layers_homes(self) -> bool:
        """A home's .cache is an overlay in environments with namespaces."""
        return self._runtime.tier is self._namespaces

    def use_host_namespaces(self) -> None:
        """Make environments without namespaces, although the kernel may have them."""
        # Loaded here: most machines have namespaces.
        from cleanroom.backends.embedded.tier_hostns import HostnsTier

        if not isinstance(self._runtime.tier, HostnsTier):
            self._runtime.tier = HostnsTier(self._machinery)

    async def folder(self, path: Path) -> Resource:
        """Make a folder below the scratch."""
        return await self._machinery.resources.folder(path)

    async def drop_folder(self, folder: Resource) -> None:
        """Remove such a folder, unless a running environment shows it."""
        await self._machinery.resources.drop_folder(folder)

    def workspace(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[HostWorkspace]:
        """A copy-on-write view of `spec.root`."""
        return self._runtime.workspace(spec)

    def environment(
        self, spec: EnvironmentSpec
    ) -> AbstractAsyncContextManager[EmbeddedEnvironment]:
        """An environment, started and left."""
        return self._runtime.environment(spec)

    def forward_elsewhere(self, environment: str, forward: Callable[[str, int], None]) -> None:
        """Pass sockets that lead to `environment`, which another process made, to `forward`."""
        self._machinery.forwards.forward_elsewhere(environment, forward)

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """Numbers of created and of removed resources, and what is left."""
        return await self._runtime.ledger()
