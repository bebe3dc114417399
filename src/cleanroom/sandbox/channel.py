"""Messages between engine, keeper, wardens and init: one JSON object a datagram, with descriptors beside it.

SOCK_SEQPACKET keeps messages whole and ends with an empty read when the other side is gone, which is how each process learns that its owner died.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from typing import Any

MESSAGE_MAX = 1 << 20  # an environment's whole description with its variables; the kernel's default of 208 KiB is too near
DESCRIPTORS_MAX = 64  # listening sockets of all declared services at once, the most that travels

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return widened(left), widened(right)


def end() -> socket.socket:
    """An end that is not connected yet."""
    return widened(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))


def widened(end: socket.socket) -> socket.socket:
    """The same end, with room for the largest message."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MESSAGE_MAX)
    return end


def send(end: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message. The descriptors are duplicated; the caller still owns its own.

    Raises:
        OSError: the other side is gone (EPIPE), or the message is larger than the socket takes (EMSGSIZE).
    """
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode()
    if not descriptors:
        end.send(body, socket.MSG_NOSIGNAL)  # send and not sendmsg: the filter of an environment holds sendmsg
        return
    end.sendmsg([body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))], socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message with the descriptors it brought (close-on-exec, owned by the caller); None when the other side is gone.

    Raises:
        BlockingIOError: nothing is waiting on a non-blocking socket.
    """
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    body, beside, flags, _ = end.recvmsg(MESSAGE_MAX, room, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, data in beside:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            held = array.array("i")
            held.frombytes(data[: len(data) - len(data) % held.itemsize])
            descriptors.extend(held)
    assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "a message was cut"
    if not body:
        return None
    message: Message = json.loads(body)
    return message, descriptors
