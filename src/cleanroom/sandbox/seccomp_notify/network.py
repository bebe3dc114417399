"""Judging held calls that reach out: by the address they name."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.network.dns import Names, parse_question
from cleanroom.sandbox.seccomp_notify import forward
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.rules import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(
    ("connect", "sendto", "sendmsg", "sendmmsg", "socket", "socketpair", "write", "writev")
)

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
_ECHO = (constants.IPPROTO_ICMP, constants.IPPROTO_ICMPV6)
_USUAL = frozenset(
    (
        (socket.SOCK_STREAM, 0),
        (socket.SOCK_STREAM, 6),
        (socket.SOCK_DGRAM, 0),
        (socket.SOCK_DGRAM, 17),
    )
)
_PAYLOAD_MOST = 4096

# Sockets that resolvers and loggers try on every host and do without:
# nobody meant to reach anything.
_RESOLVERS = (
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/avahi-daemon/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
)
_LOGGERS = ("/dev/log", "/run/systemd/journal/socket", "/run/systemd/journal/dev-log")


class _Message(NamedTuple):
    """One thing to send: the address it names, and where its payload lies."""

    address: bytes
    payload: int
    length: int


class Network:
    """Judges by the addresses an environment may reach: its own loopback,
    and unix sockets in its own folders.
    """

    def __init__(
        self, names: Names, files: Files, host_sockets: int = -1, *, shared: bool = False
    ) -> None:
        """`shared`: the network is the host's.

        `host_sockets` is the host's /proc/net/unix, opened before the environment had a network of
        its own.
        """
        self._names = names
        self._files = files
        self._host_sockets = host_sockets
        self._shared = shared

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """None lets the kernel go on; the empty network namespace holds whatever it is told
        then.
        """
        if name in ("socket", "socketpair"):
            return family(arguments, shared=self._shared)
        for message in _messages(caller, name, arguments):
            refusal = self._message(caller, name, arguments, message)
            if refusal is not None:
                return refusal
        return None

    def bound(self, caller: Caller, arguments: tuple[int, ...]) -> Response | None:
        """None for what is no file: ports and abstract names are the environment's own."""
        return self._files.bound(caller, _address(caller, arguments[1], arguments[2]))

    def _message(
        self, caller: Caller, name: str, arguments: tuple[int, ...], message: _Message
    ) -> Response | None:
        raw = message.address
        if not raw and message.length:
            return _netlink(caller, arguments[0], message)
        if len(raw) < 2:
            return None
        family = int.from_bytes(raw[:2], "little")
        if family == constants.AF_UNIX:
            return self._unix(caller, raw)
        if family == constants.AF_NETLINK:
            return _netlink(caller, arguments[0], message)
        if family == constants.AF_INET6 and len(raw) >= 24:
            address = raw[8:24]
        # an unspecified family ends a connection, but names an IPv4 address where a datagram has
        # one
        elif len(raw) >= 8 and (
            family == constants.AF_INET or (family == constants.AF_UNSPEC and name != "connect")
        ):
            address = raw[4:8]
        else:
            return None
        port = int.from_bytes(raw[2:4], "big")
        if _is_own(address):
            if port == constants.NAMESERVER_PORT:
                self._names.asked_by(caller)
            if name == "connect" and self._names.leads_out(address, port):
                return self._to_relay(caller, arguments[0], raw)
            if not self._names.closed(address, port):
                return None
        return self._outside(caller, name, arguments, address, port, message)

    def _to_relay(self, caller: Caller, descriptor: int, raw: bytes) -> Response | None:
        """Connect it on the caller's behalf, so that a relay that may not go on can be told apart
        by its port.

        Without a copy the kernel connects it.
        """
        try:
            end = caller.borrow(descriptor)
        except OSError:
            return None
        with end:
            try:
                forward.connect(end, raw)
            except OSError as error:
                return Response(error.errno or errno.EIO)
            if end.type == socket.SOCK_STREAM:
                self._names.left(end.getsockname()[1], caller.identity())
        return Response(0)

    def _outside(
        self,
        caller: Caller,
        name: str,
        arguments: tuple[int, ...],
        address: bytes,
        port: int,
        message: _Message,
    ) -> Response:
        kind, protocol = caller.socket_kind(arguments[0])
        fast_open = bool(name == "sendto" and arguments[3] & constants.MSG_FASTOPEN)
        stream = kind == socket.SOCK_STREAM or (not kind and (name == "connect" or fast_open))
        ip = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        host = self._names.followed(ip) or self._names.behind(address)
        question = port == constants.NAMESERVER_PORT
        if question and not host and message.length:
            parsed = parse_question(
                caller.memory(message.payload, min(message.length, _PAYLOAD_MOST))
            )
            host = parsed[0] if parsed else ""
        target: Target = {
            "ip": ip,
            "port": port,
            "proto": _PROTOCOLS.get(protocol, "tcp" if stream else "udp"),
        }
        if host:
            target["host"] = shown(host)
        # a question to a foreign resolver is what a question to ours is: it reaches no one
        rule, tags = ("network.names", ("resolver",)) if question else ("network.egress", ())
        return Response(errno.ECONNREFUSED if stream else errno.ENETUNREACH, rule, target, tags)

    def _unix(self, caller: Caller, raw: bytes) -> Response | None:
        if len(raw) == 2:
            return None
        if raw[2] == 0:
            return self._abstract(caller, raw[3:])
        said = raw[2:].split(b"\0")[0].decode("utf-8", "surrogateescape")
        allowed, found, exists = self._files.may_reach(caller, said)
        if allowed:
            return None
        return Response(
            errno.EACCES if exists else errno.ENOENT,
            "network.sockets",
            {"sun_path": shown(said)},
            habits(said, found),
        )

    def _abstract(self, caller: Caller, name: bytes) -> Response | None:
        """Abstract names end at the network namespace; what is an attempt is to name one that the
        host has and the environment has not.
        """
        shown_name = b"@" + name.replace(b"\0", b"@")
        if (
            self._host_sockets < 0
            or _has(caller.unix_sockets(), shown_name)
            or not _has(_read_all(self._host_sockets), shown_name)
        ):
            return None
        return Response(
            errno.ECONNREFUSED,
            "network.sockets",
            {"sun_path": shown(shown_name.decode("utf-8", "surrogateescape"))},
        )


