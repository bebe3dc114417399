"""Doors on a shared network: who connects to a declared service's 127.0.0.1:PORT is led to its
relay, and nobody else can come.

No port of the host stands for the service.
For each connection a listening socket exists for as long as the connection takes,
on a port that the kernel chooses; only the caller's own socket is let in, by its address,
and its other end is handed to the relay.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Mapping

from cleanroom.sandbox import channel
from cleanroom.sandbox.seccomp_notify.socket_calls import DirectExecutor, SocketCall

_CONNECT_MS = 1000  # to a socket of one's own on loopback, which takes 0.1
_STRANGERS_MOST = 16


class Forwards:
    """`ways`: where a door leads -> our end of the channel over which its relay gets connected
    sockets.
    """

    def __init__(self, ways: Mapping[str, socket.socket]) -> None:
        self._ways = ways

    def lead(self, end: socket.socket, to: str) -> None:
        """Connect the caller's socket.

        Raises:
            OSError: ECONNREFUSED, nobody serves that door any more.
        """
        way = self._ways.get(to)
        if way is None:
            raise OSError(errno.ECONNREFUSED, "no such door")
        with joined(end) as other:
            try:
                channel.FORWARDED.send(way, {"kind": "forwarded"}, [other.fileno()])
            except OSError:
                raise OSError(errno.ECONNREFUSED, "its relay is gone") from None


def joined(end: socket.socket) -> socket.socket:
    """Connect the caller's socket to one of ours, which is returned."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(_STRANGERS_MOST)
        connect(end, _address(end, listening.getsockname()[1]))
        return _accepted(listening, end)


def connect(end: socket.socket, address: bytes) -> None:
    """Connect a socket to one of this machine's own, which answers at once,
    whether the caller would wait or not.

    Raises:
        OSError: as connect(2) says.
    """
    hand, deed = DirectExecutor(), SocketCall("connect", address)
    try:
        hand.do(end, deed)
    except BlockingIOError:
        waiting = select.poll()
        waiting.register(end, select.POLLOUT)
        waiting.poll(_CONNECT_MS)
        hand.do(end, deed)


def _address(end: socket.socket, port: int) -> bytes:
    """The loopback's, as this kind of socket takes it."""
    head = struct.pack("=H", end.family) + struct.pack(">H", port)
    four = socket.inet_aton("127.0.0.1")
    return (
        head + four + bytes(8)
        if end.family == socket.AF_INET
        else head + bytes(14) + b"\xff\xff" + four + bytes(4)
    )


def _accepted(listening: socket.socket, end: socket.socket) -> socket.socket:
    """The other end of the caller's socket; whoever else came meanwhile is turned away."""
    ip, port = end.getsockname()[:2]
    listening.settimeout(_CONNECT_MS / 1000)
    for _ in range(_STRANGERS_MOST):
        other, came_from = listening.accept()
        if came_from == (ip.removeprefix("::ffff:"), port):
            other.setblocking(True)
            return other
        other.close()
    raise OSError(errno.ECONNREFUSED, "strangers came in its stead")
