"""The container backends: environments in containers of Docker or Podman,
guarded and observed as the embedded ones are.

An engine makes a locked container without a network; its pid 1 is ours and does what a warden
outside tells it.
Workspaces, relays, names, held calls, journal and clean-up are the embedded backend's own,
so both say the same about the same attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Leftover
from cleanroom.backends.containers import create_request
from cleanroom.backends.containers.cleanup import sweep_engine
from cleanroom.backends.containers.client import ContainerClient, EngineName, Refused, connect
from cleanroom.backends.containers.create_request import Image
from cleanroom.backends.embedded.backend import EmbeddedBackend, OpenJournal, written
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.backends.embedded.keeper_process import KeeperProcess
from cleanroom.backends.embedded.spec import Described, identity_of
from cleanroom.core.beneath import Folder
from cleanroom.core.files import write_atomic
from cleanroom.model.capability import CapabilityReport, DimensionReport, Missing
from cleanroom.model.errors import BackendUnavailable, PolicyRefused, ProjectError
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import Resource
from cleanroom.sandbox.processes import container_cleanup
from cleanroom.sandbox.shim.build import NotBuilt, build

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Container, SandboxSpec, TrackContainer


class ContainerEnvironment(EmbeddedEnvironment):
    """One container, seen from the engine."""

    def __init__(self, backend: ContainerBackend, spec: EnvironmentSpec) -> None:
        super().__init__(backend, spec)
        self._containers = backend
        self._container: Resource | None = None

    async def _begin(self, spec: SandboxSpec) -> None:
        """Let the engine create and start it. Its warden waits for it."""
        container = self._containers.announce(self._spec)
        self._container = container
        told = spec["container"]
        assert told is not None, "it was described for a container"
        try:
            await self._containers.create(container.name, self._spec, told)
        except (Refused, ProjectError):
            self._container = None  # there is none, or it is a stranger's
            self._containers.forget(container)
            raise
        await self._containers.engine.start(container.name)

    async def leave(self) -> None:
        """End it.

        The engine removes its container while the run goes on: nothing runs in it any more.
        """
        try:
            await super().leave()
        finally:
            if self._container is not None:
                container, self._container = self._container, None
                self._containers.discard(container)


class ContainerBackend(EmbeddedBackend):
    """Makes environments with a container engine of this machine."""

    engine_name: EngineName = "docker"
    shows_host = False
    make_environment = ContainerEnvironment  # type: ignore[assignment]

    def __init__(
        self,
        run_id: str,
        scratch: Path,
        journal: OpenJournal,
        keeper: KeeperProcess | None = None,
        *,
        cache: Path,
        caller: Mapping[str, str],
    ) -> None:
        super().__init__(run_id, scratch, journal, keeper)
        self.name = self.engine_name
        self._cache = cache
        self._caller = caller
        self._stack = contextlib.AsyncExitStack()
        self._connected: ContainerClient | None = None
        self._program: Path | None = None
        self._number = 0
        self._removals: set[asyncio.Task[None]] = set()

    # --- life

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
        self._connected = await self._stack.enter_async_context(
            connect(self.engine_name, self._caller)
        )
        try:
            self._program = await anyio.to_thread.run_sync(build, self._cache / "shim")
            with contextlib.suppress(OSError):  # whoever sweeps later is told
                await anyio.to_thread.run_sync(sweep_engine, self._connected.socket)
            await super().__aenter__()
        except NotBuilt as error:
            await self._stack.aclose()
            raise BackendUnavailable(
                "CR-CONTAINER-008",
                f"pid 1 of containers could not be built: {error}",
                hint="install a C compiler (on Debian: apt-get install gcc libc6-dev)",
            ) from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await super().__aexit__(*exc)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()

    @property
    def engine(self) -> ContainerClient:
        assert self._connected is not None, "the backend was not entered"
        return self._connected

    # --- what it holds

    async def probe(self, level: Level) -> CapabilityReport:
        """The kernel is asked as for the embedded backend; what the engine adds is proven in every
        container.
        """
        found = await super().probe(level)
        resources = DimensionReport(
            dimension="resource",
            enforced="yes",
            detected="yes",
            attributed="partial",
            completeness="exact",
            mechanism="the container's control group, rlimits, samples",
            evidence=f"{self.name} {self.engine.version}",
        )
        rows = [row for row in found.dimensions if row.dimension != "resource"]
        lacking = Missing(
            rule="filesystem.reads",
            why=f"which of an image's files are listed is not told on backend {self.name} yet",
            hint='use backend = "embedded"',
        )
        closed = Missing(
            rule="network.record",
            why=(
                f"a phase has a network of its own in a container of {self.name}, so nothing "
                "outside is reached and recorded"
            ),
            hint='use backend = "embedded", or Medium with `egress`',
        )
        levels = {
            **found.levels,
            Level.HIGH.value: (*found.levels.get(Level.HIGH.value, ()), lacking),
            Level.LOW.value: (closed,),
        }
        return msgspec.structs.replace(
            found,
            backend=self.name,
            tier=f"{self.name} {self.engine.version}, API {self.engine.api}",
            dimensions=(*rows, resources),
            levels=levels,
        )

    # --- containers

    def announce(self, spec: EnvironmentSpec) -> Resource:
        """Write down, and tell the keeper, that a container will be made."""
        self._number += 1
        thing = self.record("container", f"cleanroom-{self._run_id}-{spec.id}-{self._number}")
        self._tell(thing, "asked")
        return thing

    def _tell(self, thing: Resource, step: Literal["asked", "made", "gone"]) -> None:
        order: TrackContainer = {
            "op": "container",
            "step": step,
            "name": thing.name,
            "run_id": self._run_id,
            "engine": self.engine.socket,
        }
        with contextlib.suppress(OSError):
            self._link.send(order)

    async def create(self, name: str, spec: EnvironmentSpec, container: Container) -> None:
        """Create a container.

        Raises:
            Refused: the engine said no, so there is none of ours.
        """
        image = await self._image(spec)
        assert self._program is not None
        parameters = create_request.parameters(
            spec,
            image,
            container,
            program=self._program,
            seccomp=await anyio.to_thread.run_sync(self._profile),
            labels=container_cleanup.owner_labels(self._run_id),
        )
        # an answer that nobody waits for could leave a container that comes after it was looked for
        with anyio.CancelScope(shield=True):
            await self.engine.create(name, parameters)
        self._tell(Resource("container", name), "made")

    def _profile(self) -> str:
        """As the engine takes it: Docker the text, Podman a file of this machine."""
        text = create_request.profile()
        if self.engine_name == "docker":
            return text
        with Folder.at(self._cache / "shim") as folder:
            write_atomic(folder, "seccomp.json", text.encode())
        return str(self._cache / "shim" / "seccomp.json")

    async def _image(self, spec: EnvironmentSpec) -> Image:
        if not spec.image:
            raise ProjectError(
                "CR-CONTAINER-009",
                f"backend {self.name!r} needs to know which image {spec.id} runs in",
                hint=(
                    'add image = "cleanroom/base" under [cleanroom]; `cleanroom-engine image '
                    "build` makes it"
                ),
            )
        return await self.engine.image(spec.image)

    def discard(self, thing: Resource) -> None:
        """Have it removed; `settled` waits for that."""
        self._removals.add(asyncio.create_task(self.removed(thing)))

    async def settled(self) -> None:
        """Wait until the engine has removed all that was discarded."""
        while self._removals:
            # which ends none of them, should the waiting be cancelled
            done, _ = await asyncio.wait(self._removals)
            self._removals -= done
            for removal in done:
                removal.result()

    async def removed(self, thing: Resource) -> None:
        """Have the engine remove it, and account for it."""
        if not await self.engine.remove(thing.name):
            self._left.append(
                Leftover(kind="container", name=thing.name, detail=f"{self.name} did not remove it")
            )
            return
        self.forget(thing)

    def forget(self, thing: Resource) -> None:
        """It is gone, or was never made."""
        self._tell(thing, "gone")
        self.gone(thing)

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The container as its warden is told it."""
        image = await self._image(spec)
        stack, cache = await self._prepared(spec)
        await anyio.to_thread.run_sync(_make_door, root)
        await self._up.wait()
        if "PATH" not in spec.variables:
            spec.variables["PATH"] = image.path
        told = create_request.described(
            spec, identity_of(spec), self._cgroups(), stack, root, cache
        )
        return Described(told, written(stack, cache))


def _make_door(root: Path) -> None:
    with Folder.at(root) as folder:
        os.mkdir("door", 0o755, dir_fd=folder.descriptor)


class PodmanBackend(ContainerBackend):
    """The same with Podman."""

    engine_name: EngineName = "podman"
