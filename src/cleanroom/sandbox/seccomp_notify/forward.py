"""Forwards on a shared network: hands a connection to a declared service to the service's relay.

No port of the host stands for the service.
For each connection a listening socket exists while the connection is made, on a port that the
kernel chooses.
Only the caller's own socket is accepted, by its address, and its peer is sent to the relay.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel.constants import V4MAPPED_PREFIX
from cleanroom.sandbox.seccomp_notify.socket_calls import DirectExecutor, SocketCall

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Forwarded

# to a socket of one's own on loopback, which takes 0.1
_CONNECT_MS = 1000
# connections of other processes to the same port that are refused before ours is given up
_STRANGERS_MOST = 16


class Forwards:
    """Connects callers' sockets to relays.

    `channels`: where a forward leads -> our end of the channel over which its relay receives
    connected sockets.
    """

    def __init__(self, channels: Mapping[str, socket.socket]) -> None:
        self._channels = channels

    def connect(self, sock: socket.socket, to: str) -> None:
        """Connect the caller's socket to the relay of forward `to`.

        Raises:
            OSError: ECONNREFUSED, no relay serves that forward any more.
        """
        if to not in self._channels:
            raise OSError(errno.ECONNREFUSED, "no such forward")
        with connect_pair(sock) as peer:
            self.hand_over(peer, to)

    def hand_over(self, peer: socket.socket, to: str, host: str = "") -> None:
        """Send a connected socket to the relay of forward `to`, for the name `host` of a pattern's.

        Raises:
            OSError: ECONNREFUSED, no relay serves that forward any more.
        """
        message: Forwarded = {"kind": "forwarded", "host": host}
        try:
            channel.FORWARDED.send(self._channels[to], message, [peer.fileno()])
        except (KeyError, OSError):
            raise OSError(errno.ECONNREFUSED, "its relay is gone") from None


def connect_pair(sock: socket.socket) -> socket.socket:
    """Connect the caller's socket to one of ours, which is returned.

    Raises:
        OSError: as connect(2) says, or ECONNREFUSED.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(_STRANGERS_MOST)
        # the kernel completes a connection by itself, and accept(2) takes it from the queue later
        connect_local(sock, _loopback_address(sock, listening.getsockname()[1]))
        return _accept_peer(listening, sock)


def connect_local(sock: socket.socket, address: bytes) -> None:
    """Connect a socket to one of this machine, which answers at once, whether the caller's socket
    is blocking or not.

    Raises:
        OSError: as connect(2) says.
    """
    executor, call = DirectExecutor(), SocketCall("connect", address)
    try:
        executor.execute(sock, call)
    # EINPROGRESS; the second connect(2) returns the result of the first
    except BlockingIOError:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        poll.poll(_CONNECT_MS)
        executor.execute(sock, call)


def socket_address(address: bytes, port: int) -> bytes:
    """A packed address of 4 or 16 bytes as the kernel takes it (ip(7), ipv6(7))."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    head = struct.pack("=H", family) + struct.pack(">H", port)
    # flow label before the address, scope after it
    return head + (address + bytes(8) if len(address) == 4 else bytes(4) + address + bytes(4))


def _loopback_address(sock: socket.socket, port: int) -> bytes:
    """127.0.0.1 as an address of the socket's family."""
    address = socket.inet_aton("127.0.0.1")
    # an IPv6 socket reaches IPv4 by mapped addresses, unless it is IPV6_V6ONLY (ipv6(7))
    prefix = b"" if sock.family == socket.AF_INET else V4MAPPED_PREFIX
    return socket_address(prefix + address, port)


def _accept_peer(listening: socket.socket, sock: socket.socket) -> socket.socket:
    """Accept the connection of the caller's socket; those of other processes are closed."""
    ip, port = sock.getsockname()[:2]
    listening.settimeout(_CONNECT_MS / 1000)
    for _ in range(_STRANGERS_MOST):
        peer, address = listening.accept()
        # an IPv6 socket that is connected to an IPv4 address has a mapped one (ipv6(7))
        if address == (ip.removeprefix("::ffff:"), port):
            peer.setblocking(True)
            return peer
        peer.close()
    raise OSError(errno.ECONNREFUSED, "strangers came in its stead")
