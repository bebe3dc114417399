"""The adapter to container engines: Docker and Podman over their unix sockets, by aiodocker.

Every known quirk of an engine is handled in this file.
The API version is the newest that both sides support.
The API is used only to inspect, load, create, start and remove.
Commands, output, signals and samples go through the container's own pid 1 and its warden:
an engine may lose events, or hang in `wait`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from cleanroom.backends.containers.create_request import FALLBACK_PATH, Image
from cleanroom.core.installation import install_line
from cleanroom.model.errors import (
    BackendUnavailable,
    CleanroomError,
    EnvironmentFailed,
    ProjectError,
)
from cleanroom.sandbox.processes.container_cleanup import call

if TYPE_CHECKING:
    import aiodocker

EngineName = Literal["docker", "podman"]

# of the API: what Debian's engines speak, and what was read to be the same in all that is used here
OLDEST, NEWEST = (1, 40), (1, 51)
CALL_SECONDS = 30.0  # for one call: a slow daemon takes 5 s, a hanging one for ever
# For one removal with its asking again: it takes tens of ms, two calls of a slow daemon,
# or as long as a daemon takes to restart.
REMOVE_SECONDS = 20.0
REMOVE_PAUSE_SECONDS = 0.05
NO_ANSWER = 900  # the status that aiodocker makes up where the connection failed
SOCKETS: dict[EngineName, tuple[str, ...]] = {
    "docker": (
        "/run/docker.sock",
        "/var/run/docker.sock",
        "{home}/.docker/run/docker.sock",
        "{runtime}/docker.sock",
    ),
    "podman": ("/run/podman/podman.sock", "{runtime}/podman/podman.sock"),
}
VARIABLES: dict[EngineName, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
START_HINTS: dict[EngineName, str] = {
    "docker": "start it (`systemctl start docker`), or let DOCKER_HOST name its socket as unix:///path",
    "podman": (
        "start its API (`podman system service --time=0 unix:///run/podman/podman.sock`), or let "
        "CONTAINER_HOST name its socket as unix:///path"
    ),
}


class EngineVersions(NamedTuple):
    """An engine's own version, and the API versions that it supports.

    `oldest` is empty where it was not asked for: the engine's newest is one of ours.
    """

    version: str
    newest: str
    oldest: str = ""


class Refused(EnvironmentFailed):
    """The engine answered with an error."""


def find_socket(name: EngineName, caller: Mapping[str, str]) -> str:
    """The path of the engine's socket.

    The caller's environment names it; else it is the first usual path with a socket.

    Raises:
        BackendUnavailable: there is none, or what is named is not on this machine.
    """
    given = caller.get(VARIABLES[name], "")
    if given and not given.startswith("unix://"):
        raise BackendUnavailable(
            "CR-CONTAINER-002",
            (
                f"{VARIABLES[name]}={given}: expected unix:///path; an engine on another machine "
                "cannot show what is tried in it"
            ),
            hint="let it name a socket of this machine, or unset it",
        )
    runtime = caller.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    usual = (
        path.format(home=caller.get("HOME", "/root"), runtime=runtime) for path in SOCKETS[name]
    )
    places = [given.removeprefix("unix://")] if given else list(usual)
    for place in places:
        if _is_socket(place):
            return place
    raise BackendUnavailable(
        "CR-CONTAINER-001",
        f"{name} was not found; looked for {', '.join(places)}",
        hint=START_HINTS[name],
    )


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def negotiated_version(newest: str, oldest: str) -> str:
    """The API version for an engine that supports `oldest` to `newest`, such as "v1.41".

    Empty where no version is common to both sides.
    """
    theirs, least = _version(newest), _version(oldest or "1.0")
    chosen = min(theirs, NEWEST)
    return f"v{chosen[0]}.{chosen[1]}" if chosen >= max(OLDEST, least) else ""


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def inspect_image(engine: EngineName, socket: str, name: str) -> dict[str, Any]:
    """The engine's description of an image, without a client or a loop. Blocks for some ms.

    Raises:
        ProjectError: it is not there.
        BackendUnavailable: the engine does not answer.
    """
    try:
        status, found = call(socket, "GET", f"/images/{quote(name, safe='')}/json")
    except OSError as error:
        raise BackendUnavailable(
            "CR-CONTAINER-001",
            f"{engine} does not answer at {socket}: {error}",
            hint=START_HINTS[engine],
        ) from error
    if status != 200:
        raise _missing_image(name, engine)
    return dict(found)


class ContainerClient:
    """One engine, connected. Made by `connect`."""

    def __init__(
        self, name: EngineName, socket: str, client: aiodocker.Docker, version: str
    ) -> None:
        self.name = name
        self.socket = socket
        self.version = version
        self.api = client.api_version
        self._client = client
        self._images: dict[str, Image] = {}

    async def image(self, name: str) -> Image:
        """The image of this name in the engine, inspected once. Nothing is ever pulled.

        Raises:
            ProjectError: it is not there.
        """
        if name not in self._images:
            async with self._translated_errors(
                f"looking for image {name}", missing=_missing_image(name, self.name)
            ):
                found = await self._client.images.inspect(name)
            variables = dict(
                entry.partition("=")[::2] for entry in (found.get("Config") or {}).get("Env") or ()
            )
            self._images[name] = Image(
                name, _digest(found["Id"]), variables.get("PATH") or FALLBACK_PATH
            )
        return self._images[name]

    async def create(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Create a container.

        The error for an image that was removed since it was inspected gives its name.
        """
        named = next(
            (
                image.name
                for image in self._images.values()
                if image.identity == parameters["Image"]
            ),
            parameters["Image"],
        )
        missing = _missing_image(named, self.name)
        vanished = Refused(
            missing.code,
            f"image {named!r} was removed from {self.name} during the run",
            hint=missing.hint,
        )
        async with self._translated_errors(f"creating container {name}", missing=vanished):
            await self._client.containers.create(dict(parameters), name=name)

    async def start(self, name: str) -> None:
        """Start a container."""
        async with self._translated_errors(f"starting container {name}"):
            await self._client.containers.container(name).start()

    async def remove(self, name: str) -> bool:
        """Remove a container by force with its anonymous volumes; True once the engine has none.

        Waits for a removal under way, and for an engine that restarts.
        """
        from aiodocker import DockerError
        from aiohttp import ClientError

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMOVE_SECONDS):
                while True:
                    try:
                        await self._client.containers.container(name).delete(force=True, v=True)
                    except DockerError as error:
                        if error.status == 404:
                            return True
                        # 409: another removal is under way; 500: its process is still being counted
                        # out; 900: restarting
                        await asyncio.sleep(REMOVE_PAUSE_SECONDS)
                    except (ClientError, OSError):
                        await asyncio.sleep(REMOVE_PAUSE_SECONDS)
        return False

    async def load(self, archive: Path) -> str:
        """Load the images of a `docker save` archive; returns the digest of the last one."""
        async with self._translated_errors(f"loading {archive.name}"):
            with archive.open("rb") as file:
                digests = await self._client.images.import_image(file)
        return str(digests[-1]) if digests else ""

    @contextlib.asynccontextmanager
    async def _translated_errors(
        self, what: str, missing: CleanroomError | None = None
    ) -> AsyncIterator[None]:
        """Translate the client's errors to ours, with the cause kept."""
        from aiodocker import DockerError
        from aiohttp import ClientError

        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except DockerError as error:
            if error.status == 404 and missing is not None:
                raise missing from error
            if error.status == NO_ANSWER:
                raise EnvironmentFailed(
                    "CR-CONTAINER-004",
                    f"{self.name}: {what}: {error.message}",
                    hint=START_HINTS[self.name],
                ) from error
            raise Refused(
                "CR-CONTAINER-005",
                f"{self.name}: {what}: {error.message}",
                hint=_advice(error.message),
            ) from error
        except TimeoutError as error:
            raise EnvironmentFailed(
                "CR-CONTAINER-004", f"{self.name}: {what}: no answer within {CALL_SECONDS:g} s"
            ) from error
        except (ClientError, OSError) as error:
            raise EnvironmentFailed(
                "CR-CONTAINER-004", f"{self.name}: {what}: {error}", hint=START_HINTS[self.name]
            ) from error


