"""Ways between embedded environments: a service's doorway is open, everything else is not."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from cleanroom.backends.base import EgressRule, EnvironmentSpec, Mount, PortForward
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.backends.embedded.spec import FORWARDS_MAX
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import Level, default_policy
from support.embedded_harness import BARE, RUN_ID, Entered, Phase, run

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

ECHO = """
import socket, sys, threading
kind, where, word = sys.argv[1:]
listening = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
listening.bind(where if kind == "unix" else ("127.0.0.1", int(where)))
listening.listen(64)
print("listening", flush=True)
def serve(connection):
    with connection:
        while data := connection.recv(65536):
            connection.sendall(word.encode() + data)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
ASK = (
    "python3 -c 'import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2])), "
    '5); s.sendall(b"hello"); print(s.recv(99).decode())\' '
)


def service(identity: str, *mounts: Mount) -> EnvironmentSpec:
    return EnvironmentSpec(
        id=identity,
        run_id=RUN_ID,
        role="service",
        policy=default_policy(Level.MEDIUM),
        variables={"PATH": "/usr/bin:/bin"},
        mounts=mounts,
    )


@asynccontextmanager
async def serving(
    backend: EmbeddedBackend, spec: EnvironmentSpec, kind: str, where: str, word: str = ""
) -> AsyncIterator[Any]:
    """An echo server in an environment of its own, for as long as it is entered."""
    async with backend.environment(spec) as environment, anyio.create_task_group() as tasks:
        listening = anyio.Event()

        async def serve() -> None:
            await environment.exec(
                ("/usr/bin/python3", "-c", ECHO, kind, where, word),
                on_output=lambda stream, piece: listening.set(),
            )

        tasks.start_soon(serve)
        await listening.wait()
        yield environment
        tasks.cancel_scope.cancel()


async def test_a_phase_reaches_a_declared_service_by_name_and_port(entered: Entered, phase: Phase):
    """Its name leads to 127.0.0.1, and the declared port to the server, by TCP."""
    forward = PortForward(service="echo", port=7000, environment="echo", to="tcp:5555")
    async with (
        entered() as backend,
        serving(backend, service("echo"), "tcp", "5555"),
        backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
    ):
        assert (await run(environment, ASK + "echo 7000"))[1] == "hello\n"
        assert (await run(environment, ASK + "127.0.0.1 7000"))[1] == "hello\n"


async def test_a_service_on_a_unix_socket_is_reached_through_its_doorway(
    entered: Entered, phase: Phase, tmp_path: Path
):
    """The same port leads to a socket in the service's data folder."""
    async with entered() as backend:
        data = await backend.folder(backend.scratch / "data")
        (backend.scratch / "data").chmod(0o777)
        spec = service(
            "echo", Mount(source=str(backend.scratch / "data"), target="/run/data", writable=True)
        )
        forward = PortForward(service="echo", port=7000, environment="echo", to="unix:/run/data/s")
        async with (
            serving(backend, spec, "unix", "/run/data/s"),
            backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
        ):
            assert (await run(environment, ASK + "echo 7000"))[1] == "hello\n"
        await backend.drop_folder(data)


async def test_an_undeclared_port_of_a_service_is_closed(entered: Entered, phase: Phase):
    """The server's own port, and every other one, does not exist for the phase."""
    forward = PortForward(service="echo", port=7000, environment="echo", to="tcp:5555")
    async with (
        entered() as backend,
        serving(backend, service("echo"), "tcp", "5555"),
        backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
    ):
        _, said = await run(environment, ASK + "echo 5555")
        assert "ConnectionRefusedError" in said


async def test_a_hundred_ports_of_services_are_reached(entered: Entered, phase: Phase):
    """More sockets than one message brings: each of them leads to its own server."""
    forwards = tuple(
        PortForward(service=f"s{number}", port=7000 + number, environment="echo", to=to)
        for number in range(100)
        for to in (f"tcp:{5555 + number % 2}",)
    )
    async with (
        entered() as backend,
        serving(backend, service("echo"), "tcp", "5555", "even:"),
        backend.environment(phase(**BARE, port_forwards=forwards)) as environment,
    ):
        for name, port in (("s0", 7000), ("s34", 7034), ("s98", 7098)):
            assert (await run(environment, f"{ASK}{name} {port}"))[1] == "even:hello\n"
        assert "even:" not in (await run(environment, f"{ASK}s99 7099"))[1]


