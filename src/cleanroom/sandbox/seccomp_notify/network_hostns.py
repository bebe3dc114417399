"""Judges and performs network calls of environments without a network namespace.

Every socket is made here and bound to the loopback device, and a duplicate is kept: an ordinary
container refuses pidfd_getfd(2).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.network.addresses import packed
from cleanroom.sandbox.network.dns import DnsServer, NameTable
from cleanroom.sandbox.network.host_network import HostNetworkPolicy
from cleanroom.sandbox.seccomp_notify import network, sendmsg
from cleanroom.sandbox.seccomp_notify.addfd import inject_socket
from cleanroom.sandbox.seccomp_notify.emulate import NetworkEmulator
from cleanroom.sandbox.seccomp_notify.forward import Forwards, connect_pair
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.sockets import TrackedSockets

_LOOPBACK_DEVICE = b"lo\0"
# the forward that targets to the answerer of names
_ANSWERER = "names"
# the configured one, and those that programs know of systemd and Docker
_RESOLVERS = ("127.0.0.1", "127.0.0.53", "127.0.0.11")


class ForwardChannel(NamedTuple):
    """A declared service, or with a `host` a declared host, and our end of its relay's channel."""

    # of a pattern of hosts, whose names get their addresses later: its target
    address: str
    port: int
    host: str
    channel: socket.socket

    @property
    def is_pattern(self) -> bool:
        return self.address.startswith("out:")

    @property
    def name(self) -> str:
        return self.address if self.is_pattern else f"{self.address}:{self.port}"


class ForwardsAndNames:
    """Connects callers' sockets to relays, or to the answerer of names."""

    def __init__(self, forwards: Sequence[ForwardChannel], answerer: DnsServer) -> None:
        self._forwards = Forwards({forward.name: forward.channel for forward in forwards})
        self._answerer = answerer
        # forward that a pattern opened -> the pattern's, and the name that was asked for
        self._opened: dict[str, tuple[str, str]] = {}

    def open(self, host: str, port: int, to: str) -> str:
        """Open a port of a host by the pattern whose forward is `to`; the new forward's name."""
        name = f"{host}:{port}"
        self._opened[name] = (to, host)
        return name

    def connect(self, sock: socket.socket, to: str) -> None:
        """Connect the caller's socket to the forward `to`.

        Raises:
            OSError: ECONNREFUSED, nobody serves that forward any more.
        """
        if to == _ANSWERER:
            self._answerer.adopt(connect_pair(sock))
        elif to in self._opened:
            pattern, host = self._opened[to]
            with connect_pair(sock) as peer:
                self._forwards.hand_over(peer, pattern, host)
        else:
            self._forwards.connect(sock, to)


def confined_policy(
    forwards: Sequence[ForwardChannel], names: NameTable, opened: ForwardsAndNames
) -> HostNetworkPolicy:
    """Targets that an environment may reach over the loopback device: forwards, names, itself.

    Names below a declared domain are added to them as they are asked for.
    """
    literal = [each for each in forwards if not each.is_pattern]
    targets = {(packed(each.address), each.port): each.name for each in literal}
    for address in _RESOLVERS:
        targets[socket.inet_aton(address), constants.NAMESERVER_PORT] = _ANSWERER
    mapped = {
        (constants.V4MAPPED_PREFIX + address, port): to
        for (address, port), to in targets.items()
        if len(address) == 4
    }
    hosts = {packed(each.address): each.host for each in literal if each.host}
    targets |= mapped

    def add(host: str, address: bytes, port: int, to: str) -> None:
        name = opened.open(host, port, to)
        targets[address, port] = targets[constants.V4MAPPED_PREFIX + address, port] = name
        hosts[address] = host

    names.tell_opened(add)
    return HostNetworkPolicy(forwards=targets, hosts=hosts, confined=True)