def _has(table: bytes, name: bytes) -> bool:
    """Whether /proc/net/unix lists a socket of this name."""
    return any(line.endswith(b" " + name) for line in table.splitlines())


def _read_all(descriptor: int) -> bytes:
    """A file of /proc from its beginning, as it is now."""
    pieces, at = [], 0
    while piece := os.pread(descriptor, 1 << 16, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def habits(said: str, found: str) -> tuple[str, ...]:
    """The tag of a unix socket that resolvers or loggers try by habit,
    by its path as it was said and as it was found.
    """
    if said in _RESOLVERS or found in _RESOLVERS:
        return ("resolver",)
    if said in _LOGGERS or found in _LOGGERS:
        return ("probe",)
    return ()


def _is_own(address: bytes) -> bool:
    """Whether an address is the environment's own loopback,
    or the unspecified one that means it.
    """
    if len(address) == 16 and address[:12] == constants.V4MAPPED_PREFIX:
        address = address[12:]
    if len(address) == 4:
        return address[0] == 127 or address == bytes(4)
    return address in (bytes(16), bytes(15) + b"\1")


def usual(arguments: tuple[int, ...]) -> bool:
    """Whether a socket is of a kind that every environment may have on a network that it shares;
    the filter says the same.
    """
    family, kind, protocol = (
        arguments[0] & constants.UINT_MAX,
        arguments[1] & 0xF,
        arguments[2] & constants.UINT_MAX,
    )
    if family not in (constants.AF_INET, constants.AF_INET6):
        return family in (constants.AF_UNIX, constants.AF_NETLINK)
    return (kind, protocol) in _USUAL


def family(arguments: tuple[int, ...], *, shared: bool = False) -> Response:
    """The refusal of a socket of an unusual kind; `shared`: on the host's network."""
    wanted, kind, protocol = (
        arguments[0] & constants.UINT_MAX,
        arguments[1] & 0xF,
        arguments[2] & constants.UINT_MAX,
    )
    # on a shared network alone; runtimes try it and do without
    if wanted in (constants.AF_INET, constants.AF_INET6) and protocol == constants.IPPROTO_MPTCP:
        return Response(
            errno.EPROTONOSUPPORT,
            "network.families",
            {"proto": "mptcp", "syscall": "mptcp"},
            ("probe",),
        )
    if wanted == constants.AF_UNSPEC:
        return Response(errno.EAFNOSUPPORT)  # names no kind of network at all
    if wanted in (constants.AF_INET, constants.AF_INET6):
        said = (
            f"raw socket, protocol {protocol}"
            if kind == socket.SOCK_RAW
            else _PROTOCOLS.get(protocol, f"protocol {protocol}")
        )
    else:
        said = _FAMILY_NAMES.get(wanted, f"address family {wanted}")
    # where hosts may be reached, asking whether one is there is no attempt
    echo = shared and protocol in _ECHO
    return Response(
        errno.EAFNOSUPPORT,
        "network.families",
        {"proto": said, "syscall": said},
        ("probe",) if echo else (),
    )


def _messages(caller: Caller, name: str, arguments: tuple[int, ...]) -> list[_Message]:
    """What a call sends and where; nothing for those that name no address,
    since they are writes to what is connected.
    """
    if name == "connect":
        return [_Message(_address(caller, arguments[1], arguments[2]), 0, 0)]
    if name == "sendto":
        return [_Message(_address(caller, arguments[4], arguments[5]), arguments[1], arguments[2])]
    if name == "write":
        return [_Message(b"", arguments[1], arguments[2])]
    if name == "writev":
        base, first = (
            struct.unpack("=QQ", caller.memory(arguments[1], 16)) if arguments[2] else (0, 0)
        )
        return [_Message(b"", base, first)]
    size, count = (
        (56, 1)
        if name == "sendmsg"
        else (64, min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV))
    )
    headers = caller.memory(arguments[1], size * count)
    found = []
    for at in range(0, len(headers) - size + 1, size):
        address, length, vector, pieces = struct.unpack_from("=QI4xQQ", headers, at)
        base, first = (
            struct.unpack("=QQ", caller.memory(vector, 16))
            if pieces and (address or at == 0)
            else (0, 0)
        )
        found.append(_Message(_address(caller, address, length), base, first))
    return found


