"""Judges held calls that connect or send, by the address they name, and sockets by their kind.

Nothing is performed here but connections to relays of declared hosts: the empty network namespace
refuses whatever continues.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.network.dns import NameTable, parse_question
from cleanroom.sandbox.seccomp_notify import forward, sendmsg
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(
    ("connect", "sendto", "sendmsg", "sendmmsg", "socket", "socketpair", "write", "writev")
)

# AF_ constants of socket(2), some of which Python does not have everywhere
_FAMILY_NAMES = {
    5: "AF_APPLETALK",
    17: "AF_PACKET",
    21: "AF_RDS",
    29: "AF_CAN",
    30: "AF_TIPC",
    31: "AF_BLUETOOTH",
    38: "AF_ALG",
    40: "AF_VSOCK",
}
_PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
    262: "mptcp",
}
_INTERNET = (constants.AF_INET, constants.AF_INET6)
_ECHO = (constants.IPPROTO_ICMP, constants.IPPROTO_ICMPV6)
# type and protocol
_TCP_OR_UDP = frozenset(
    (
        (socket.SOCK_STREAM, 0),
        (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        (socket.SOCK_DGRAM, 0),
        (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    )
)
# bytes that are read of a question for a name, or of a netlink message
_PAYLOAD_MOST = 4096
_IOVEC = struct.Struct("=QQ")
# struct msghdr up to the length of its vector: name and its length, vector and its length
_MSGHDR_HEAD = struct.Struct("=QI4xQQ")
_MSGHDR_BYTES, _MMSGHDR_BYTES = 56, 64
# struct nlmsghdr: length, type; the rest is not read
_NLMSGHDR_HEAD = struct.Struct("=IH")
_NLMSGHDR_BYTES = 16
# Types below RTM_BASE (NLMSG_MIN_TYPE) are netlink's own control messages.
# From there on types come in fours, of which the third asks (RTM_GETLINK is 18).
_RTM_BASE, _RTM_MOST, _RTM_GET = 16, 128, 2

# Sockets that C libraries try on every host and do without: no attempt to reach anything.
_RESOLVERS = (
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/avahi-daemon/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
)
_LOGGERS = ("/dev/log", "/run/systemd/journal/socket", "/run/systemd/journal/dev-log")


class _Message(NamedTuple):
    """One message that a call sends: the address it names, and where its payload lies."""

    address: bytes
    payload: int
    length: int


class Network:
    """Judges by the addresses that an environment may reach: its own loopback, and unix sockets in
    its own folders.
    """

    def __init__(
        self,
        names: NameTable,
        files: Files,
        host_unix_fd: int = -1,
        *,
        host_network: bool = False,
        forwards: forward.Forwards | None = None,
    ) -> None:
        """`host_unix_fd` is the host's /proc/net/unix, opened before the environment had a network
        namespace. `host_network`: it has none. `forwards`: those of patterns.
        """
        self._names = names
        self._files = files
        self._host_unix_fd = host_unix_fd
        self._host_network = host_network
        self._forwards = forwards or forward.Forwards({})

    def judge(self, call: HeldCall) -> Response | None:
        if call.name in ("socket", "socketpair"):
            return refuse_socket(call.arguments, host_network=self._host_network)
        for message in _messages(call):
            refusal = self._judge_message(call, message)
            if refusal is not None:
                return refusal
        return None

    def judge_bind(self, call: HeldCall) -> Response | None:
        """None for ports and abstract names, which are the environment's own."""
        raw = sendmsg.address(call.caller, call.arguments[1], call.arguments[2])
        return self._files.judge_bind(call.caller, raw)

    def _judge_message(self, call: HeldCall, message: _Message) -> Response | None:
        raw = message.address
        if not raw and message.length:
            return _judge_netlink_send(call, message)
        if len(raw) < 2:
            return None
        family = int.from_bytes(raw[:2], "little")
        if family == constants.AF_UNIX:
            return self._judge_unix(call.caller, raw)
        if family == constants.AF_NETLINK:
            return _judge_netlink_send(call, message)
        address = _internet_address(family, raw, connects=call.name == "connect")
        if address is None:
            return None
        port = int.from_bytes(raw[2:4], "big")
        # loopback ends at the network namespace (network_namespaces(7))
        if _is_loopback(address):
            if port == constants.NAMESERVER_PORT:
                self._names.add_asker(call.caller)
            if call.name == "connect" and self._names.is_egress(address, port):
                return self._connect_relay(call, raw, (address, port))
            if not self._names.is_undeclared_port(address, port):
                return None
        return self._refuse(call, address, port, message)

    def _connect_relay(
        self, call: HeldCall, raw: bytes, target: tuple[bytes, int]
    ) -> Response | None:
        """Connect the socket to the relay of a declared host, and remember who has its port: the
        relay knows a connection it refuses by that.

        Without a duplicate the kernel connects it, to nothing where a pattern opened the host.
        """
        pattern = self._names.pattern_target(*target)
        try:
            sock = call.caller.borrow(call.arguments[0])
        except OSError:
            return None
        # the port has to be known before the relay can refuse the connection
        with sock:
            try:
                if pattern and sock.type == socket.SOCK_STREAM:
                    self._connect_by_pattern(call, sock, pattern, target[0])
                    return Response(0)
                forward.connect_local(sock, raw)
            except OSError as error:
                return Response(error.errno or errno.EIO)
            if sock.type == socket.SOCK_STREAM:
                self._names.add_connection(sock.getsockname()[1], call.caller.identity())
        return Response(0)

    def _connect_by_pattern(
        self, call: HeldCall, sock: socket.socket, to: str, address: bytes
    ) -> None:
        """Nothing listens at the address of a name that a pattern covers."""
        host = self._names.declared_host(address).lower()
        with forward.connect_pair(sock) as peer:
            self._names.add_connection(sock.getsockname()[1], call.caller.identity())
            self._forwards.hand_over(peer, to, host)

    def _refuse(self, call: HeldCall, address: bytes, port: int, message: _Message) -> Response:
        caller, name, arguments = call.caller, call.name, call.arguments
        # zeros where pidfd_getfd(2) is refused; the call's name tells most then
        kind, protocol = caller.socket_kind(arguments[0])
        fast_open = bool(name == "sendto" and arguments[3] & constants.MSG_FASTOPEN)
        stream = kind == socket.SOCK_STREAM or (not kind and (name == "connect" or fast_open))
        ip = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        host = self._names.take_name(ip) or self._names.declared_host(address)
        question = port == constants.NAMESERVER_PORT
        if question and not host and message.length:
            payload = caller.memory(message.payload, min(message.length, _PAYLOAD_MOST))
            parsed = parse_question(payload)
            host = parsed[0] if parsed else ""
        proto = _PROTOCOLS.get(protocol, "tcp" if stream else "udp")
        target: Target = {"ip": ip, "port": port, "proto": proto}
        if host:
            target["host"] = shown(host)
        code = errno.ECONNREFUSED if stream else errno.ENETUNREACH
        # a question to another resolver counts as one to ours: it reaches nobody
        if question:
            return Response(code, "network.names", target, ("resolver",))
        return Response(code, "network.egress", target)

    def _judge_unix(self, caller: Caller, raw: bytes) -> Response | None:
        # a family alone names no socket (unix(7))
        if len(raw) == 2:
            return None
        if raw[2] == 0:
            return self._judge_abstract(caller, raw[3:])
        name = raw[2:].split(b"\0")[0].decode("utf-8", "surrogateescape")
        allowed, path, exists = self._files.may_reach(caller, name)
        if allowed:
            return None
        code = errno.EACCES if exists else errno.ENOENT
        target: Target = {"sun_path": shown(name)}
        tags = habitual_tags(name, path)
        if not tags and not exists and not self._files.on_host(path):
            # nothing is there to be reached, inside or outside
            tags = ("probe",)
        return Response(code, "network.sockets", target, tags)

    def _judge_abstract(self, caller: Caller, name: bytes) -> Response | None:
        """Abstract names end at the network namespace (unix(7)); an attempt is to name one that the
        host has and the environment has not.
        """
        # /proc/net/unix shows each NUL of an abstract name as "@"
        listed = b"@" + name.replace(b"\0", b"@")
        if self._host_unix_fd < 0 or _lists(caller.unix_sockets(), listed):
            return None
        if not _lists(_read_all(self._host_unix_fd), listed):
            return None
        target: Target = {"sun_path": shown(listed.decode("utf-8", "surrogateescape"))}
        return Response(errno.ECONNREFUSED, "network.sockets", target)