class HostnsNetwork:
    """Judges the socket calls of one environment."""

    def __init__(
        self,
        tracked: TrackedSockets,
        emulator: NetworkEmulator,
        names: NameTable,
        listener: Listener,
    ) -> None:
        self._tracked = tracked
        # whether processes of the environment ever shared their descriptors (CLONE_FILES)
        self._shared_tables = False
        self._emulator = emulator
        self._names = names
        self._listener = listener

    def judge_socket(self, call: HeldCall) -> Response:
        """Make the socket, bind it to the loopback device and inject it into the caller."""
        family, kind, protocol = (argument & constants.UINT_MAX for argument in call.arguments[:3])
        # servers of some languages ask for it first and fall back
        if protocol == constants.IPPROTO_MPTCP:
            return Response(errno.EPROTONOSUPPORT)
        # the filter allows NETLINK_ROUTE; other protocols tell of more than links
        if family == constants.AF_NETLINK:
            return network.refuse_socket(call.arguments)
        if family != socket.AF_UNIX and not network.is_usual(call.arguments):
            return network.refuse_socket(call.arguments)
        try:
            made = self._tracked.make(family, kind, protocol)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        with made:
            if family != socket.AF_UNIX and not _bind_to_loopback(made):
                self._tracked.stop_tracking(made)
                return Response(errno.EPROTONOSUPPORT)
            return inject_socket(self._listener.fileno(), call, made)

    def judge_socketpair(self, call: HeldCall) -> Response:
        """Refuse datagram pairs, which could be connected elsewhere, and other families."""
        if call.arguments[0] & constants.UINT_MAX == socket.AF_UNIX:
            return Response(errno.EOPNOTSUPP)
        return network.refuse_socket(call.arguments, host_network=True)

    def judge_call(self, call: HeldCall) -> Response | None:
        """Perform a call on a tracked socket."""
        if not self._tracked.is_tracked(call.caller, call.arguments[0]):
            return self._judge_untracked(call)
        if call.name == "connect":
            self._names.add_asker(call.caller)
        response = self._emulator.judge(call)
        if call.name == "bind" and response is not None and response.errno == errno.EADDRINUSE:
            # a duplicate of ours may still hold the port of a socket that its process has closed
            self._tracked.close_unused()
            response = self._emulator.judge(call)
        return response

    def judge_clone(self, call: HeldCall) -> Response | None:
        """New namespaces are refused as everywhere; a table that processes share is remembered.

        Leak checkers share one with the process that looks at them.
        """
        # clone3(2) is answered ENOSYS by the filter, so all flags are an argument by value
        if call.arguments[0] & constants.CLONE_NEW_ANY:
            return Response(errno.EPERM, "process.syscalls", {"syscall": "clone"})
        self._shared_tables = True
        return None

    def _judge_untracked(self, call: HeldCall) -> Response | None:
        """A socket without a duplicate: connected, accepted, one of a pair, or netlink.

        An address that the call names does not count on such a socket.
        It may continue only where no datagram socket, on which the address would count, can have
        taken the descriptor meanwhile.
        """
        name, arguments = call.name, call.arguments
        # bound to the loopback device, as every socket here
        if name == "listen":
            return None
        if name == "bind" and _names_netlink(call) and self._is_alone(call):
            return None  # before the kernel is asked for links and addresses (if_nameindex(3))
        if name in ("connect", "bind"):
            return Response(errno.EISCONN if name == "connect" else errno.EINVAL)
        # MSG_FASTOPEN would connect a stream that has been put in its place (tcp(7))
        flags = arguments[2] if name == "sendmsg" else arguments[3]
        if flags & constants.MSG_FASTOPEN:
            return Response(errno.EOPNOTSUPP)
        if self._is_alone(call) or not self._tracked.has_datagram_socket():
            return None
        return Response(errno.EPERM, "network.egress", {"syscall": name}, recorder_only=True)

    def _is_alone(self, call: HeldCall) -> bool:
        """Whether nobody can exchange the caller's descriptor while it waits: it has one thread,
        and a table of its own.
        """
        return not self._shared_tables and call.caller.status().get("Threads") == "1"


def _names_netlink(call: HeldCall) -> bool:
    raw = sendmsg.address(call.caller, call.arguments[1], call.arguments[2])
    return int.from_bytes(raw[:2], "little") == constants.AF_NETLINK


def _bind_to_loopback(sock: socket.socket) -> bool:
    """False where the kernel refuses it.

    Without a privilege it is allowed once, since Linux 5.7, and cannot be undone (socket(7),
    SO_BINDTODEVICE).
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, constants.SO_BINDTODEVICE, _LOOPBACK_DEVICE)
    except OSError:
        return False
    return True
