"""What differs between the kinds of environments: with namespaces, in the host's, in containers.

A tier makes workspaces, describes environments, and does what is needed beside their wardens.
The tier in the host's namespaces is in `tier_hostns.py`, that of containers in
`containers/tier.py`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio.to_thread

from cleanroom.backends.base import EnvironmentSpec, WorkspaceSpec
from cleanroom.backends.embedded.home_cache import HomeCache
from cleanroom.backends.embedded.machinery import Machinery
from cleanroom.backends.embedded.resources import cache_errors
from cleanroom.backends.embedded.spec import Described, describe, environment_user
from cleanroom.backends.embedded.workspace import EmbeddedWorkspace, HostWorkspace
from cleanroom.sandbox.filesystem import layers
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import SandboxSpec

SharedWorkspace = TypeVar("SharedWorkspace", bound=HostWorkspace)


class Tier(ABC, Generic[SharedWorkspace]):
    """One kind of environments, for one run."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery
        self._run = machinery.run
        self._workspaces: dict[str, SharedWorkspace] = {}

    # --- workspaces

    async def open_workspace(self, spec: WorkspaceSpec) -> SharedWorkspace:
        """Make the workspace that environments with `spec` share."""
        workspace = await self._make_workspace(spec)
        self._workspaces[spec.root] = workspace
        return workspace

    async def close_workspace(self, root: str) -> None:
        """Close the workspace of the project at `root`, if it was made."""
        workspace = self._workspaces.pop(root, None)
        if workspace is not None:
            await workspace.finish_home(False)
            workspace.close()

    @abstractmethod
    async def _make_workspace(self, spec: WorkspaceSpec) -> SharedWorkspace: ...

    def _workspace_of(self, spec: EnvironmentSpec) -> SharedWorkspace | None:
        return self._workspaces[spec.workspace.root] if spec.workspace is not None else None

    # --- environments

    async def root_of(self, identity: str) -> Path:
        """The folder of one environment; `Resources` makes it."""
        return self._run.scratch / "roots" / identity

    @abstractmethod
    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The specification for the warden. Makes the folders and layers that it names."""

    async def launch(self, spec: EnvironmentSpec, sandbox: SandboxSpec) -> None:
        """Start what the warden waits for; nothing here."""

    async def return_prepared(self, spec: EnvironmentSpec) -> None:
        """After the end of an environment that prepared data: put the data at its mounts' sources.

        Nothing here: mounts show the sources themselves.
        """

    def discard(self, identity: str) -> None:
        """Begin to remove what `launch` started, once the environment has been left."""

    async def wait_discarded(self) -> None:
        """Wait until all that was discarded is removed."""

    @property
    def decoy_folder(self) -> Path:
        """Where decoys lie: an environment could reach them, were it not for the sandbox."""
        return self._run.scratch


class LayeredTier(Tier[EmbeddedWorkspace]):
    """Environments that see the workspace through overlays, one layer for each environment."""

    async def _make_workspace(self, spec: WorkspaceSpec) -> EmbeddedWorkspace:
        user = environment_user(self._run.run_id)
        return await anyio.to_thread.run_sync(EmbeddedWorkspace, spec, user)

    async def _make_layers(self, spec: EnvironmentSpec) -> tuple[list[Path], HomeLayers | None]:
        """Make the layers that an environment writes.

        Returns the workspace's layers, newest first, and those of its home's `.cache`.

        Raises:
            ArtifactError: the disk refuses them.
        """
        workspace = self._workspace_of(spec)
        user = environment_user(self._run.run_id)
        owner = (user, user) if os.geteuid() == 0 else None
        with cache_errors(self._run.scratch):
            stack: list[Path] = []
            if workspace is not None and spec.in_place:
                workspace.used_in_place()
            elif workspace is not None:
                stack = await workspace.push()
            await anyio.to_thread.run_sync(_make_mount_layers, spec, owner)
            if workspace is None:
                return stack, None
            make_cache = partial(_make_cache_layers, workspace.home, spec, owner)
            return stack, await anyio.to_thread.run_sync(make_cache)


class NamespacesTier(LayeredTier):
    """Environments with namespaces and mounts of their own."""

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The specification, with mounts over the host's root."""
        facts = self._machinery.facts
        host = await facts.host()
        stack, cache = await self._make_layers(spec)
        await self._machinery.keeper.wait_up()
        homes = facts.cgroup_homes()
        sandbox = describe(spec, host, homes, stack, root, cache, landlock=facts.landlock)
        return Described(sandbox, upper_folders(stack, cache))


def _make_mount_layers(spec: EnvironmentSpec, owner: tuple[int, int] | None) -> None:
    """Make the layers of mounts that are shown copy-on-write."""
    for mount in spec.mounts:
        if mount.above and not (Path(mount.source) / "upper").exists():
            layers.make(Path(mount.source), Path(mount.above), owner)


def _make_cache_layers(
    home: HomeCache, spec: EnvironmentSpec, owner: tuple[int, int] | None
) -> HomeLayers | None:
    """Make the layer of the home's `.cache`; None where nothing lies below it."""
    below = (Path(spec.home_below),) if spec.home_below else ()
    if spec.home:
        made = home.make_layer(spec.home, owner)
        return made._replace(lower=(*made.lower, *below))
    return HomeLayers(home.make_fresh_layer(below[0], owner), below) if below else None


def upper_folders(stack: Sequence[Path], cache: HomeLayers | None) -> tuple[Path, ...]:
    """The upper folders of the layers that an environment writes."""
    written = [*stack[:1], *((cache.layer,) if cache else ())]
    return tuple(layer / "upper" for layer in written)