def _address(caller: Caller, address: int, length: int) -> bytes:
    return (
        caller.memory(address, min(length & constants.UINT_MAX, constants.SOCKADDR_STORAGE_BYTES))
        if address
        else b""
    )


def _netlink(caller: Caller, descriptor: int, message: _Message) -> Response | None:
    """What is sent to a netlink socket; nothing for any other one."""
    payload = (
        caller.memory(message.payload, min(message.length, _PAYLOAD_MOST))
        if message.length
        else b""
    )
    refusal = netlink_change(payload)
    if refusal is None or not caller.link(f"fd/{descriptor & constants.UINT_MAX}").startswith(
        "socket:"
    ):
        return None
    kind, protocol = caller.socket_kind(descriptor, socket.AF_NETLINK)
    return refusal if kind and protocol == constants.NETLINK_ROUTE else None


def netlink_change(payload: bytes) -> Response | None:
    """Asking the kernel about routes and links is free, changing them is not."""
    at = 0
    while at + 6 <= len(payload):
        length, kind = struct.unpack_from("=IH", payload, at)
        if 16 <= kind < 128 and kind & 3 != 2:
            return Response(
                errno.EPERM,
                "network.egress",
                {"proto": "netlink", "syscall": f"netlink message {kind}"},
            )
        at += max(16, (length + 3) & ~3)
    return None
