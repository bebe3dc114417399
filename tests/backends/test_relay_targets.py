"""A relay reaches a service and nothing else, whatever the service puts in its socket's place."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from cleanroom.backends.base import Environment, EnvironmentSpec, Mount, PortForward
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.model.policy import Level, default_policy
from support.container_harness import ENGINES, IMAGE, require
from support.container_harness import backend as container
from support.embedded_harness import BARE, RUN_ID, Entered, Phase, run

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

TIERS = ("E2", "E3", *ENGINES)
SERVE = """
import os, socket, sys
os.chdir("/run/service")
{before}
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen(8)
print("listening", flush=True)
{trick}
print("tricked", flush=True)
while True:
    end, _ = listening.accept()
    end.sendall(b"the service")
    end.close()
"""
ASK = """
import socket
try:
    with socket.create_connection(("127.0.0.1", 7000), 5) as end:
        print(end.recv(99).decode() or "closed")
except OSError as error:
    print(type(error).__name__)
"""
# What a service does once it listens; {host} is a unix socket of the host's.
TRICKS = {
    "a link to a socket": "os.unlink('s'); os.symlink({host}, 's')",
    "a link to a folder with one": "os.rename('in', 'away'); os.symlink({folder}, 'in')",
    "a link through /proc": "os.unlink('s'); os.symlink('/proc/1/root' + {host}, 's')",
    "a link to itself": "os.unlink('s'); os.symlink('s', 's')",
    "a file": "os.unlink('s'); open('s', 'w')",
    "a pipe": "os.unlink('s'); os.mkfifo('s')",
}


@contextmanager
def host_server(family: int, address: object) -> Iterator[list[bytes]]:
    """Somebody's server on the host; what came to it."""
    seen: list[bytes] = []
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind(address)
        listening.listen(8)

        def accept() -> None:
            while True:
                try:
                    end, _ = listening.accept()
                except OSError:
                    return
                with end, suppress(OSError):
                    seen.append(b"came")
                    end.sendall(b"the host")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield seen
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def literal(path: Path) -> str:
    """As Python code, written so that tier E3 does not lead it to the environment's own /tmp."""
    return f"'/' {str(path)[1:]!r}"


@asynccontextmanager
async def entered_as(entered: Entered, tier: str, folder: Path) -> AsyncIterator[EmbeddedBackend]:
    """The embedded backend of a tier, or a container engine's."""
    if tier in ENGINES:
        require(tier)
        made = container(tier, RUN_ID, folder / "cache/runs/t", folder / "journal.jsonl")
        async with made as backend:
            yield backend
        return
    async with entered() as backend:
        await backend.probe(Level.MEDIUM)
        if tier == "E3":
            backend.use_host_namespaces()
        yield backend


@asynccontextmanager
async def serving(
    backend: EmbeddedBackend,
    code: str,
    name: str = "s",
) -> AsyncIterator[Environment]:
    """A service that runs this code, once it has done its trick."""
    folder = backend.scratch / "data"
    thing = await backend.folder(folder)
    mount = Mount(source=str(folder), target="/run/service", writable=True)
    spec = EnvironmentSpec(
        id="service",
        run_id=RUN_ID,
        role="service",
        policy=default_policy(Level.MEDIUM),
        variables={"PATH": "/usr/bin:/bin"},
        mounts=(mount,),
        image=IMAGE,
    )
    async with backend.environment(spec) as environment, anyio.create_task_group() as tasks:
        tricked, said = anyio.Event(), bytearray()

        def hear(stream: str, piece: bytes) -> None:
            said.extend(piece)
            if b"tricked" in said:
                tricked.set()

        async def serve() -> None:
            await environment.exec(("/usr/bin/python3", "-c", code, name), on_output=hear)
            raise AssertionError(said.decode())

        tasks.start_soon(serve)
        await tricked.wait()
        yield environment
        tasks.cancel_scope.cancel()
    await backend.drop_folder(thing)


async def asked(backend: EmbeddedBackend, phase: Phase, to: str) -> str:
    """What a phase finds behind the door of the service."""
    forward = PortForward(service="service", port=7000, environment="service", to=to)
    async with backend.environment(
        phase(**BARE, port_forwards=(forward,), image=IMAGE)
    ) as environment:
        _, said = await run(environment, f"python3 -c '{ASK}'")
    return said.strip()


async def dialled(environment: Environment, to: str) -> str:
    try:
        stream = await environment.dial(to)
    except OSError as error:
        return type(error).__name__
    async with stream:
        return (await stream.receive()).decode()