@contextlib.asynccontextmanager
async def connect(name: EngineName, caller: Mapping[str, str]) -> AsyncIterator[ContainerClient]:
    """Find the engine and agree on a version.

    Raises:
        BackendUnavailable: it is not there, does not answer, or knows no version that we do.
    """
    path = find_socket(name, caller)
    try:
        import aiodocker
    except ImportError as error:
        raise BackendUnavailable(
            "CR-CONTAINER-003",
            f"backend {name!r} needs the package aiodocker",
            hint=install_line("docker"),
        ) from error
    async with aiodocker.Docker(
        url=f"unix://{path}", api_version=f"v{OLDEST[0]}.{OLDEST[1]}"
    ) as client:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                versions = await _query_versions(client)
        except (aiodocker.DockerError, OSError, TimeoutError) as error:
            raise BackendUnavailable(
                "CR-CONTAINER-001",
                f"{name} does not answer at {path}: {error}",
                hint=START_HINTS[name],
            ) from error
        api = negotiated_version(versions.newest, versions.oldest)
        if not api:
            raise BackendUnavailable(
                "CR-CONTAINER-001",
                (
                    f"{name} at {path} speaks API {versions.oldest or '?'} to "
                    f"{versions.newest or '?'}, "
                    f"expected {OLDEST} to {NEWEST}"
                ),
                hint="update it",
            )
        client.api_version = api
        yield ContainerClient(name, path, client, versions.version)


async def _query_versions(client: aiodocker.Docker) -> EngineVersions:
    """The versions of an engine.

    The whole description is requested only where the engine's newest version is not one of ours:
    for that, Podman runs half a dozen programs, which takes 1 to 5 s.
    """
    async with client._query("_ping", versioned_api=False) as answer:
        newest, server = answer.headers.get("Api-Version", ""), answer.headers.get("Server", "")
    if newest and _version(newest) <= NEWEST:
        return EngineVersions(server.partition("/")[2].partition(" ")[0], newest)
    described = await client._query_json("version", versioned_api=False)
    return EngineVersions(
        str(described.get("Version", "")),
        described.get("ApiVersion", ""),
        described.get("MinAPIVersion", ""),
    )


def _digest(identity: str) -> str:
    # Podman leaves the prefix out
    return identity if identity.startswith("sha256:") else f"sha256:{identity}"


def _missing_image(name: str, engine: str) -> ProjectError:
    ours = name.removeprefix("docker.io/").removeprefix("localhost/").startswith("cleanroom/")
    hint = (
        f"`cleanroom-engine image build --backend {engine}` makes it"
        if ours
        else f"`{engine} pull {name}` brings it; nothing is pulled during a run"
    )
    return ProjectError("CR-CONTAINER-006", f"image {name!r} is not in {engine}", hint=hint)


def _advice(message: str) -> str:
    """A hint for errors of engines that are known; else empty."""
    if "RLIMIT" in message or "rlimit" in message:
        return "containers.conf: default_ulimits at or below this machine's hard limits"
    if "hybrid" in message:
        return 'containers.conf: [engine] runtime = "runc"'
    if "systemd" in message and "cgroup" in message:
        return 'containers.conf: [engine] cgroup_manager = "cgroupfs"'
    return ""
