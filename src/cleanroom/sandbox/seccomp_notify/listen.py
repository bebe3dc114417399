"""Judges held calls by which a process can be reached, from level High on: bind(2) and listen(2).

Both are performed here, on a duplicate of the socket that was judged: a call that continues takes
whatever socket has the descriptor by then.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(("bind", "listen"))

_RULE = "network.listen"
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class Listening:
    """Judges by the ports that one environment may listen on."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def judge(self, call: HeldCall) -> Response | None:
        """None for sockets of other families, whose paths and names are judged elsewhere."""
        caller, arguments = call.caller, call.arguments
        try:
            sock = caller.borrow(arguments[0])
        except OSError as error:
            # a socket that cannot be judged is not bound
            if error.errno == errno.EPERM:
                return Response(errno.EACCES, _RULE, {"syscall": call.name})
            return Response(error.errno or errno.EBADF)
        # a duplicate shares the open file, so the call has the same effect (pidfd_getfd(2))
        with sock:
            if call.name == "listen":
                return self._listen(sock, arguments[1])
            if sock.family not in _INTERNET:
                return None
            length = min(arguments[2] & constants.UINT_MAX, constants.SOCKADDR_STORAGE_BYTES)
            return self._bind(sock, caller.memory(arguments[1], length))

    def _bind(self, sock: socket.socket, raw: bytes) -> Response:
        # port 0: the kernel chooses one, and listen(2) is judged by that (ip(7))
        port = int.from_bytes(raw[2:4], "big") if len(raw) >= 4 else 0
        if port and port not in self._rules.ports:
            return self._refuse(port, _address(sock.family, raw), sock)
        try:
            syscalls.bind(sock.fileno(), raw)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        return Response(0)

    def _listen(self, sock: socket.socket, backlog: int) -> Response:
        # a socket that is not bound gets a port of the kernel's when it listens: here it has 0
        if sock.family in _INTERNET:
            address, port = sock.getsockname()[:2]
            if port not in self._rules.ports:
                return self._refuse(port, address, sock)
        try:
            sock.listen(min(backlog & constants.UINT_MAX, constants.INT_MAX))
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        return Response(0)

    def _refuse(self, port: int, address: str, sock: socket.socket) -> Response:
        # ports that need CAP_NET_BIND_SERVICE are refused in any environment
        if 0 < port < constants.PROT_SOCK:
            return Response(errno.EACCES)
        proto = "tcp" if sock.type == socket.SOCK_STREAM else "udp"
        target: Target = {"ip": address, "proto": proto}
        if port:
            target["port"] = port
        return Response(errno.EACCES, _RULE, target)


def _address(family: int, raw: bytes) -> str:
    wanted = raw[4:8] if family == socket.AF_INET else raw[8:24]
    try:
        return socket.inet_ntop(family, wanted)
    except (ValueError, OSError):
        return os.fsdecode(wanted.hex())
