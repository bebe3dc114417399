"""Canaries' attempts on the network: connections, datagrams, families, names, listening."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

from cleanroom.core.beneath import unix_address
from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.selftest.canary import Unavailable, allowlist, host_network

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Expectations

_CONNECT_SECONDS = 0.1
# The name server shares its process with the recorder; a busy machine is no violation.
_ANSWER_SECONDS = 2.0


def connect(family: int, address: tuple[str, int], protocol: int = 0) -> None:
    """Connect without waiting longer than a refusal takes."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        raise Unavailable(f"no such socket: {os.strerror(error.errno or 0)}") from error
    with probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            # connect(2), EINPROGRESS: writable once it is decided, and SO_ERROR says how.
            if not select.select([], [probe], [], _CONNECT_SECONDS)[1]:
                raise TimeoutError(errno.ETIMEDOUT, "no refusal in time") from None
            _raise(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _raise(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def send_datagram(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"canary", address)


def reach_own_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect(socket.AF_INET, server.getsockname())


def fast_open(address: tuple[str, int], *, by_message: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if by_message:
            # MSG_FASTOPEN: the address connects, without a connect(2) that could be held.
            probe.sendmsg([b"canary"], [], constants.MSG_FASTOPEN, address)
        else:
            probe.sendto(b"canary", constants.MSG_FASTOPEN, address)


def open_family(family: int) -> None:
    # vsock(7) has no raw sockets, packet(7) no streams.
    socket.socket(
        family, socket.SOCK_STREAM if family == constants.AF_VSOCK else socket.SOCK_RAW
    ).close()


def connect_unix_path(path: str) -> None:
    """A path that is longer than an address can hold is tried from its folder,
    as a program would.
    """
    if not too_long(path):
        return connect_unix(path)
    folder, name = os.path.split(path)
    try:
        # O_PATH needs no right to read the folder, only to search those above it.
        held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"its folder: {error.strerror}") from error
    try:
        return connect_unix(unix_address(held, name))
    finally:
        os.close(held)


def too_long(path: str) -> bool:
    return len(os.fsencode(path)) >= constants.UNIX_PATH_MAX


def connect_unix(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        probe.connect(address)


def look_up_name(expect: Expectations) -> None:
    """Only the sink's own address may come back."""
    question = (
        b"".join(bytes((len(label),)) + label.encode() for label in expect["name"].split("."))
        + b"\0\0\1\0\1"
    )
    packet = b"\x43\x52\1\0\0\1\0\0\0\0\0\0" + question
    # In the host's namespaces names are asked over TCP.
    stream = expect["bare"]
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    ) as probe:
        probe.connect(("127.0.0.1", 53))
        # RFC 1035: over TCP two bytes of length come first.
        probe.send(len(packet).to_bytes(2, "big") + packet if stream else packet)
        if not select.select([probe], [], [], _ANSWER_SECONDS)[0]:
            raise TimeoutError(errno.ETIMEDOUT, "no answer")
        answer = probe.recv(514)[2 if stream else 0 :]
    address = answer[-4:]
    # RCODE is the lower half of byte 3; the sink's addresses are in 198.18.0.0/15.
    if answer[3] & 15 or address[:1] != b"\xc6" or address[1] & 0xFE != 18:
        raise ValueError(f"answered with {socket.inet_ntoa(address)}")


def listen(expect: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", allowlist(expect)["port"]))
        probe.listen()


def listen_unbound(_: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # ip(7): on a socket without an address the kernel chooses a port, on every interface.
        probe.listen()


def listen_as_clients_do(_: Expectations) -> None:
    """A unix socket without a name, and a datagram socket on a port that the kernel chooses,
    which clients do.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        # unix(7), autobind: without a name the kernel chooses an abstract one.
        local.bind("")
        local.listen()
        client.bind(("127.0.0.1", 0))


def listen_on_all_interfaces(expect: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("0.0.0.0", host_network(expect)["port"]))  # noqa: S104
        probe.listen()
