"""The container backends: environments in containers of Docker or Podman.

Workspaces, relays, names, held calls, journal and clean-up are those of the embedded backend
(`embedded/runtime.py`), so both report the same attempt alike.
What differs is the tier: `containers/tier.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Leftover, WorkspaceSpec
from cleanroom.backends.containers.cleanup import sweep_engine
from cleanroom.backends.containers.client import ContainerClient, EngineName, connect
from cleanroom.backends.containers.tier import ContainerTier, Init
from cleanroom.backends.embedded.capability_report import capability_report
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.backends.embedded.keeper_process import KeeperProcess
from cleanroom.backends.embedded.machinery import assemble
from cleanroom.backends.embedded.resources import OpenJournal, RunSettings
from cleanroom.backends.embedded.runtime import Runtime
from cleanroom.backends.embedded.tiers import NamespacesTier
from cleanroom.backends.embedded.workspace import HostWorkspace
from cleanroom.model.capability import CapabilityReport, DimensionReport, Missing
from cleanroom.model.errors import BackendUnavailable, PolicyRefused
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import Resource
from cleanroom.sandbox.shim.build import NotBuilt, build


class ContainerBackend:
    """Makes environments with a container engine of this machine."""

    shows_host = False
    forwards_elsewhere = True
    runs_programs = True
    layers_homes = False

    def __init__(
        self,
        run_id: str,
        scratch: Path,
        journal: OpenJournal,
        keeper: KeeperProcess | None = None,
        *,
        engine: EngineName,
        cache: Path,
        caller: Mapping[str, str],
    ) -> None:
        """`keeper` was started early; `caller` is the caller's environment, which names sockets."""
        self.name: str = engine
        self.scratch = scratch
        self._engine = engine
        self._caller = caller
        self._init_folder = cache / "shim"
        self._machinery = assemble(RunSettings(run_id, scratch, journal), keeper)
        self._connection = AsyncExitStack()
        self._entered: tuple[ContainerClient, Runtime] | None = None
        # for environments with the host's system
        self._on_host = Runtime(self._machinery, NamespacesTier(self._machinery))

    async def __aenter__(self) -> ContainerBackend:
        if os.geteuid() != 0:
            raise PolicyRefused(
                "CR-CONTAINER-007",
                (
                    f"backend {self.name!r} runs as root only: nobody else can see what is tried "
                    "in a container"
                ),
                hint='run it as root, or use backend = "embedded", which needs no root',
            )
        client = await self._connection.enter_async_context(connect(self._engine, self._caller))
        try:
            program = await anyio.to_thread.run_sync(build, self._init_folder)
            # `cleanroom-engine sweep` reports what cannot be removed
            with contextlib.suppress(OSError):
                await anyio.to_thread.run_sync(sweep_engine, client.socket)
            tier = ContainerTier(self._machinery, client, Init(program, self._init_folder))
            runtime = Runtime(self._machinery, tier)
            runtime.open()
            self._machinery.keeper.send({"op": "containers"})
        except NotBuilt as error:
            await self._connection.aclose()
            raise BackendUnavailable(
                "CR-CONTAINER-008",
                f"pid 1 of containers could not be built: {error}",
                hint="install a C compiler (on Debian: apt-get install gcc libc6-dev)",
            ) from error
        except BaseException:
            await self._connection.aclose()
            raise
        self._entered = client, runtime
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self._runtime.close()
        finally:
            with anyio.CancelScope(shield=True):
                await self._connection.aclose()

    @property
    def _runtime(self) -> Runtime:
        assert self._entered is not None, "the backend was not entered"
        return self._entered[1]

    async def probe(self, level: Level) -> CapabilityReport:
        """Probe the kernel, as for the embedded backend.

        The canaries of every container prove what the engine adds.
        """
        found = await self._machinery.keeper.probe(self.scratch)
        self._machinery.facts.accept(found)
        homes = await anyio.to_thread.run_sync(self._machinery.facts.cgroup_homes)
        assert self._entered is not None
        return _container_report(capability_report(found, homes), self._entered[0])

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
        """An environment, started and left: in a container, unless it is to be `on_host`."""
        runtime = self._on_host if spec.on_host else self._runtime
        return runtime.environment(spec)

    def forward_elsewhere(self, environment: str, forward: Callable[[str, int], None]) -> None:
        """Pass sockets that lead to `environment`, which another process made, to `forward`."""
        self._machinery.forwards.forward_elsewhere(environment, forward)

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """Numbers of created and of removed resources, and what is left."""
        return await self._runtime.ledger()


def _container_report(found: CapabilityReport, client: ContainerClient) -> CapabilityReport:
    """The kernel's report with what this engine enforces, and what no container backend can."""
    resources = DimensionReport(
        dimension="resource",
        enforced="yes",
        detected="yes",
        attributed="partial",
        completeness="exact",
        mechanism="the container's control group, rlimits, samples",
        evidence=f"{client.name} {client.version}",
    )
    rows = [row for row in found.dimensions if row.dimension != "resource"]
    no_allowlist = Missing(
        rule="filesystem.reads",
        why=f"which of an image's files are listed is not told on backend {client.name} yet",
        hint='use backend = "embedded"',
    )
    no_host_network = Missing(
        rule="network.record",
        why=(
            f"a phase has a network of its own in a container of {client.name}, so nothing "
            "outside is reached and recorded"
        ),
        hint='use backend = "embedded", or Medium with `egress`',
    )
    levels = {
        **found.levels,
        Level.HIGH.value: (*found.levels.get(Level.HIGH.value, ()), no_allowlist),
        Level.LOW.value: (no_host_network,),
    }
    return msgspec.structs.replace(
        found,
        backend=client.name,
        tier=f"{client.name} {client.version}, API {client.api}",
        dimensions=(*rows, resources),
        levels=levels,
    )
