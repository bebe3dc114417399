"""Asking the kernel which TCP sockets listen on a port, by sock_diag(7).

/proc/net/tcp says it too, but lists every connection of the machine: reading it takes milliseconds,
and grows with the connections that have just ended.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants

# struct nlmsghdr: length, type, flags, sequence, port
_HEADER = struct.Struct("=IHHII")
# struct inet_diag_req_v2: family, protocol, extensions, padding, states; then struct
# inet_diag_sockid, of which the source port alone is said, in the network's order.
_REQUEST, _SOCKET_ID_BYTES = struct.Struct("=BBBBI"), 48
# struct inet_diag_msg: family, state, timer, retransmissions; the id; five numbers, the last of
# which is the inode.
_MESSAGE_BYTES, _ADDRESS_AT, _INODE_AT = 72, 8, 68
# the kernel answers at once
_ANSWER_SECONDS = 5.0


class Listener(NamedTuple):
    """A socket that listens."""

    # as it is bound, 4 or 16 bytes
    address: bytes
    inode: int


def listeners(port: int) -> list[Listener]:
    """The sockets of this network namespace that listen on a TCP port, IPv6 ones included.

    Raises:
        OSError: the kernel cannot be asked.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_SOCK_DIAG) as link:
        link.settimeout(_ANSWER_SECONDS)
        families = (socket.AF_INET, socket.AF_INET6)
        return [each for family in families for each in _listeners(link, family, port)]


def _listeners(link: socket.socket, family: int, port: int) -> Iterator[Listener]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << constants.TCP_LISTEN)
    request += struct.pack("!H", port).ljust(_SOCKET_ID_BYTES, b"\0")
    flags = constants.NLM_F_REQUEST | constants.NLM_F_DUMP
    kind = constants.SOCK_DIAG_BY_FAMILY
    header = _HEADER.pack(_HEADER.size + len(request), kind, flags, family, 0)
    link.sendto(header + request, (0, 0))
    while True:
        for answered, body in _messages(link.recv(1 << 16)):
            if answered == constants.NLMSG_DONE:
                return
            if answered == constants.NLMSG_ERROR:
                # struct nlmsgerr begins with a negative errno (netlink(7)).
                code = -struct.unpack_from("=i", body)[0]
                raise OSError(code, os.strerror(code))
            if len(body) < _MESSAGE_BYTES:
                raise OSError(errno.EPROTO, "no socket in the answer")
            # Older kernels may answer with more than was asked for.
            if struct.unpack_from("!H", body, 4)[0] == port and body[1] == constants.TCP_LISTEN:
                width = 4 if body[0] == socket.AF_INET else 16
                address = body[_ADDRESS_AT : _ADDRESS_AT + width]
                yield Listener(address, struct.unpack_from("=I", body, _INODE_AT)[0])


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message of one answer."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, at)
        if length < _HEADER.size:
            raise OSError(errno.EPROTO, "a netlink message without its header")
        yield kind, answer[at + _HEADER.size : at + length]
        # each begins at a multiple of 4 bytes (netlink(7))
        at += (length + 3) & ~3
