"""The relay: accepts on a phase's 127.0.0.1:PORT and connects to the service, byte for byte.

It runs as a child of the service's warden, in the service's network and pid namespace and with its
user.
The listening sockets were opened inside the phases' namespaces and handed over,
so a phase reaches its declared services and nothing else, as root and as an ordinary user alike.
On a network that is shared with the host there are no such sockets:
connected ones come over a channel instead.

What it connects to is the service's and nobody else's, whatever the service puts in its socket's
place: see `peers`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import selectors
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.network import addresses, peers, routes

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Dial as DialOrder
    from cleanroom.sandbox.protocol import WardenMessage

PIECE = 64 * 1024  # one socket buffer's worth: larger pieces do not make fewer calls
DIAL_SECONDS = 5.0  # a server that does not answer by then is not there
BACKLOG_MAX = 1 << 20  # per direction: past it the reader waits for the writer
DIALLING_MOST = 64  # threads that connect out at once; who comes beyond that is reset

Dial = Callable[[str], socket.socket]


class NotOpened(OSError):
    """A declared name led to an address that no declaration opens."""

    def __init__(self, ip: str) -> None:
        super().__init__(errno.ENETUNREACH, "no address that may be reached", ip)
        self.ip = ip


class _Door(NamedTuple):
    """Where whoever comes is led, and whom to tell of what may not be reached."""

    to: str
    tell: socket.socket | None


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waiting = bytearray()
        self.source_ended = False
        self.finished = False

    def pump(self) -> None:
        """Move what can be moved without waiting."""
        while not self.source_ended and len(self.waiting) < BACKLOG_MAX:
            try:
                piece = self.source.recv(PIECE)
            except BlockingIOError:
                break
            if not piece:
                self.source_ended = True
                break
            self.waiting += piece
            self._drain()
        self._drain()
        if self.source_ended and not self.waiting and not self.finished:
            self.finished = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)

    def _drain(self) -> None:
        while self.waiting:
            try:
                del self.waiting[: self.sink.send(self.waiting)]
            except BlockingIOError:
                return


class _Connection:
    """Both directions."""

    def __init__(self, inside: socket.socket, outside: socket.socket) -> None:
        self.ends = (inside, outside)
        self.flows = (_Flow(inside, outside), _Flow(outside, inside))

    def wants(self, end: socket.socket) -> int:
        """The selector events that `end` has to be watched for."""
        events = 0
        for flow in self.flows:
            if flow.source is end and not flow.source_ended and len(flow.waiting) < BACKLOG_MAX:
                events |= selectors.EVENT_READ
            if flow.sink is end and flow.waiting:
                events |= selectors.EVENT_WRITE
        return events

    @property
    def finished(self) -> bool:
        return all(flow.finished for flow in self.flows)


class Relay:
    """Serves any number of listening sockets until its channel ends."""

    def __init__(self, orders: socket.socket, dial: Dial, *, slow: bool = False) -> None:
        """`slow`: dialling may take long, so a thread each does it."""
        self._orders = orders
        self._dial = dial
        self._slow = slow
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._connections: set[_Connection] = set()
        self._dialled: queue.SimpleQueue[tuple[socket.socket, socket.socket | None]] = (
            queue.SimpleQueue()
        )
        self._wake, self._woken = socket.socketpair()
        self._dialling = 0

    def serve(self) -> None:
        """Carry out the orders of `protocol.RelayOrder`, and relay what connects.

        What may not be connected to is told as `protocol.RelayRefused`.
        Returns when the channel ends.
        """
        self._orders.setblocking(False)
        self._selector.register(self._orders, selectors.EVENT_READ, self._take_order)
        self._selector.register(self._woken, selectors.EVENT_READ, self._take_dialled)
        try:
            while self._step():
                pass
        finally:
            for connection in list(self._connections):
                self._close(connection, reset=True)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, _Door):
                    key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
            self._wake.close()
            self._woken.close()

    def _step(self) -> bool:
        """Handle what is ready; False when the channel has ended."""
        for key, _ in self._selector.select():
            if isinstance(key.data, _Door):
                self._accept(key.fileobj, key.data)
            elif isinstance(key.data, _Connection):
                if key.fileobj in self._watched:
                    self._advance(key.data)
            elif not key.data():
                return False
        return True

    def _take_order(self) -> bool:
        try:
            arrived = channel.RELAY_ORDERS.receive(self._orders)
        except BlockingIOError:
            return True
        if arrived is None:
            return False
        order, descriptors = arrived
        match order["op"]:
            case "drop":
                self._drop(order["inode"])
            case "dial":
                self._answer_dial(order, descriptors[0])
            case "relay":
                listening = socket.socket(fileno=descriptors[0])
                listening.setblocking(False)
                tell = socket.socket(fileno=descriptors[1]) if len(descriptors) > 1 else None
                self._selector.register(listening, selectors.EVENT_READ, _Door(order["to"], tell))
            case _:
                assert_never(order)
        return True

    def _answer_dial(self, order: DialOrder, asker: int) -> None:
        with socket.socket(fileno=asker) as answers, contextlib.suppress(OSError):
            try:
                end = self._dial(order["to"])
            except OSError as error:
                code = error.errno or errno.ECONNREFUSED
                failed: WardenMessage = {"kind": "dial_failed", "n": order["n"], "errno": code}
                channel.WARDEN_MESSAGES.send(answers, failed)
                return
            with end:
                dialed: WardenMessage = {"kind": "dialed", "n": order["n"]}
                channel.WARDEN_MESSAGES.send(answers, dialed, [end.fileno()])

    def _drop(self, inode: int) -> None:
        """Close the listening socket of this inode: descriptors of one socket differ from process
        to process, its inode does not.
        """
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Door) and os.fstat(key.fd).st_ino == inode:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]

    def _accept(self, listening: Any, door: _Door) -> None:
        try:
            inside = _come(listening)
        except BlockingIOError:
            return  # it went away again, or went to another relay of the same door
        except OSError:
            if listening.fileno() >= 0:  # else it was dropped a moment ago
                self._selector.unregister(listening)
                listening.close()
            return
        if not self._slow:
            self._joined(inside, self._reached(inside, door))
            return
        if self._dialling >= DIALLING_MOST:
            _reset(inside)
            return
        self._dialling += 1

        def dial() -> None:
            self._dialled.put((inside, self._reached(inside, door)))
            with contextlib.suppress(OSError):
                self._wake.send(b"d")

        threading.Thread(target=dial, daemon=True).start()

    def _take_dialled(self) -> bool:
        self._woken.recv(DIALLING_MOST)
        while not self._dialled.empty():
            self._dialling -= 1
            self._joined(*self._dialled.get())
        return True

    def _reached(self, inside: socket.socket, door: _Door) -> socket.socket | None:
        """A connection to where the door leads; None if there is none."""
        try:
            return self._dial(door.to)
        except NotOpened as refused:
            if door.tell is not None:
                with contextlib.suppress(OSError):
                    source = inside.getpeername()[1]
                    channel.RELAY_MESSAGES.send(
                        door.tell,
                        {"kind": "refused", "to": door.to, "ip": refused.ip, "source": source},
                    )
        except OSError:
            pass
        return None

    def _joined(self, inside: socket.socket, outside: socket.socket | None) -> None:
        if outside is None:
            _reset(inside)  # nobody is there: the client sees a reset and not a silent end
            return
        connection = _Connection(inside, outside)
        self._connections.add(connection)
        for end in connection.ends:
            end.setblocking(False)
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._advance(connection)

    def _advance(self, connection: _Connection) -> None:
        try:
            for flow in connection.flows:
                flow.pump()
        except OSError:
            self._close(connection, reset=True)
            return
        if connection.finished:
            self._close(connection, reset=False)
            return
        for end in connection.ends:
            self._watch(end, connection.wants(end), connection)

    def _watch(self, end: socket.socket, events: int, connection: _Connection) -> None:
        known = self._watched.get(end, 0)
        if events == known:
            return
        if not known:
            self._selector.register(end, events, connection)
        elif not events:
            self._selector.unregister(end)
        else:
            self._selector.modify(end, events, connection)
        self._watched[end] = events

    def _close(self, connection: _Connection, *, reset: bool) -> None:
        self._connections.discard(connection)
        for end in connection.ends:
            if self._watched.pop(end, 0):
                self._selector.unregister(end)
            _reset(end) if reset else end.close()


def _come(door: socket.socket) -> socket.socket:
    """Who came: accepted from a listening socket, or handed over on a channel,
    connected already (`forward`).

    Raises:
        OSError: nobody will come any more.
    """
    if door.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return door.accept()[0]
    arrived = channel.FORWARDED.receive(door)
    if arrived is None:
        raise OSError(errno.EPIPE, "the other side of the door is gone")
    return socket.socket(fileno=arrived[1][0])


def _reset(end: socket.socket) -> None:
    """Close so that the peer sees ECONNRESET."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    end.close()