def _lists(table: bytes, name: bytes) -> bool:
    """Whether /proc/net/unix lists a socket of this name."""
    return any(line.endswith(b" " + name) for line in table.splitlines())


def _read_all(descriptor: int) -> bytes:
    """A file of /proc from its beginning, as it is now."""
    pieces, at = [], 0
    # a read of /proc may return less than there is; only 0 bytes are the end
    while piece := os.pread(descriptor, 1 << 16, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def habitual_tags(name: str, path: str) -> tuple[str, ...]:
    """The tag of a unix socket that resolvers or loggers try by habit, by the name that the call
    has and the canonical path that it leads to.
    """
    if name in _RESOLVERS or path in _RESOLVERS:
        return ("resolver",)
    if name in _LOGGERS or path in _LOGGERS:
        return ("probe",)
    return ()


def _internet_address(family: int, raw: bytes, *, connects: bool) -> bytes | None:
    """The packed address of a struct sockaddr_in or sockaddr_in6; None for any other."""
    # struct sockaddr_in6: family, port, flow label, address, scope (ipv6(7))
    if family == constants.AF_INET6 and len(raw) >= 24:
        return raw[8:24]
    if len(raw) < 8:
        return None
    # an unspecified family ends a connection (connect(2)), and is AF_INET to a datagram
    if family == constants.AF_INET or (family == constants.AF_UNSPEC and not connects):
        return raw[4:8]
    return None


def _is_loopback(address: bytes) -> bool:
    """Whether an address is the environment's own loopback, or the unspecified one, where a
    connection arrives at the loopback.
    """
    if len(address) == 16 and address[:12] == constants.V4MAPPED_PREFIX:
        address = address[12:]
    if len(address) == 4:
        return address[0] == 127 or address == bytes(4)
    return address in (bytes(16), bytes(15) + b"\1")


def _socket_arguments(arguments: tuple[int, ...]) -> tuple[int, int, int]:
    """Family, type without flags, and protocol of socket(2)."""
    return (
        arguments[0] & constants.UINT_MAX,
        arguments[1] & constants.SOCK_TYPE_MASK,
        arguments[2] & constants.UINT_MAX,
    )


def is_usual(arguments: tuple[int, ...]) -> bool:
    """Whether every environment on a shared network may have a socket of this kind; the filter
    decides the same.
    """
    family, kind, protocol = _socket_arguments(arguments)
    if family not in _INTERNET:
        return family in (constants.AF_UNIX, constants.AF_NETLINK)
    return (kind, protocol) in _TCP_OR_UDP


def refuse_socket(arguments: tuple[int, ...], *, host_network: bool = False) -> Response:
    """The refusal of a socket of an unusual kind."""
    family, kind, protocol = _socket_arguments(arguments)
    # on a shared network alone; runtimes try it and fall back
    if family in _INTERNET and protocol == constants.IPPROTO_MPTCP:
        target: Target = {"proto": "mptcp", "syscall": "mptcp"}
        return Response(errno.EPROTONOSUPPORT, "network.families", target, ("probe",))
    # names no kind of network at all
    if family == constants.AF_UNSPEC:
        return Response(errno.EAFNOSUPPORT)
    if family not in _INTERNET:
        words = _FAMILY_NAMES.get(family, f"address family {family}")
    elif kind == socket.SOCK_RAW:
        words = f"raw socket, protocol {protocol}"
    else:
        words = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    # where hosts may be reached, asking whether one is there is no attempt
    tags = ("probe",) if host_network and protocol in _ECHO else ()
    target = {"proto": words, "syscall": words}
    return Response(errno.EAFNOSUPPORT, "network.families", target, tags)


def _messages(call: HeldCall) -> list[_Message]:
    """What a call sends and where; nothing for further messages of a sendmmsg that name no address,
    since they are writes to the connection.
    """
    caller, name, arguments = call.caller, call.name, call.arguments
    if name == "connect":
        return [_Message(sendmsg.address(caller, arguments[1], arguments[2]), 0, 0)]
    if name == "sendto":
        raw = sendmsg.address(caller, arguments[4], arguments[5])
        return [_Message(raw, arguments[1], arguments[2])]
    # held where the descriptor has one of the numbers that netlink sockets get
    if name == "write":
        return [_Message(b"", arguments[1], arguments[2])]
    if name == "writev":
        return [_Message(b"", *_first_piece(caller, arguments[1], arguments[2]))]
    size, count = _MSGHDR_BYTES, 1
    if name == "sendmmsg":
        size, count = _MMSGHDR_BYTES, min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV)
    # the kernel stops at the first header that it cannot read, and so does the judgement
    headers = caller.memory(arguments[1], size * count)
    found = []
    for at in range(0, len(headers) - size + 1, size):
        address, length, vector, pieces = _MSGHDR_HEAD.unpack_from(headers, at)
        # the first may be a netlink message without an address
        wanted = bool(address) or at == 0
        piece = _first_piece(caller, vector, pieces) if wanted else (0, 0)
        found.append(_Message(sendmsg.address(caller, address, length), *piece))
    return found


