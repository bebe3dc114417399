"""The destination of a held call on a shared network, and whether its environment may go there.

The address was copied from the caller once; what is judged here is what the call is performed with.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import shown
from cleanroom.sandbox.network import addresses, control_sockets, host_network
from cleanroom.sandbox.network.dns import NameTable, parse_question
from cleanroom.sandbox.network.host_network import Decision, HostNetworkPolicy
from cleanroom.sandbox.seccomp_notify import network
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import SocketOperation
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.sockets import OwnedSockets, kind_of

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

INTERNET = (socket.AF_INET, socket.AF_INET6)
# between the question for a name and the connection that follows
_QUERY_SECONDS = 1.0
# processes whose last question is remembered
_QUERIES_MOST = 1024
_PROTOCOLS = {6: "tcp", 17: "udp", 136: "udplite", 262: "mptcp"}


class Destination(NamedTuple):
    """Address of a call, as the kernel takes it, with the response and the record of it."""

    response: Response = Response(0)
    address: bytes = b""
    # with a `path`: the unix socket at that path below this descriptor
    root: int = -1
    path: str = ""
    # the forward that it leads to; empty for none
    forward: str = ""


class Destinations:
    """Judges destinations by the policy of one environment."""

    def __init__(
        self,
        policy: HostNetworkPolicy,
        files: Files,
        names: NameTable,
        owned: OwnedSockets,
        controls: tuple[str, ...],
    ) -> None:
        """`controls`: unix sockets that start programs outside, as `control_sockets` has them."""
        self._policy = policy
        self._files = files
        self._names = names
        self._owned = owned
        self._controls = controls
        # process -> the name in its last question, and when it asked (monotonic seconds)
        self._queries: dict[int, tuple[str, float]] = {}

    def judge_bind(self, operation: SocketOperation, raw: bytes) -> Response:
        """Whether an internet socket may be bound."""
        named = internet_address(raw)
        if named is None:
            return Response(0)
        return self._respond(host_network.judge_bind(self._policy, *named), operation, *named)

    def judge_listen(self, operation: SocketOperation) -> Response:
        """Whether a socket may listen where it is bound."""
        sock = operation.sock
        if sock.family not in INTERNET:
            return Response(0)
        address, port = _packed(sock.family, sock.getsockname())
        # getsockname(2) of a socket that is not bound is the unspecified address, with port 0
        decision = host_network.judge_listen(self._policy, address, port)
        return self._respond(decision, operation, address, port)

    def judge(self, operation: SocketOperation, raw: bytes, payload: bytes | None) -> Destination:
        """The destination that a socket address names.

        `payload` is None on connecting, where an unspecified family ends a connection (connect(2)).
        """
        sock = operation.sock
        family = int.from_bytes(raw[:2], "little") if len(raw) >= 2 else -1
        if sock.family == socket.AF_UNIX and family == socket.AF_UNIX:
            return self._judge_unix(operation, raw)
        named = internet_address(raw)
        # AF_UNSPEC counts as AF_INET in a datagram's address
        disconnects = family == socket.AF_UNSPEC and payload is None
        if sock.family not in INTERNET or named is None or disconnects:
            # netlink, the end of a connection, or what the kernel refuses as malformed
            return Destination(address=raw)
        kind, (address, port) = kind_of(sock), named
        local = addresses.local(address)
        own = local and self._owned.own_listener(kind, address, port)
        vacant = local and not own and self._owned.is_vacant(kind, address, port)
        decision = host_network.judge_outgoing(
            self._policy, kind, address, port, own=own, vacant=vacant
        )
        response = self._respond(decision, operation, address, port, payload or b"")
        return Destination(response, raw, forward=decision.forward)

    def judge_connected(self, operation: SocketOperation, payload: bytes) -> Response:
        """Record a question that a connected datagram socket sends to a name server."""
        # ENOTCONN: the kernel answers EDESTADDRREQ (send(2))
        try:
            address, port = _packed(operation.sock.family, operation.sock.getpeername())
        except OSError:
            return Response(0)
        if port != constants.NAMESERVER_PORT or not self._policy.internet:
            return Response(0)
        decision = Decision(0, host_network.RECORD, tags=("resolver",))
        return self._respond(decision, operation, address, port, payload)

    def _judge_unix(self, operation: SocketOperation, raw: bytes) -> Destination:
        # a family alone names no socket (unix(7))
        if len(raw) == 2:
            return Destination(address=raw)
        # abstract: all bytes behind the NUL are the name (unix(7))
        if raw[2] == 0:
            own = self._owned.own_abstract_name(raw[3:])
            decision = host_network.judge_unix(
                self._policy, own=own, control=False, exists=True, abstract=True
            )
            name = "@" + raw[3:].decode("utf-8", "backslashreplace")
            return Destination(_unix_response(decision, name, ""), raw)
        name = raw[2:].split(b"\0")[0].decode("utf-8", "surrogateescape")
        own, path, exists = self._files.may_reach(operation.caller, name)
        # connected below this root later, so that no link made meanwhile leads elsewhere
        root = self._files.root(operation.caller)
        control = self._is_control(path)
        decision = host_network.judge_unix(
            self._policy, own=own, control=control, exists=exists, abstract=False
        )
        return Destination(_unix_response(decision, name, path), raw, root, path)

    def _is_control(self, path: str) -> bool:
        """Whether the socket at `path` starts programs outside, under whatever name."""
        if control_sockets.covers(self._controls, path):
            return True
        # a bind mount or a hard link gives the same socket another path
        identity = self._files.identity(path)
        return any(identity) and any(_identity(known) == identity for known in self._controls)

    def _respond(
        self,
        decision: Decision,
        operation: SocketOperation,
        address: bytes,
        port: int,
        payload: bytes = b"",
    ) -> Response:
        if not decision.rule:
            return Response(decision.errno)
        ip = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        kind = kind_of(operation.sock)
        proto = _PROTOCOLS.get(kind.protocol, "tcp" if kind.stream else "udp")
        target: Target = {"ip": ip, "proto": proto}
        if port:
            target["port"] = port
        host = (
            self._names.take_name(ip)
            or self._policy.hosts.get(address, "")
            or self._queried_name(operation.caller.group, port, payload)
        )
        if host:
            target["host"] = shown(host)
        return _response(decision, target)

    def _queried_name(self, pid: int, port: int, payload: bytes) -> str:
        """The name in a question, which is remembered; for any other payload the name that the
        process asked for within the last second, whose address it connects to as a rule.
        """
        if port == constants.NAMESERVER_PORT:
            parsed = parse_question(payload) if payload else None
            if parsed is None:
                return ""
            if len(self._queries) >= _QUERIES_MOST:
                self._queries.clear()
            self._queries[pid] = parsed[0], time.monotonic()
            return parsed[0]
        name, asked = self._queries.get(pid, ("", 0.0))
        return name if time.monotonic() - asked < _QUERY_SECONDS else ""


def internet_address(raw: bytes) -> tuple[bytes, int] | None:
    """Packed address and port of an internet socket address; None for what is malformed.

    An unspecified family names an IPv4 address.
    """
    family = int.from_bytes(raw[:2], "little") if len(raw) >= 8 else -1
    port = int.from_bytes(raw[2:4], "big")
    # struct sockaddr_in6: family, port, flow label, address, scope (ipv6(7))
    if family == socket.AF_INET6 and len(raw) >= 24:
        mapped = raw[8:20] == constants.V4MAPPED_PREFIX
        return raw[20:24] if mapped else raw[8:24], port
    if family in (socket.AF_INET, socket.AF_UNSPEC):
        return raw[4:8], port
    return None


def _packed(family: int, name: tuple[str, int]) -> tuple[bytes, int]:
    """Address without its scope, and port, of what getsockname(2) or getpeername(2) say."""
    ip, port = name[:2]
    return socket.inet_pton(family, ip.partition("%")[0]), port


def _unix_response(decision: Decision, name: str, path: str) -> Response:
    if not decision.rule:
        return Response(decision.errno)
    return _response(decision, {"sun_path": shown(name)}, network.habitual_tags(name, path))


def _response(decision: Decision, target: Target, tags: tuple[str, ...] = ()) -> Response:
    outcome = "blocked" if decision.errno else "observed"
    tags = (*decision.tags, *tags)
    return Response(
        decision.errno, decision.rule, target, tags, recorder_only=True, outcome=outcome
    )


def _identity(path: str) -> tuple[int, int]:
    """Device and inode; zeros where nothing is."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