OUTWARD = ("out:", "host:")  # what leads to no environment: served by the keeper's own relay


class Service:
    """The one environment that a relay connects to."""

    def __init__(
        self,
        folders: Mapping[str, int],
        belongs: peers.Belongs = peers.in_our_namespace,
        owns_port: Callable[[int], bool] = lambda port: True,
    ) -> None:
        """`folders`: where its sockets are, as it sees them, each with a descriptor.

        `belongs` and `owns_port` tell whose a socket is. A network namespace of the environment's
        own has nobody else's ports.
        """
        self._folders = folders
        self._belongs = belongs
        self._owns_port = owns_port

    def dial(self, to: str) -> socket.socket:
        """Connect to "unix:/path" or "tcp:PORT" as the environment sees it.

        Raises:
            OSError: nobody listens there, or somebody else.
        """
        kind, _, rest = to.partition(":")
        if kind == "unix":
            return peers.connect(*self._beneath(rest), self._belongs)
        return self._dial_port(int(rest))

    def _dial_port(self, port: int) -> socket.socket:
        # Nothing is imported from here on, as for a name that were resolved: the environment's
        # user need not be able to read where this Python lies.
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            end.settimeout(DIAL_SECONDS)
            end.connect(("127.0.0.1", port))
            if not self._owns_port(port):
                raise OSError(errno.ECONNREFUSED, "another program's port", str(port))
        except BaseException:
            end.close()
            raise
        return end

    def _beneath(self, path: str) -> tuple[int, str]:
        for target, folder in self._folders.items():
            if path.startswith(f"{target}/"):
                return folder, path[len(target) + 1 :]
        raise FileNotFoundError(errno.ENOENT, "not in a folder of the service's sockets", path)


