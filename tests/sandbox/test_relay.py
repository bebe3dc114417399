"""Claims about the relay between a phase's port and a service."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom.sandbox import channel
from cleanroom.sandbox.network import dial, relay


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
        dial._first_public(host, socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
