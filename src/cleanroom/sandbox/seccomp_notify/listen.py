"""Judging held calls that make a process reachable, from level High on:
where a socket is bound, and whether it listens.

`listen` is never let go on: it is done on the caller's behalf,
on the very socket that was looked at, so that nobody can exchange it meanwhile.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(("bind", "listen"))

_RULE = "network.listen"
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class Listening:
    """Judges by the ports that one environment may listen on."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """None lets the kernel go on: for sockets that are not of the internet,
        whose paths and names others hold.
        """
        try:
            found = caller.borrow(arguments[0])
        except OSError as error:
            # it may not be looked at, so nothing may be done with it
            if error.errno == errno.EPERM:
                return Response(errno.EACCES, _RULE, {"syscall": name})
            return Response(error.errno or errno.EBADF)
        with found:
            if name == "listen":
                return self._listen(found, arguments[1])
            if found.family not in _INTERNET:
                return None
            raw = caller.memory(
                arguments[1],
                min(arguments[2] & constants.UINT_MAX, constants.SOCKADDR_STORAGE_BYTES),
            )
            return self._bind(found, raw)

    def _bind(self, found: socket.socket, raw: bytes) -> Response:
        port = int.from_bytes(raw[2:4], "big") if len(raw) >= 4 else 0
        if port and port not in self._rules.ports:
            return self._refused(port, _address(found.family, raw), found)
        try:
            syscalls.bind(found.fileno(), raw)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        return Response(0)

    def _listen(self, found: socket.socket, backlog: int) -> Response:
        if found.family in _INTERNET:
            address, port = found.getsockname()[:2]
            if port not in self._rules.ports:
                return self._refused(port, address, found)
        try:
            found.listen(min(backlog & constants.UINT_MAX, constants.INT_MAX))
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        return Response(0)

    def _refused(self, port: int, address: str, found: socket.socket) -> Response:
        if 0 < port < constants.PROT_SOCK:
            return Response(errno.EACCES)  # nobody without privileges may, in any environment
        target: Target = {
            "ip": address,
            "proto": "tcp" if found.type == socket.SOCK_STREAM else "udp",
        }
        if port:
            target["port"] = port
        return Response(errno.EACCES, _RULE, target)


def _address(family: int, raw: bytes) -> str:
    wanted = raw[4:8] if family == socket.AF_INET else raw[8:24]
    try:
        return socket.inet_ntop(family, wanted)
    except (ValueError, OSError):
        return os.fsdecode(wanted.hex())