def dial_out(to: str) -> socket.socket:
    """Connect to "out:HOST:PORT" on the host's network, or to "host:/path",
    a unix socket of the engine's own.

    Of a host the answer decides and not the name: nothing private,
    local or special is connected to.

    Raises:
        OSError: it could not be resolved or reached, or its address is one that no declaration
            opens.
    """
    if to.startswith("host:"):
        return peers.connect_at(to.removeprefix("host:"), peers.of_our_user)
    _, host, port = to.split(":", 2)
    return _first_public(host, socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM))


def _first_public(host: str, found: Sequence[tuple[Any, Any, Any, Any, Any]]) -> socket.socket:
    failure: OSError = NotOpened(next((str(address[0]) for *_, address in found), host))
    for family, kind, _, _, address in found:
        if not _is_elsewhere(socket.inet_pton(family, str(address[0]).partition("%")[0])):
            continue
        end = socket.socket(family, kind)
        try:
            end.settimeout(DIAL_SECONDS)
            end.connect(address)
        except OSError as error:
            end.close()
            failure = error
            continue
        return end
    raise failure


def _is_elsewhere(address: bytes) -> bool:
    """Whether an address is a host of the internet, and none of this machine's own."""
    return not addresses.special(address) and all(map(routes.leads_out, addresses.judged(address)))
