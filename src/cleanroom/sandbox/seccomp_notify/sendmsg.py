"""What a held call sends: addresses, payload and ancillary data,
copied from the caller once and within bounds.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller

# more than any datagram; of a stream so much is sent, and the caller is told
PAYLOAD_MOST = 256 << 10
_CONTROL_MOST = 4096  # 253 descriptors, which is the kernel's bound, take a quarter of it
# struct msghdr: name and its length, vector and its pieces, control and its length, flags
_HEADER = struct.Struct("=QI4xQQQQi4x")
_PIECE = struct.Struct("=QQ")
_CONTROL = struct.Struct("=Qii")  # struct cmsghdr: length, level, type
_RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)

HEADER_BYTES = _HEADER.size

# Ancillary data that goes on as it is: source address and interface, time to live,
# type of service, the segments of one large datagram.
_PLAIN = {
    (socket.IPPROTO_IP, constants.IP_PKTINFO),
    (socket.IPPROTO_IP, constants.IP_TTL),
    (socket.IPPROTO_IP, constants.IP_TOS),
    (socket.IPPROTO_UDP, constants.UDP_SEGMENT),
    (socket.IPPROTO_IPV6, constants.IPV6_PKTINFO),
    (socket.IPPROTO_IPV6, constants.IPV6_HOPLIMIT),
    (socket.IPPROTO_IPV6, constants.IPV6_TCLASS),
}


class Message(NamedTuple):
    """One thing to send. `cut`: the caller's payload is longer than what was copied."""

    address: bytes
    payload: bytes
    control: bytes = b""
    cut: bool = False


def address(caller: Caller, at: int, length: int) -> bytes:
    """The address that a call names; empty where it names none."""
    return (
        caller.memory(at, min(length & constants.UINT_MAX, constants.SOCKADDR_STORAGE_BYTES))
        if at
        else b""
    )


def plain(caller: Caller, arguments: tuple[int, ...]) -> Message:
    """What sendto sends."""
    length = min(arguments[2], PAYLOAD_MOST)
    return Message(
        address(caller, arguments[4], arguments[5]),
        _whole(caller, arguments[1], length),
        cut=length < arguments[2],
    )


def message(caller: Caller, at: int) -> Message:
    """What the message header at `at` describes.

    Raises:
        OSError: EMSGSIZE, it has more pieces than there may be;
            EINVAL, its ancillary data is malformed or too long.
    """
    name, name_length, vector, pieces, control, control_length, _ = _HEADER.unpack(
        _whole(caller, at, _HEADER.size)
    )
    if pieces > constants.UIO_MAXIOV:
        raise OSError(errno.EMSGSIZE, "too many pieces")
    if control and control_length > _CONTROL_MOST:
        raise OSError(errno.ENOBUFS, "too much beside it")
    payload, cut = bytearray(), False
    for start, length in _PIECE.iter_unpack(
        _whole(caller, vector, pieces * _PIECE.size) if pieces else b""
    ):
        room = PAYLOAD_MOST - len(payload)
        cut = cut or length > room
        payload += _whole(caller, start, min(length, room))
    beside = _whole(caller, control, control_length) if control else b""
    return Message(address(caller, name, name_length), bytes(payload), beside, cut)


def beside(control: bytes) -> tuple[bytes, list[int]]:
    """Ancillary data as it may go on, and the caller's descriptors that are to go with it.

    Raises:
        OSError: EINVAL, malformed; EPERM, it says who sends,
            or something that is not known to be harmless.
    """
    numbers: list[int] = []
    plain, at = b"", 0
    while at + _CONTROL.size <= len(control):
        length, level, kind = _CONTROL.unpack_from(control, at)
        if not _CONTROL.size <= length <= len(control) - at:
            raise OSError(errno.EINVAL, "malformed ancillary data")
        body = control[at + _CONTROL.size : at + length]
        if (level, kind) == _RIGHTS:
            numbers += array.array("i", body[: len(body) // 4 * 4])
        elif (level, kind) in _PLAIN:
            plain += _CONTROL.pack(length, level, kind) + body + bytes(-len(body) % 8)
        else:
            raise OSError(errno.EPERM, "ancillary data that is not passed on")
        at += (length + 7) & ~7
    return plain, numbers


def _whole(caller: Caller, at: int, length: int) -> bytes:
    """Exactly `length` bytes.

    Raises:
        OSError: EFAULT, the caller does not have them.
    """
    if not length:
        return b""
    found = caller.memory(at, length)
    if len(found) < length:
        raise OSError(errno.EFAULT, "memory that is not there")
    return found
