"""Messages between engine, keeper, wardens and init: one JSON object a datagram,
with descriptors beside it.

SOCK_SEQPACKET keeps messages whole and ends with an empty read when the other side is gone,
which is how each process learns that its owner died.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol

# an environment's whole description with its variables; the kernel's default of 208 KiB is too near
MESSAGE_MAX = 1 << 20
# of one message; the kernel's own limit is 253 (SCM_MAX_FD, unix(7))
DESCRIPTORS_MAX = 64

Message = dict[str, Any]

Tagged = TypeVar("Tagged", bound=Mapping[str, object])


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return widened(left), widened(right)


def end() -> socket.socket:
    """An end that is not connected yet."""
    return widened(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))


def widened(end: socket.socket) -> socket.socket:
    """The same end, with room for the largest message."""
    # A message has to fit the send buffer (EMSGSIZE). The kernel caps the value at
    # net.core.wmem_max, then doubles it (socket(7)).
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MESSAGE_MAX)
    return end


def send(
    end: socket.socket, message: Mapping[str, object], descriptors: Sequence[int] = ()
) -> None:
    """Send one message.

    The descriptors are duplicated; the caller still owns its own.

    Raises:
        OSError: the other side is gone (EPIPE), or the message is larger than the socket takes
            (EMSGSIZE).
    """
    assert len(descriptors) <= DESCRIPTORS_MAX, "the other side has no room for them"
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode()
    if not descriptors:
        # send and not sendmsg: the filter of an environment holds sendmsg
        end.send(body, socket.MSG_NOSIGNAL)
        return
    end.sendmsg(
        [body],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))],
        socket.MSG_NOSIGNAL,
    )


def receive(end: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message with the descriptors it brought (close-on-exec, owned by the caller);
    None when the other side is gone.

    Raises:
        BlockingIOError: nothing is waiting on a non-blocking socket.
        ValueError: it is no message; the descriptors that came with it are closed.
    """
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    # Close-on-exec as they arrive: a program started in between would inherit them (recv(2)).
    body, beside, flags, _ = end.recvmsg(MESSAGE_MAX, room, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            held = array.array("i")
            held.frombytes(data[: len(data) - len(data) % held.itemsize])
            descriptors.extend(held)
    try:
        # MSG_CTRUNC: descriptors beyond the buffer were closed by the kernel (unix(7)).
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "a message was cut"
        message = _message(body) if body else None
    except (AssertionError, ValueError):
        _close(descriptors)
        raise
    if message is None:
        _close(descriptors)
        return None
    return message, descriptors


def _message(body: bytes) -> Message:
    try:
        message: object = json.loads(body)
    except RecursionError:
        raise ValueError("a message is nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("a message is no object")
    return cast("Message", message)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Direction(Generic[Tagged]):
    """One direction of a channel: which messages of `protocol` travel in it."""

    def __init__(self, key: str, *tags: str) -> None:
        """`tags`: the values that `key` may have; every message has one of them."""
        self.key = key
        self.tags = frozenset(tags)

    def send(self, end: socket.socket, message: Tagged, descriptors: Sequence[int] = ()) -> None:
        """Send one message. The descriptors are duplicated; the caller still owns its own.

        Raises:
            OSError: as the function `send` has it.
        """
        send(end, message, descriptors)

    def receive(self, end: socket.socket) -> tuple[Tagged, list[int]] | None:
        """The next message with its descriptors, as the function `receive` has it.

        Raises:
            BlockingIOError: nothing is waiting on a non-blocking socket.
            ValueError: no message of this direction.
        """
        arrived = receive(end)
        return None if arrived is None else (self._decoded(arrived[0]), arrived[1])

    def _decoded(self, message: Message) -> Tagged:
        """The one place where what was bytes becomes typed: the tag says which type it is."""
        tag = message.get(self.key)
        if not isinstance(tag, str) or tag not in self.tags:
            raise ValueError(f"{self.key} {tag!r} is none of {', '.join(sorted(self.tags))}")
        return cast("Tagged", message)


KEEPER_ORDERS: Direction[protocol.KeeperOrder] = Direction(
    "op",
    "open",
    "end",
    "probe",
    "relay",
    "journal",
    "hold",
    "own",
    "disown",
    "containers",
    "container",
    "bye",
)
KEEPER_MESSAGES: Direction[protocol.KeeperMessage] = Direction(
    "kind", "up", "probed", "probe_failed", "closed"
)
WARDEN_ORDERS: Direction[protocol.WardenOrder] = Direction(
    "op", "kill", "relay", "drop", "dial", "prove", "exec", "signal", "left"
)
WARDEN_MESSAGES: Direction[protocol.WardenMessage] = Direction(
    "kind",
    "forward_ends",
    "ready",
    "failed",
    "attempt",
    "started",
    "exited",
    "proved",
    "proof_failed",
    "dialed",
    "dial_failed",
    "processes",
    "ended",
)
INIT_ORDERS: Direction[protocol.InitOrder] = Direction(
    "op", "prove", "exec", "signal", "left", "copy_up"
)
INIT_MESSAGES: Direction[protocol.InitMessage] = Direction(
    "kind",
    "restricted",
    "failed",
    "started",
    "exited",
    "canaries",
    "proof_failed",
    "processes",
    "copied_up",
)
RELAY_ORDERS: Direction[protocol.RelayOrder] = Direction("op", "relay", "drop", "dial")
RELAY_MESSAGES: Direction[protocol.RelayRefused | protocol.RelayFull] = Direction(
    "kind", "refused", "full"
)
FORWARDED: Direction[protocol.Forwarded] = Direction("kind", "forwarded")
SOCKET_CALLS: Direction[protocol.SocketCallOrder] = Direction(
    "op", "connect", "bind", "listen", "send"
)
SOCKET_RESULTS: Direction[protocol.SocketCallResult] = Direction("kind", "done")
