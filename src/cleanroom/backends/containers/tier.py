"""The tier of containers: an engine makes a locked container for each environment.

Pid 1 of the container is ours, and does what a warden outside orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio
import anyio.to_thread

from cleanroom.backends.base import EnvironmentSpec, Leftover
from cleanroom.backends.containers import create_request
from cleanroom.backends.containers.client import ContainerClient, Refused
from cleanroom.backends.containers.create_request import Image
from cleanroom.backends.embedded.machinery import Machinery
from cleanroom.backends.embedded.spec import Described, identity_of
from cleanroom.backends.embedded.tiers import LayeredTier, upper_folders
from cleanroom.core.beneath import Folder
from cleanroom.core.files import write_atomic
from cleanroom.model.errors import EnvironmentFailed, ProjectError
from cleanroom.sandbox.journal import Resource
from cleanroom.sandbox.processes import container_cleanup

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Container, SandboxSpec, TrackContainer


class Init(NamedTuple):
    """Pid 1 of containers, as it was built."""

    program: Path
    # where it lies, beside the seccomp profile
    folder: Path


class ContainerTier(LayeredTier):
    """Environments in containers of one engine."""

    def __init__(self, machinery: Machinery, client: ContainerClient, init: Init) -> None:
        super().__init__(machinery)
        self._client = client
        self._init = init
        # part of a container's name: an environment that is made again has another container
        self._number = 0
        # by the environment's identity
        self._containers: dict[str, Resource] = {}
        self._removals: set[asyncio.Task[None]] = set()

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The specification, with mounts into a container of the environment's image."""
        image = await self._image(spec)
        stack, cache = await self._make_layers(spec)
        await anyio.to_thread.run_sync(_make_socket_folder, root)
        await self._machinery.keeper.wait_up()
        if "PATH" not in spec.variables:
            spec.variables["PATH"] = ":".join((image.path, *spec.search_last))
        homes = self._machinery.facts.cgroup_homes()
        identity = identity_of(spec)
        sandbox = create_request.describe(spec, identity, homes, stack, root, cache)
        return Described(sandbox, upper_folders(stack, cache))

    async def _image(self, spec: EnvironmentSpec) -> Image:
        if not spec.image:
            raise ProjectError(
                "CR-CONTAINER-009",
                f"backend {self._client.name!r} needs to know which image {spec.id} runs in",
                hint=(
                    'add image = "cleanroom/base" under [cleanroom]; `cleanroom-engine image '
                    "build` makes it"
                ),
            )
        return await self._client.image(spec.image)

    # --- start

    async def launch(self, spec: EnvironmentSpec, sandbox: SandboxSpec) -> None:
        """Let the engine create and start the container that the warden waits for."""
        assert sandbox["container"] is not None, "it was described for a container"
        container = self._announce(spec)
        self._containers[spec.id] = container
        try:
            await self._create(container.name, spec, sandbox["container"])
        except (Refused, ProjectError):
            # there is none, or one of this name that is not ours
            del self._containers[spec.id]
            self._forget(container)
            raise
        await self._client.start(container.name)

    def _announce(self, spec: EnvironmentSpec) -> Resource:
        """Journal a container, and name it to the keeper, before it is made."""
        self._number += 1
        name = f"cleanroom-{self._run.run_id}-{spec.id}-{self._number}"
        container = self._machinery.resources.record("container", name)
        self._track(container, "asked")
        return container

    async def _create(self, name: str, spec: EnvironmentSpec, container: Container) -> None:
        """Create the container.

        Raises:
            Refused: the engine said no, so there is none of ours.
            ProjectError: the image is gone.
        """
        image = await self._image(spec)
        parameters = create_request.parameters(
            spec,
            image,
            container,
            program=self._init.program,
            seccomp=await anyio.to_thread.run_sync(self._seccomp_profile),
            labels=container_cleanup.owner_labels(self._run.run_id),
        )
        # Shielded: a container that appears after its call was cancelled would be left.
        with anyio.CancelScope(shield=True):
            await self._client.create(name, parameters)
        self._track(Resource("container", name), "made")

    def _seccomp_profile(self) -> str:
        """As the engine takes it: Docker the text, Podman the path of a file."""
        text = create_request.profile()
        if self._client.name == "docker":
            return text
        with Folder.at(self._init.folder) as folder:
            write_atomic(folder, "seccomp.json", text.encode())
        return str(self._init.folder / "seccomp.json")

    def _track(self, container: Resource, step: Literal["asked", "made", "gone"]) -> None:
        """Tell the keeper, which removes the container should the engine process die."""
        order: TrackContainer = {
            "op": "container",
            "step": step,
            "name": container.name,
            "run_id": self._run.run_id,
            "engine": self._client.socket,
        }
        with contextlib.suppress(EnvironmentFailed):
            self._machinery.keeper.send(order)

    # --- removal

    def discard(self, identity: str) -> None:
        """Begin to remove the environment's container; `wait_discarded` waits for the end."""
        container = self._containers.pop(identity, None)
        if container is not None:
            self._removals.add(asyncio.create_task(self._remove(container)))

    async def wait_discarded(self) -> None:
        """Wait until the engine has removed all discarded containers."""
        while self._removals:
            # cancelling this wait cancels no removal
            done, _ = await asyncio.wait(self._removals)
            self._removals -= done
            for removal in done:
                removal.result()

    async def _remove(self, container: Resource) -> None:
        if await self._client.remove(container.name):
            self._forget(container)
            return
        detail = f"{self._client.name} did not remove it"
        self._machinery.ledger.report_left(
            Leftover(kind="container", name=container.name, detail=detail)
        )

    def _forget(self, container: Resource) -> None:
        """Journal that the container is gone, or was never made."""
        self._track(container, "gone")
        self._machinery.resources.gone(container)


def _make_socket_folder(root: Path) -> None:
    with Folder.at(root) as folder:
        os.mkdir("door", 0o755, dir_fd=folder.descriptor)