def _first_piece(caller: Caller, vector: int, pieces: int) -> tuple[int, int]:
    """Base and length of the first struct iovec; zeros where there is none."""
    if not pieces:
        return 0, 0
    base, length = _IOVEC.unpack(caller.memory(vector, _IOVEC.size))
    return base, length


def _judge_netlink_send(call: HeldCall, message: _Message) -> Response | None:
    """Judge a message to a netlink socket; None for any other one."""
    caller, descriptor = call.caller, call.arguments[0]
    payload = b""
    if message.length:
        payload = caller.memory(message.payload, min(message.length, _PAYLOAD_MOST))
    refusal = judge_netlink(payload)
    if refusal is None:
        return None
    if not caller.link(f"fd/{descriptor & constants.UINT_MAX}").startswith("socket:"):
        return None
    kind, protocol = caller.socket_kind(descriptor, socket.AF_NETLINK)
    return refusal if kind and protocol == constants.NETLINK_ROUTE else None


def judge_netlink(payload: bytes) -> Response | None:
    """Messages that ask about routes and links are allowed, those that change them are not
    (rtnetlink(7)).
    """
    at = 0
    while at + _NLMSGHDR_HEAD.size <= len(payload):
        length, kind = _NLMSGHDR_HEAD.unpack_from(payload, at)
        if _RTM_BASE <= kind < _RTM_MOST and kind & 3 != _RTM_GET:
            target: Target = {"proto": "netlink", "syscall": f"netlink message {kind}"}
            return Response(errno.EPERM, "network.egress", target)
        # NLMSG_ALIGN: messages begin at multiples of 4 bytes
        at += max(_NLMSGHDR_BYTES, (length + 3) & ~3)
    return None
