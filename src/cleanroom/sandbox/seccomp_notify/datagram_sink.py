"""Datagram sockets that are connected to hosts that may not be reached.

Connecting one sends nothing: programs do it to learn their own address, or to find a route.
So it succeeds, towards a socket of ours on the environment's own loopback; a datagram that then
arrives there is the attempt.
That holds for each one, also of a sender that is not known: else a program could fill the queue
from a socket of its own, and the kernel would drop the others.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.network.addresses import packed
from cleanroom.sandbox.seccomp_notify import attempts, forward
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.sockets import DuplicatedSockets, Sockets

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt

# connected sockets whose target is remembered; the oldest gives way
_REMEMBERED_MOST = 4096
# Datagrams that are taken at once, more than a queue holds: senders are faster than this process.
_TAKEN_MOST = 1024
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Sent(NamedTuple):
    """A datagram to a host that may not be reached."""

    key: object
    record: Attempt
    rule: str

    def copy_record(self) -> Attempt:
        """A record of its own for `Aggregate`, which counts in it."""
        return {**self.record}


class DatagramSink:
    """The sink of one environment, in whose network namespace it is used."""

    def __init__(self, sockets: Sockets | None = None, *, names_strays: bool = True) -> None:
        """`sockets`: where duplicates of the callers' come from.

        `names_strays`: an unknown sender is recorded; on the host's loopback it may be anybody.
        """
        self._sockets = sockets or DuplicatedSockets()
        self._names_strays = names_strays
        self._waiting = select.epoll()
        # family -> our socket, made when the first one is connected to it
        self._sinks: dict[int, socket.socket] = {}
        # family and port of a caller's socket -> the record of what it would send
        self._connected: dict[tuple[int, int], Sent] = {}

    def fileno(self) -> int:
        """Readable when a datagram has arrived (epoll(7))."""
        return self._waiting.fileno()

    def connect(self, call: HeldCall, refusal: Response) -> Response:
        """Connect the caller's datagram socket to the sink; `refusal` where that cannot be."""
        try:
            with self._sockets.duplicate(call.caller, call.arguments[0]) as sock:
                if sock.family not in _LOOPBACK or sock.type != socket.SOCK_DGRAM:
                    return refusal
                port = self._sink(sock.family).getsockname()[1]
                forward.connect_local(
                    sock, forward.socket_address(packed(_LOOPBACK[sock.family]), port)
                )
                self._remember((sock.family, sock.getsockname()[1]), call, refusal)
        except OSError:
            return refusal
        return Response(0)

    def take(self) -> list[Sent]:
        """What was sent since."""
        found = []
        for family, sink in self._sinks.items():
            for _ in range(_TAKEN_MOST):
                if (port := _sender(sink)) is None:
                    break
                sent = self._connected.get((family, port))
                if sent is not None or self._names_strays:
                    found.append(sent or _stray(sink))
        return found

    def close(self) -> None:
        self._waiting.close()
        for sink in self._sinks.values():
            sink.close()

    def _sink(self, family: int) -> socket.socket:
        sink = self._sinks.get(family)
        if sink is None:
            sink = socket.socket(family, socket.SOCK_DGRAM)
            sink.bind((_LOOPBACK[socket.AddressFamily(family)], 0))
            sink.setblocking(False)
            self._sinks[family] = sink
            self._waiting.register(sink, select.EPOLLIN)
        return sink

    def _remember(self, sender: tuple[int, int], call: HeldCall, refusal: Response) -> None:
        self._connected.pop(sender, None)
        if len(self._connected) >= _REMEMBERED_MOST:
            del self._connected[next(iter(self._connected))]
        record = attempts.sent_datagram(call, refusal)
        key = (sender, *refusal.target.items())
        self._connected[sender] = Sent(key, record, refusal.rule)


def _stray(sink: socket.socket) -> Sent:
    """A datagram of a socket that is not known: forgotten, or of whoever found the sink itself."""
    ip, port = sink.getsockname()[:2]
    record = attempts.stray_datagram(ip, port)
    return Sent((ip, port), record, record["rule"])


def _sender(sink: socket.socket) -> int | None:
    """The port of the next datagram's sender; None while there is none."""
    try:
        return int(sink.recvfrom(1)[1][1])
    except OSError:
        return None