@pytest.mark.parametrize("tier", TIERS)
async def test_an_honest_service_is_reached(
    entered: Entered,
    phase: Phase,
    tmp_path: Path,
    tier: str,
):
    """By a phase through its door, and by the engine's probes."""
    async with entered_as(entered, tier, tmp_path) as backend:
        code = SERVE.format(before="", trick="")
        async with serving(backend, code) as service:
            assert await dialled(service, "unix:/run/service/s") == "the service"
            assert await asked(backend, phase, "unix:/run/service/s") == "the service"


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("trick", TRICKS)
async def test_no_trick_of_a_service_leads_its_relay_to_the_host(
    entered: Entered,
    phase: Phase,
    open_tmp_path: Path,
    tier: str,
    trick: str,
):
    """Neither a phase through the door nor the engine's probe arrives anywhere."""
    # No folder's mode is to keep an environment's user from it.
    folder = open_tmp_path / "h"
    folder.mkdir(mode=0o755)
    host = folder / "s"
    with host_server(socket.AF_UNIX, str(host)) as came:
        host.chmod(0o777)
        done = TRICKS[trick].format(host=literal(host), folder=literal(folder))
        code = SERVE.format(before="os.mkdir('in')", trick=done)
        name = "in/s" if "folder" in trick else "s"
        async with (
            entered_as(entered, tier, open_tmp_path) as backend,
            serving(backend, code, name) as service,
        ):
            to = f"unix:/run/service/{name}"
            assert await dialled(service, to) != "the host"
            assert await asked(backend, phase, to) != "the host"
        assert came == []


async def test_a_stranger_s_socket_in_its_folder_is_not_reached(
    entered: Entered,
    phase: Phase,
    tmp_path: Path,
):
    """A listener that is no process of the service is refused by the kernel's word."""
    code = SERVE.format(before="", trick="os.unlink('s')")
    async with entered() as backend, serving(backend, code) as service:
        held = os.open(backend.scratch / "data", os.O_PATH)
        with host_server(socket.AF_UNIX, f"/proc/self/fd/{held}/s"):
            (backend.scratch / "data/s").chmod(0o777)
            assert await dialled(service, "unix:/run/service/s") == "ConnectionRefusedError"
            assert await asked(backend, phase, "unix:/run/service/s") != "the host"
        os.close(held)


async def test_in_tier_e3_a_port_of_the_host_is_no_service(
    entered: Entered,
    phase: Phase,
    tmp_path: Path,
):
    """Where the network is the host's, a door leads to a port only while the service has it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with host_server(socket.AF_INET, ("127.0.0.1", port)):
        code = "print('tricked', flush=True)\nimport time\ntime.sleep(600)"
        async with (
            entered_as(entered, "E3", tmp_path) as backend,
            serving(backend, code) as service,
        ):
            assert await dialled(service, f"tcp:{port}") == "ConnectionRefusedError"
            assert await asked(backend, phase, f"tcp:{port}") != "the host"


async def test_in_tier_e3_a_service_s_own_port_is_reached(
    entered: Entered,
    phase: Phase,
    tmp_path: Path,
):
    """The port that the service itself listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = SERVE.format(before="", trick="").replace("AF_UNIX", "AF_INET")
    code = code.replace("bind(sys.argv[1])", f"bind(('127.0.0.1', {port}))")
    async with entered_as(entered, "E3", tmp_path) as backend, serving(backend, code) as service:
        assert await dialled(service, f"tcp:{port}") == "the service"
        assert await asked(backend, phase, f"tcp:{port}") == "the service"


@pytest.mark.parametrize("tier", TIERS)
async def test_a_relay_has_no_rights_but_its_service_s(
    entered: Entered,
    phase: Phase,
    tmp_path: Path,
    tier: str,
):
    """As root the process that connects is the environment's user, without a capability."""
    async with entered_as(entered, tier, tmp_path) as backend:
        code = SERVE.format(before="", trick="")
        async with serving(backend, code) as service:
            await dialled(service, "unix:/run/service/s")
            relays = [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_ours(pid)]
            assert relays
            for pid in relays:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                status = dict(line.split(":\t", 1) for line in lines)
                assert status["CapEff"] == "0" * 16
                assert os.geteuid() or "0" not in status["Uid"].split()


def _is_ours(pid: str) -> bool:
    """A relay that shows the command line of a keeper of ours.

    Who its parent is tells nothing: a container's relay is its pid 1's child.
    """
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "relay\n":
            return False
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return any(Path(f"/proc/{child}/cmdline").read_bytes() == line for child in children)
    except OSError:
        return False
