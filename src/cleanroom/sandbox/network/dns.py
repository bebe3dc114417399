"""Names inside an environment: declared ones have the address of their service,
all others one that stands for the name.

The answerer speaks DNS on the environment's own loopback; no question ever leaves.
An address from 198.18.0.0/15 stands for each undeclared name,
so that the connection which usually follows is recorded with its host;
a question that nothing follows becomes a record of its own.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.network.egress_patterns import EgressPatterns, Pattern

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt, Process

# between a question and its connection lie milliseconds; a busy machine stretches them
_HOLD_NS = 250_000_000
# names; more than that get no address, and are counted as dropped
_REMEMBERED_MOST = 4096
# processes that may wait for an answer at the same time and still be told apart
_ASKERS_MOST = 8
_PACKET_MOST = 512
# questions that are answered at once
_PACKETS_MOST = 128
# connections to the answerer that may be open; the oldest gives way
_TCP_MOST = 64

# Names that lead nowhere by agreement, for tests of exactly that (RFC 6761, 6.2 and 6.4).
_NOWHERE = (".invalid", ".test")
_A, _AAAA, _ANY, _INTERNET = 1, 28, 255, 1
_NO_ERROR, _FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED = 0, 1, 3, 4


def raise_link(name: str) -> None:
    """Bring a network interface of this namespace up."""
    # In a new network namespace even the loopback device is down. SIOCSIFFLAGS replaces all flags,
    # so they are read first (netdevice(7)).
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", name.encode(), 0)
        flags = struct.unpack_from("16sh", fcntl.ioctl(control, constants.SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(
            control,
            constants.SIOCSIFFLAGS,
            struct.pack("16sh22x", name.encode(), flags | constants.IFF_UP),
        )


class NameTable:
    """Declared names, questions and their addresses in one environment.

    The server adds questions, and the recorder takes the names of addresses.
    """

    def __init__(
        self,
        known: Mapping[str, str],
        clock: Callable[[], int] = time.time_ns,
        *,
        egress: Iterable[tuple[str, str, int]] = (),
        patterns: Iterable[Pattern] = (),
    ) -> None:
        self._patterns = EgressPatterns(patterns)
        # address and port of a host that a pattern covers -> the target of the pattern's forward
        self._by_pattern: dict[tuple[bytes, int], str] = {}
        self._on_opened: Callable[[str, bytes, int, str], None] = lambda *_: None
        self._egress: dict[bytes, tuple[str, set[int]]] = {}
        # a declared host stands for an address of its own, on which only its declared ports lead
        # out
        for host, address, port in egress:
            self._egress.setdefault(socket.inet_aton(address), (host, set()))[1].add(port)
        for packed, (host, ports) in self._egress.items():
            self._open_by_pattern(host.lower(), packed, ports)
        self._known = {"localhost": "127.0.0.1"} | {
            name.lower().rstrip("."): address for name, address in known.items()
        }
        self._clock = clock
        self._addresses: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._pending: dict[str, Attempt] = {}
        self._emit: Callable[[Attempt], None] = lambda _: None
        # processes that sent to the server, the last one last
        self.askers: deque[Caller] = deque(maxlen=_ASKERS_MOST)
        self.dropped = 0
        # port of a socket that a declared host's relay accepted -> the process that connected it
        self._connections: dict[int, Process] = {}

    def is_egress(self, address: bytes, port: int) -> bool:
        """Whether this is the address of a declared host, at a declared port."""
        return address in self._egress and port in self._egress[address][1]

    def pattern_target(self, address: bytes, port: int) -> str:
        """The target of the pattern that opens this port of a host, where one does; else empty."""
        return self._by_pattern.get((address, port), "")

    def add_connection(self, port: int, process: Process) -> None:
        """Remember the process whose connection to a declared host comes from `port`.

        The oldest is forgotten for one too many.
        """
        self._connections.pop(port, None)
        if len(self._connections) >= _REMEMBERED_MOST:
            del self._connections[next(iter(self._connections))]
        self._connections[port] = process

    def connected_by(self, port: int) -> Process:
        """The process whose connection comes from `port`; empty if it is not known."""
        return self._connections.get(port, {})

    def is_undeclared_port(self, address: bytes, port: int) -> bool:
        """Whether this is the address of a declared host, at a port that is not declared."""
        return address in self._egress and port not in self._egress[address][1]

    def declared_host(self, address: bytes) -> str:
        """The declared host that an address stands for, or empty."""
        return self._egress[address][0] if address in self._egress else ""

    def tell_opened(self, tell: Callable[[str, bytes, int, str], None]) -> None:
        """Tell of each port that a pattern opens, also of those it has opened already.

        `tell` gets the host's name, its address, the port, and the target of the pattern's forward.
        """
        self._on_opened = tell
        for (address, port), to in self._by_pattern.items():
            tell(self._egress[address][0].lower(), address, port, to)

    def report_to(self, emit: Callable[[Attempt], None]) -> None:
        """Report names that no packet followed to `emit`."""
        self._emit = emit

    def add_asker(self, caller: Caller) -> None:
        """Remember a process that sends to the answerer, until as many others have."""
        self.askers.append(caller)

    def declared_address(self, name: str) -> str:
        """The address of a declared name, or empty.

        A name that a pattern covers has one from its first question on.
        """
        known = self._known.get(name) or ("127.0.0.1" if name.endswith(".localhost") else "")
        return known or self._pattern_address(name)

    def _pattern_address(self, name: str) -> str:
        if not self._patterns.targets(name):
            return ""
        address = self._patterns.allot(name)
        if not address:
            self.dropped += 1
            return ""
        packed = socket.inet_aton(address)
        _, ports = self._egress.setdefault(packed, (name, set()))
        self._open_by_pattern(name, packed, ports)
        return address

    def _open_by_pattern(self, name: str, address: bytes, ports: set[int]) -> None:
        """Open those ports of a host that patterns declare, beside its own."""
        for port, to in self._patterns.targets(name).items():
            if port not in ports:
                ports.add(port)
                self._by_pattern[address, port] = to
                self._on_opened(name, address, port, to)

    def add_question(self, name: str, process: Process) -> str:
        """Remember a question for an undeclared name.

        Returns the address that stands for it, empty when too many are remembered.
        """
        address = self._addresses.get(name)
        if address is None:
            if len(self._addresses) >= _REMEMBERED_MOST:
                self.dropped += 1
                return ""
            serial = len(self._addresses) + 1
            # 198.18.0.0/15 is set aside for benchmarks (RFC 2544): no host of the internet has
            # such an address.
            address = socket.inet_ntoa(struct.pack(">I", (198 << 24 | 18 << 16) + serial))
            self._addresses[name] = address
            self._hosts[address] = name
        now = self._clock()
        waiting = self._pending.get(name)
        if waiting is None:
            self._pending[name] = _name_record(name, process, now)
        else:
            waiting["count"] += 1
            waiting["last_unix_ns"] = now
        return address

    def take_name(self, address: str) -> str:
        """The name for which an address stands, to which a packet is sent.

        Its question is not reported by itself then: the packet's record has the name.
        """
        name = self._hosts.get(address, "")
        self._pending.pop(name, None)
        return name

    def wait_seconds(self) -> float | None:
        """How long until `tick` has something to do; None while nothing waits."""
        return max(0.0, (self._first() + _HOLD_NS - self._clock()) / 1e9) if self._pending else None

    def tick(self) -> None:
        """Report the names whose packet did not come."""
        while self._pending and self._first() + _HOLD_NS <= self._clock():
            self._emit(self._pending.pop(next(iter(self._pending))))

    def flush(self) -> None:
        """Report every name that waits."""
        while self._pending:
            self._emit(self._pending.pop(next(iter(self._pending))))

    def _first(self) -> int:
        return next(iter(self._pending.values()))["first_unix_ns"]


def _name_record(name: str, process: Process, now: int) -> Attempt:
    return {
        "dimension": "network",
        "rule": "network.names",
        "outcome": "observed",
        "mechanism": "name_answerer",
        "certainty": "packet",
        "target": {"host": shown(name), "proto": "dns"},
        "process": process or None,
        "attribution_gap": ""
        if process
        else "the asker's socket was gone when the question arrived",
        "syscall": "",
        "errno": "",
        "tags": [],
        "count": 1,
        "first_unix_ns": now,
        "last_unix_ns": now,
    }


class DnsServer:
    """Answers what arrives on a UDP and a listening TCP socket, both non-blocking.

    Names that nothing follows go to `emit`.

    Without sockets of its own it serves the connections that it is given.
    """

    def __init__(
        self,
        udp: socket.socket | None,
        tcp: socket.socket | None,
        names: NameTable,
        emit: Callable[[Attempt], None],
    ) -> None:
        self._udp = udp
        self._tcp = tcp
        self._names = names
        self._open: dict[socket.socket, bytearray] = {}
        self._waiting = select.epoll()
        for end in (udp, tcp):
            if end is not None:
                self._waiting.register(end, select.EPOLLIN)
        names.report_to(emit)

    def filenos(self) -> list[int]:
        """Descriptors to poll: one that stands for all, since connections come and go."""
        # An epoll descriptor is readable when one of its own is ready (epoll(7)).
        return [self._waiting.fileno()]

    def close(self) -> None:
        """Close everything, the two sockets too."""
        self._waiting.close()
        for end in (self._udp, self._tcp, *self._open):
            if end is not None:
                end.close()
        self._open.clear()

    def ready(self) -> None:
        """Answer what waits, a part of it where askers are faster than this process: whoever polls
        the descriptors has an order to kill among them.

        No packet or connection of a client raises an error.
        """
        udp = self._udp
        for _ in range(_PACKETS_MOST if udp is not None else 0):
            assert udp is not None
            try:
                packet, asker = udp.recvfrom(4096)
            except OSError:
                break
            answer = self.answer(packet, asker[1])
            if answer:
                try:
                    udp.sendto(answer, asker)
                except OSError:
                    # the asker has gone
                    pass
        self._accept()
        for connection in list(self._open):
            self._serve(connection)

    def answer(self, packet: bytes, port: int = 0) -> bytes:
        """The answer to one question, at most 512 bytes; empty for what is too short to have a
        number.
        """
        if len(packet) < 2:
            return b""
        # A header has 12 bytes, and QR marks an answer (RFC 1035, 4.1.1).
        if len(packet) < 12 or packet[2] & 0x80:
            return packet[:2] + struct.pack(">HHHHH", 0x8000 | _FORMAT_ERROR, 0, 0, 0, 0)
        flags, questions = struct.unpack_from(">HH", packet, 2)
        # an authoritative answer with recursion, as asked
        reply = 0x8480 | (flags & 0x7900)
        # The opcode: 0 is a standard query.
        if flags & 0x7800:
            return packet[:2] + struct.pack(">HHHHH", reply | _NOT_IMPLEMENTED, 0, 0, 0, 0)
        parsed = parse_question(packet) if questions == 1 else None
        if parsed is None:
            return packet[:2] + struct.pack(">HHHHH", reply | _FORMAT_ERROR, 0, 0, 0, 0)
        name, kind, end = parsed
        code, address = self._look_up(name, kind, port)
        data = (
            # The name is a pointer to offset 12, the question's (RFC 1035, 4.1.4). TTL 1 keeps
            # resolvers from caching it.
            b"\xc0\x0c" + struct.pack(">HHIH", _A, _INTERNET, 1, 4) + socket.inet_aton(address)
            if address
            else b""
        )
        return (
            packet[:2]
            + struct.pack(">HHHHH", reply | code, 1, bool(data), 0, 0)
            + packet[12:end]
            + data
        )

    def _look_up(self, name: str, kind: int, port: int) -> tuple[int, str]:
        """Response code and address: only a question for A has one."""
        address = self._names.declared_address(name)
        if not address:
            if f".{name}".endswith(_NOWHERE):
                return _NO_SUCH_NAME, ""
            if name.endswith((".in-addr.arpa", ".ip6.arpa")):
                # the name of an address: asks for nothing outside
                return _NO_ERROR, ""
            address = self._names.add_question(name, self._asker(port))
            if not address:
                return _NO_SUCH_NAME, ""
        return _NO_ERROR, address if kind in (_A, _ANY) else ""

    def _asker(self, port: int) -> Process:
        """The process with the socket that sent a question, among the last askers."""
        askers = list({caller.group: caller for caller in reversed(self._names.askers)}.values())
        if not askers:
            return {}
        inode = askers[0].udp_sockets().get(port)
        # over TCP, or from a process that has just ended
        if inode is None:
            return askers[0].identity() if len(askers) == 1 or not port else {}
        holder = next((caller for caller in askers if caller.has_socket(inode)), None)
        return holder.identity() if holder is not None else {}

    def _accept(self) -> None:
        while self._tcp is not None:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            self.adopt(connection)

    def adopt(self, connection: socket.socket) -> None:
        """Take over a connection and serve it; the oldest is closed for one too many."""
        connection.setblocking(False)
        self._open[connection] = bytearray()
        self._waiting.register(connection, select.EPOLLIN)
        if len(self._open) > _TCP_MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.close()

    def _serve(self, connection: socket.socket) -> None:
        """Answer what has arrived on one connection; close it when its other end has."""
        held = self._open[connection]
        try:
            piece = connection.recv(4096)
            held += piece
            # Over TCP two bytes with its length precede each message (RFC 1035, 4.2.2).
            while len(held) >= 2 and len(held) >= 2 + (length := int.from_bytes(held[:2], "big")):
                answer = self.answer(bytes(held[2 : 2 + length]))
                del held[: 2 + length]
                connection.sendall(struct.pack(">H", len(answer)) + answer)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return
            piece = b""
        if not piece or len(held) > _PACKET_MOST + 2:
            del self._open[connection]
            connection.close()


def parse_question(packet: bytes) -> tuple[str, int, int] | None:
    """Name in lower case, type, and where the one question of `packet` ends;
    None if it is malformed.
    """
    labels = []
    at = 12
    while at < len(packet) and packet[at]:
        length = packet[at]
        # A label has 63 bytes at most; the two bits above mark a pointer (RFC 1035, 4.1.4).
        if length > 63 or at + 1 + length >= len(packet):
            return None
        labels.append(packet[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
        at += 1 + length
    # A name has 255 bytes at most, with its last zero (RFC 1035, 2.3.4).
    if at - 12 > 254 or at + 5 > len(packet):
        return None
    kind, category = struct.unpack_from(">HH", packet, at + 1)
    return (".".join(labels).lower(), kind, at + 5) if category == _INTERNET else None
