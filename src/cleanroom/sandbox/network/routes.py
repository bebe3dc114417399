"""Asking the kernel whether an address leads to another machine, or to this one.

Which addresses are this machine's own no list knows: interfaces come and go, and a route may give
it a whole network. The kernel's own answer about a route is what a connection would follow.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from cleanroom.sandbox.kernel import constants

# struct nlmsghdr: length, type, flags, sequence, port; struct rtmsg: family, lengths of
# destination and source, tos, table, protocol, scope, type, flags; struct rtattr: length, type
_HEADER, _ROUTE, _ATTRIBUTE = "=IHHII", "=BBBBBBBBI", "=HH"
# the kernel answers at once
_ANSWER_SECONDS = 5.0
# There is no way, or one that refuses: connecting says so itself.
_NO_WAY = frozenset((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL))


def leads_out(address: bytes) -> bool:
    """Whether a packet to this packed address leaves the machine, or has no way at all.

    False for the machine's own addresses, broadcast, anycast and multicast ones, and where the
    kernel cannot be asked.
    """
    try:
        kind = _route_kind(address)
    except OSError as error:
        return error.errno in _NO_WAY
    return kind == constants.RTN_UNICAST


def _route_kind(address: bytes) -> int:
    """The type of the route to an address, an RTN_ constant.

    Raises:
        OSError: there is none, or the kernel cannot be asked.
    """
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    route = struct.pack(_ROUTE, family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0)
    attribute = struct.pack(_ATTRIBUTE, 4 + len(address), constants.RTA_DST) + address
    length = struct.calcsize(_HEADER) + len(route) + len(attribute)
    request = (
        struct.pack(_HEADER, length, constants.RTM_GETROUTE, constants.NLM_F_REQUEST, 1, 0)
        + route
        + attribute
    )
    # With a destination RTM_GETROUTE asks for the one route that a packet would take.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, constants.NETLINK_ROUTE) as link:
        link.settimeout(_ANSWER_SECONDS)
        link.sendto(request, (0, 0))
        answer = link.recv(4096)
    _, kind, *_ = struct.unpack_from(_HEADER, answer)
    body = struct.calcsize(_HEADER)
    if kind == constants.NLMSG_ERROR:
        # struct nlmsgerr begins with a negative errno (netlink(7)).
        code = -struct.unpack_from("=i", answer, body)[0]
        raise OSError(code, os.strerror(code))
    if kind != constants.RTM_NEWROUTE:
        raise OSError(errno.EPROTO, "no route in the answer")
    found: int = struct.unpack_from(_ROUTE, answer, body)[7]
    return found