async def test_more_declared_hosts_than_one_message_brings(entered: Entered, phase: Phase):
    """Each has an address of its own, and the last one's relay answers, that nobody is there."""
    rules = tuple(EgressRule(host=f"h{number}.test", port=443) for number in range(FORWARDS_MAX))
    async with entered() as backend, backend.environment(phase(**BARE, egress=rules)) as one:
        result, said = await run(one, f"getent hosts h0.test h{FORWARDS_MAX - 1}.test")
        assert (result.exit_code, len(said.splitlines())) == (0, 2)
        # Sorted by name, the last one is h99: its relay accepts, and finds no such host.
        assert "ConnectionResetError" in (await run(one, f"{ASK}h99.test 443"))[1]


async def test_too_many_forwards_are_refused_by_name(entered: Entered, phase: Phase):
    """No environment is begun that cannot be made."""
    rules = tuple(EgressRule(host=f"h{n}.test", port=443) for n in range(FORWARDS_MAX + 1))
    async with entered() as backend:
        with pytest.raises(EnvironmentFailed, match=f"{FORWARDS_MAX + 1} declared hosts") as caught:
            async with backend.environment(phase(**BARE, egress=rules)):
                pass
        assert caught.value.code == "CR-SANDBOX-010"


async def test_two_runs_on_one_port_do_not_meet(entered: Entered, phase: Phase):
    """NET-18, CLN-22: each phase finds its own service behind the same port."""
    async with (
        entered() as backend,
        serving(backend, service("one"), "tcp", "5555", "1:"),
        serving(backend, service("two"), "tcp", "5555", "2:"),
    ):
        for name, answer in (("one", "1:hello\n"), ("two", "2:hello\n")):
            forward = PortForward(service="echo", port=7000, environment=name, to="tcp:5555")
            async with backend.environment(
                phase(f"of-{name}", **BARE, port_forwards=(forward,))
            ) as environment:
                assert (await run(environment, ASK + "echo 7000"))[1] == answer


async def test_twenty_connections_at_once_keep_their_own_data(entered: Entered, phase: Phase):
    """The relay mixes no connection with another, nor loses bytes of a large transfer."""
    client = """python3 - <<'END'
import socket, threading
wrong = []
def ask(number):
    data = bytes([number]) * 200_000
    with socket.create_connection(("echo", 7000), 5) as s:
        threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1))).start()
        got = b""
        while piece := s.recv(65536): got += piece
    if got != data: wrong.append((number, len(got)))
threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
[t.start() for t in threads]; [t.join() for t in threads]
print(wrong)
END"""
    forward = PortForward(service="echo", port=7000, environment="echo", to="tcp:5555")
    async with (
        entered() as backend,
        serving(backend, service("echo"), "tcp", "5555"),
        backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
    ):
        assert (await run(environment, client))[1] == "[]\n"


async def test_a_service_that_is_gone_is_a_reset_and_not_a_silence(entered: Entered, phase: Phase):
    """Once the server has ended the client learns at once."""
    forward = PortForward(service="echo", port=7000, environment="echo", to="tcp:5555")
    async with (
        entered() as backend,
        backend.environment(service("echo")),
        backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
    ):
        assert "Connection" in (await run(environment, ASK + "echo 7000"))[1].splitlines()[-1]


async def test_a_doorway_leads_to_each_life_of_its_service(entered: Entered, phase: Phase):
    """Opened before the service is there, the same door leads to its first life and to the next."""
    forward = PortForward(service="echo", port=7000, environment="echo", to="tcp:5555")
    async with (
        entered() as backend,
        backend.environment(phase(**BARE, port_forwards=(forward,))) as environment,
    ):
        for life in ("1:", "2:"):
            async with serving(backend, service("echo"), "tcp", "5555", life):
                assert (await run(environment, ASK + "echo 7000"))[1] == f"{life}hello\n"
    assert (await backend.ledger())[2] == ()


async def test_the_engine_dials_into_an_environment_and_the_host_does_not(entered: Entered):
    """NET-14: a port that is listened on inside is reached by `dial` and is closed on the host."""
    async with (
        entered() as backend,
        serving(backend, service("echo"), "tcp", "45555") as environment,
    ):
        async with await environment.dial("tcp:45555") as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        with pytest.raises(OSError, match="connection attempts failed"):
            await anyio.connect_tcp("127.0.0.1", 45555)
        with pytest.raises(ConnectionRefusedError):
            await environment.dial("tcp:45556")
