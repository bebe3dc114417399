"""Claims about the relay between a phase's port and a service."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox import channel
from cleanroom.sandbox.network import dial, relay
from support.tiers_harness import wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Path]:
    """An echo server on a unix socket whose path is longer than an address can hold."""
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    held = os.open(folder, os.O_PATH)
    listening.bind(f"/proc/self/fd/{held}/socket")
    os.close(held)
    listening.listen()

    def echo(end: socket.socket) -> None:
        with end:
            while piece := end.recv(65536):
                end.sendall(piece)

    def accept() -> None:
        while True:
            try:
                end, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(end,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield folder
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


@pytest.fixture
def port(service: Path) -> Iterator[int]:
    """A port on which a relay leads to the service at /run/x/socket."""
    orders, theirs = channel.pair()
    folder = os.open(service, os.O_PATH)
    serving = relay.Relay(theirs, dial.Service({"/run/x": folder}).dial)
    thread = threading.Thread(target=serving.serve, daemon=True)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        channel.RELAY_ORDERS.send(
            orders, {"op": "relay", "to": "unix:/run/x/socket"}, [listening.fileno()]
        )
    yield number
    orders.close()
    thread.join()
    theirs.close()
    os.close(folder)


def test_bytes_travel_both_ways_whole(port: int):
    """Four mebibytes come back as they were sent, over a socket path longer than an address."""
    sent = os.urandom(4 << 20)
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as end:
        writer = threading.Thread(target=lambda: (end.sendall(sent), end.shutdown(socket.SHUT_WR)))
        writer.start()
        while piece := end.recv(65536):
            received += piece
        writer.join()

    assert bytes(received) == sent


def test_many_connections_do_not_mix(port: int):
    """Fifty clients at once each get their own bytes."""
    ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for number, end in enumerate(ends):
        end.sendall(f"client {number}".encode())
    answers = [end.recv(100).decode() for end in ends]
    for end in ends:
        end.close()

    assert answers == [f"client {number}" for number in range(50)]


def test_nobody_behind_it_is_a_reset_and_not_a_silence(tmp_path: Path):
    """A client of a service that is down learns so at once."""
    orders, theirs = channel.pair()
    folder = os.open(tmp_path, os.O_PATH)
    thread = threading.Thread(
        target=relay.Relay(theirs, dial.Service({"/run/x": folder}).dial).serve, daemon=True
    )
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        channel.RELAY_ORDERS.send(
            orders, {"op": "relay", "to": "unix:/run/x/socket"}, [listening.fileno()]
        )
        with (
            socket.create_connection(listening.getsockname()) as end,
            pytest.raises(ConnectionResetError),
        ):
            end.recv(1)
    orders.close()
    thread.join()
    theirs.close()
    os.close(folder)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "0.0.0.0",
        "localhost",
        "168.63.129.16",
        "100.100.100.200",
        "::ffff:10.0.0.1",
        "2002:a00:1::",
        "64:ff9b::a9fe:a9fe",
        "fec0::1",
        "fd00:ec2::254",
        "ff0e::1",
        "240.0.0.1",
    ],
)
def test_declared_egress_never_reaches_a_private_address(host: str):
    """The relay checks the address and not the name, so a declared name cannot be pointed
    inwards.
    """
    with pytest.raises(OSError, match="no address that may be reached"):
        dial.dial_out(f"out:{host}:80:public")


def test_a_name_that_leads_elsewhere_at_the_second_look_reaches_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    """Each connection looks once, and goes to the very address that was judged (DNS rebinding)."""
    answers = iter(["192.0.2.7", "10.0.0.1", "169.254.169.254"])
    connected = []

    def look(host: str, port: int, **more: object) -> list[object]:
        address = (next(answers), port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)]

    class Ends(socket.socket):
        def connect(self, address: object) -> None:
            connected.append(address)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr(socket, "socket", Ends)
    monkeypatch.setattr(dial.routes, "leads_out", lambda address: True)
    dial.dial_out("out:moves.test:80:documentation").close()
    for _ in range(2):
        with pytest.raises(dial.NotOpened):
            dial.dial_out("out:moves.test:80:documentation")
    assert connected == [("192.0.2.7", 80)]


@pytest.mark.parametrize("reach", ["public", "documentation", "private"])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "169.254.169.254",
        "fe80::1",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "2002:a9fe:a9fe::",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_no_declaration_opens_the_machine_itself(host: str, reach: str):
    """Loopback, link-local, metadata and multicast stay refused, whatever an entry says."""
    with pytest.raises(OSError, match="no address that may be reached"):
        dial.dial_out(f"out:{host}:80:{reach}")


@pytest.mark.parametrize(
    ("host", "opened"),
    [
        ("10.1.2.3", {"private"}),
        ("172.16.0.1", {"private"}),
        ("192.168.1.1", {"private"}),
        ("100.64.0.1", {"private"}),
        ("fd12::1", {"private"}),
        ("::ffff:10.1.2.3", {"private"}),
        ("192.0.2.7", {"documentation", "private"}),
        ("203.0.113.7", {"documentation", "private"}),
        ("2001:db8::7", {"documentation", "private"}),
        ("93.184.216.34", {"public", "documentation", "private"}),
        ("198.18.0.1", set()),
    ],
)
def test_each_reach_opens_what_the_one_before_opens(
    monkeypatch: pytest.MonkeyPatch, host: str, opened: set[str]
):
    """Each kind of address is connected to by those declarations only that name it."""
    monkeypatch.setattr(dial.routes, "leads_out", lambda address: True)
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    found = {reach for reach, kinds in dial._REACH.items() if dial._is_elsewhere(packed, kinds)}
    assert found == opened


def test_a_pattern_leads_to_the_names_below_its_domain_only():
    """Whatever the other end of its channel says."""
    pattern = dial.Outside("*.example.org", 443, "private")
    assert str(pattern.named("a.example.org")) == "out:a.example.org:443:private"
    for name in ("example.org", "a.evil.org", "a.example.org:80", "*.example.org", ""):
        with pytest.raises(OSError, match="no name of the declared domain"):
            pattern.named(name)
    with pytest.raises(OSError, match="no name of the declared domain"):
        dial.Outside("a.example.org", 443, "public").named("a.example.org")


@given(
    st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z0-9.-]{1,40}", fullmatch=True)),
    st.integers(1, 65535),
    st.sampled_from(sorted(dial._REACH)),
)
def test_a_target_outside_is_read_as_it_was_written(host: str, port: int, reach: str):
    """Also a host with colons in it."""
    outside = dial.Outside(host, port, reach)
    assert dial.Outside.parsed(str(outside)) == outside


def test_a_relay_without_free_descriptors_lets_clients_wait_and_serves_them_later(service: Path):
    """Forty clients at once where there is room for few: all are answered, none is refused."""
    script = textwrap.dedent(
        """
        import os, resource, socket, sys
        from cleanroom.sandbox import channel
        from cleanroom.sandbox.network import dial, relay
        orders = socket.socket(fileno=int(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (144, 144))
        folder = os.open(sys.argv[2], os.O_PATH)
        relay.Relay(orders, dial.Service({"/run/x": folder}).dial).serve()
        """
    )
    orders, theirs = channel.pair()
    words = [sys.executable, "-c", script, str(theirs.fileno()), str(service)]
    serving = subprocess.Popen(words, pass_fds=[theirs.fileno()])
    theirs.close()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        order = {"op": "relay", "to": "unix:/run/x/socket"}
        channel.RELAY_ORDERS.send(orders, order, [listening.fileno()])
        for _ in range(2):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
            for client in clients:
                client.settimeout(30)
                client.sendall(b"here")
            for client in clients:
                with client:
                    assert client.recv(4) == b"here"
        # as at its beginning: no descriptor of a connection is left
        with socket.create_connection(("127.0.0.1", port)) as last:
            last.sendall(b"last")
            assert last.recv(4) == b"last"
        assert wait_until(lambda: len(os.listdir(f"/proc/{serving.pid}/fd")) < 20)
    orders.close()
    assert serving.wait(30) == 0
