"""The relay: accepts on a phase's 127.0.0.1:PORT and connects to the service, byte for byte.

It runs as a child of the service's warden, in the service's network and pid namespace, as the
service's user.
Wardens of phases open the listening sockets inside the phases' namespaces and send them here: a
phase reaches its declared services and nothing else, as root and as an ordinary user alike.
On a network that is shared with the host, connected sockets arrive over a channel instead.

Whatever the service puts in the place of its socket, only the service's own is connected to: see
`peers`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import selectors
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.network.dial import Dial, NotOpened, Outside
from cleanroom.sandbox.network.streams import Connection

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Dial as DialOrder
    from cleanroom.sandbox.protocol import RelayFull, RelayRefused, WardenMessage

# Threads that connect at once; a connection beyond that waits for one of them.
DIALLING_MOST = 64
# Descriptors that a relay takes where it may, for 16,000 connections at once, and how many of them
# are for orders, listening sockets and what a dial opens.
_OPEN_FILES, _OTHER_FILES = 1 << 15, 128
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class _Forward(NamedTuple):
    """The target of a listening socket, and the channel for reports of refused addresses."""

    target: str
    reports: socket.socket | None


class Relay:
    """Serves any number of listening sockets until its channel ends."""

    def __init__(self, orders: socket.socket, dial: Dial, *, slow: bool = False) -> None:
        """`slow`: `dial` may block for long, so each connection is made in a thread."""
        self._orders = orders
        self._dial = dial
        self._slow = slow
        self._selector = selectors.DefaultSelector()
        self._watched: dict[socket.socket, int] = {}
        self._connections: set[Connection] = set()
        # Accepted sockets with the connections that threads have made for them.
        self._dialled: deque[tuple[socket.socket, socket.socket | None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._dialling = 0
        # Sockets that wait for free descriptors: their clients stay in the kernel's queue.
        self._paused: list[tuple[Any, _Forward]] = []
        self._connections_most = 1
        # It was said that connections wait, and since then there was one always.
        self._full_said = False

    def serve(self) -> None:
        """Carry out `protocol.RelayOrder`s and forward connections until the channel ends.

        An address that no declaration opens is reported as `protocol.RelayRefused`, connections
        that have to wait as `protocol.RelayFull`.
        """
        self._connections_most = _connections_most()
        self._orders.setblocking(False)
        self._selector.register(self._orders, selectors.EVENT_READ, self._take_order)
        self._selector.register(self._woken, selectors.EVENT_READ, self._add_dialled)
        try:
            while self._step():
                pass
        finally:
            for connection in list(self._connections):
                self._close(connection, reset=True)
            for key in list(self._selector.get_map().values()):
                if isinstance(key.data, _Forward):
                    key.fileobj.close()  # type: ignore[union-attr]
            for listening, _ in self._paused:
                listening.close()
            self._selector.close()
            self._wake.close()
            self._woken.close()

    def _step(self) -> bool:
        """Handle what is ready; False when the channel has ended."""
        for key, _ in self._selector.select():
            if isinstance(key.data, _Forward):
                self._accept(key.fileobj, key.data)
            elif isinstance(key.data, Connection):
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
        except ConnectionResetError:
            # Whoever ordered is gone and had not read a report (unix(7)).
            return False
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
                reports = socket.socket(fileno=descriptors[1]) if len(descriptors) > 1 else None
                forward = _Forward(order["to"], reports)
                self._selector.register(listening, selectors.EVENT_READ, forward)
            case _:
                assert_never(order)
        return True

    def _answer_dial(self, order: DialOrder, client: int) -> None:
        with socket.socket(fileno=client) as answers, contextlib.suppress(OSError):
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
        """Close the listening socket of this inode, which is the same in every process."""
        self._resume()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Forward) and os.fstat(key.fd).st_ino == inode:
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]

    def _accept(self, listening: Any, forward: _Forward) -> None:
        if len(self._connections) + self._dialling >= self._connections_most:
            self._report_full(forward)
            self._pause(listening, forward)
            return
        if self._dialling >= DIALLING_MOST:
            self._pause(listening, forward)
            return
        try:
            inside, host = _next_socket(listening)
        except BlockingIOError:
            # The client is gone, or another relay of the same socket was faster.
            return
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._report_full(forward)
                self._pause(listening, forward)
            # Else it was dropped a moment ago.
            elif listening.fileno() >= 0:
                self._selector.unregister(listening)
                listening.close()
            return
        if host:
            try:
                target = str(Outside.parsed(forward.target).named(host))
            except OSError:
                _reset(inside)
                return
            forward = forward._replace(target=target)
        if not self._slow:
            self._add(inside, self._connect(inside, forward))
            return
        self._dialling += 1

        def dial() -> None:
            self._dialled.append((inside, self._connect(inside, forward)))
            with contextlib.suppress(OSError):
                # It wakes the selector, which only the main thread may change.
                self._wake.send(b"d")

        threading.Thread(target=dial, daemon=True).start()

    def _pause(self, listening: Any, forward: _Forward) -> None:
        """Accept no more until a connection ends, which frees two descriptors.

        Where there is none, the machine has no descriptor left, and the next attempt may succeed.
        """
        if self._connections or self._dialling:
            self._selector.unregister(listening)
            self._paused.append((listening, forward))

    def _report_full(self, forward: _Forward) -> None:
        """Say once that clients wait, and again if it happens after all connections have ended."""
        if self._full_said:
            return
        self._full_said = True
        connections = len(self._connections) + self._dialling
        report: RelayFull = {"kind": "full", "to": forward.target, "connections": connections}
        # Of a service the warden reads the other end of its orders.
        with contextlib.suppress(OSError):
            channel.RELAY_MESSAGES.send(forward.reports or self._orders, report)

    def _resume(self) -> None:
        while self._paused:
            listening, forward = self._paused.pop()
            self._selector.register(listening, selectors.EVENT_READ, forward)

    def _add_dialled(self) -> bool:
        self._woken.recv(DIALLING_MOST)
        while self._dialled:
            self._dialling -= 1
            self._add(*self._dialled.popleft())
        self._resume()
        return True

    def _connect(self, inside: socket.socket, forward: _Forward) -> socket.socket | None:
        """A connection to the target; None if there is none."""
        try:
            return self._dial(forward.target)
        except NotOpened as refused:
            if forward.reports is not None:
                with contextlib.suppress(OSError):
                    source = inside.getpeername()[1]
                    report: RelayRefused
                    report = {
                        "kind": "refused",
                        "to": forward.target,
                        "ip": refused.ip,
                        "source": source,
                    }
                    channel.RELAY_MESSAGES.send(forward.reports, report)
        except OSError:
            pass
        return None

    def _add(self, inside: socket.socket, outside: socket.socket | None) -> None:
        if outside is None:
            # Nobody listens: the client sees ECONNRESET and not the end of a stream.
            _reset(inside)
            return
        connection = Connection(inside, outside)
        self._connections.add(connection)
        for end in connection.ends:
            end.setblocking(False)
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
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

    def _watch(self, end: socket.socket, events: int, connection: Connection) -> None:
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

    def _close(self, connection: Connection, *, reset: bool) -> None:
        self._connections.discard(connection)
        for end in connection.ends:
            if self._watched.pop(end, 0):
                self._selector.unregister(end)
            _reset(end) if reset else end.close()
        self._full_said = self._full_said and bool(self._connections)
        self._resume()


def raise_open_files() -> None:
    """Let this process, which is a relay's own, have more descriptors.

    Nothing here selects by number (select(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))


def _connections_most() -> int:
    """How many connections there may be at once, which take two descriptors each."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - _OTHER_FILES) // 2)


def _next_socket(source: socket.socket) -> tuple[socket.socket, str]:
    """Accept from a listening socket, or receive a connected one over a channel.

    Returns with it the name that was asked for, where the forward is a pattern's.

    Raises:
        BlockingIOError: there is none now.
        OSError: there will be none any more.
    """
    # 1 for a socket that listens (socket(7)); a channel's end does not.
    if source.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return source.accept()[0], ""
    arrived = channel.FORWARDED.receive(source)
    if arrived is None:
        raise OSError(errno.EPIPE, "the forward's other end is gone")
    message, descriptors = arrived
    return socket.socket(fileno=descriptors[0]), message["host"]


def _reset(end: socket.socket) -> None:
    """Close so that the peer sees ECONNRESET: socket(7), SO_LINGER with a time of 0."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    end.close()
