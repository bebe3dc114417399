"""Reads what a held call sends: address, payload and ancillary data.

Each is copied from the caller once, and within bounds.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller

# bytes; more than any datagram has. Of a stream so much is sent, and the caller sees how much.
PAYLOAD_MOST = 256 << 10
# bytes; SCM_MAX_FD, 253 descriptors, take a quarter of it
_CONTROL_MOST = 4096
# struct msghdr: name and its length, vector and its length, control and its length, flags
_MSGHDR = struct.Struct("=QI4xQQQQi4x")
# struct iovec: base, length
_IOVEC = struct.Struct("=QQ")
# struct cmsghdr: length, level, type
_CMSGHDR = struct.Struct("=Qii")
_SCM_RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)

HEADER_BYTES = _MSGHDR.size

# Ancillary data that is passed on unchanged: source address and interface, time to live, type of
# service, segments of one large datagram.
_PASSED_ON = {
    (socket.IPPROTO_IP, constants.IP_PKTINFO),
    (socket.IPPROTO_IP, constants.IP_TTL),
    (socket.IPPROTO_IP, constants.IP_TOS),
    (socket.IPPROTO_UDP, constants.UDP_SEGMENT),
    (socket.IPPROTO_IPV6, constants.IPV6_PKTINFO),
    (socket.IPPROTO_IPV6, constants.IPV6_HOPLIMIT),
    (socket.IPPROTO_IPV6, constants.IPV6_TCLASS),
}


class Message(NamedTuple):
    """One message to send."""

    address: bytes
    payload: bytes
    control: bytes = b""
    # the caller's payload is longer than what was copied
    cut: bool = False


def address(caller: Caller, at: int, length: int) -> bytes:
    """The socket address at `at`; empty where the call names none."""
    if not at:
        return b""
    return caller.memory(at, min(length & constants.UINT_MAX, constants.SOCKADDR_STORAGE_BYTES))


def read_sendto(caller: Caller, arguments: tuple[int, ...]) -> Message:
    """The message of sendto(2)."""
    length = min(arguments[2], PAYLOAD_MOST)
    return Message(
        address(caller, arguments[4], arguments[5]),
        _read_exactly(caller, arguments[1], length),
        cut=length < arguments[2],
    )


def read_message(caller: Caller, at: int) -> Message:
    """The message that the struct msghdr at `at` describes.

    Raises:
        OSError: EMSGSIZE, its vector is longer than UIO_MAXIOV; ENOBUFS, its ancillary data is too
            long; EFAULT, the caller does not have what it names.
    """
    name, name_length, vector, vector_length, control, control_length, _ = _MSGHDR.unpack(
        _read_exactly(caller, at, _MSGHDR.size)
    )
    if vector_length > constants.UIO_MAXIOV:
        raise OSError(errno.EMSGSIZE, "too many pieces")
    # the kernel's own limit is net.core.optmem_max (socket(7)), with the same errno
    if control and control_length > _CONTROL_MOST:
        raise OSError(errno.ENOBUFS, "too much beside it")
    payload, cut = bytearray(), False
    pieces = _read_exactly(caller, vector, vector_length * _IOVEC.size)
    for start, length in _IOVEC.iter_unpack(pieces):
        room = PAYLOAD_MOST - len(payload)
        cut = cut or length > room
        payload += _read_exactly(caller, start, min(length, room))
    ancillary = _read_exactly(caller, control, control_length) if control else b""
    return Message(address(caller, name, name_length), bytes(payload), ancillary, cut)


def read_control(control: bytes) -> tuple[bytes, list[int]]:
    """Ancillary data that may be passed on, and the caller's descriptors in its SCM_RIGHTS.

    Raises:
        OSError: EINVAL, malformed; EPERM, SCM_CREDENTIALS or a message that is not known to be
            harmless.
    """
    descriptors: list[int] = []
    passed_on, at = b"", 0
    while at + _CMSGHDR.size <= len(control):
        length, level, kind = _CMSGHDR.unpack_from(control, at)
        if not _CMSGHDR.size <= length <= len(control) - at:
            raise OSError(errno.EINVAL, "malformed ancillary data")
        body = control[at + _CMSGHDR.size : at + length]
        if (level, kind) == _SCM_RIGHTS:
            descriptors += array.array("i", body[: len(body) // 4 * 4])
        elif (level, kind) in _PASSED_ON:
            passed_on += _CMSGHDR.pack(length, level, kind) + body + bytes(-len(body) % 8)
        else:
            # SCM_CREDENTIALS would be checked against the recorder's privileges (unix(7))
            raise OSError(errno.EPERM, "ancillary data that is not passed on")
        # CMSG_ALIGN: messages begin at multiples of 8 bytes (cmsg(3))
        at += (length + 7) & ~7
    return passed_on, descriptors


def _read_exactly(caller: Caller, at: int, length: int) -> bytes:
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
