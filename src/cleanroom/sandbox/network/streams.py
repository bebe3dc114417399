"""Copying bytes both ways between two connected sockets, without blocking."""

from __future__ import annotations

import contextlib
import selectors
import socket

# One socket buffer: larger pieces do not make fewer calls.
PIECE = 64 * 1024
# Per direction: past it the reader waits for the writer.
BACKLOG_MAX = 1 << 20


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.buffered = bytearray()
        self.source_ended = False
        self.finished = False

    def pump(self) -> None:
        """Move as many bytes as both sockets take without blocking.

        Raises:
            OSError: one of them is broken.
        """
        while not self.source_ended and len(self.buffered) < BACKLOG_MAX:
            try:
                piece = self.source.recv(PIECE)
            except BlockingIOError:
                break
            if not piece:
                self.source_ended = True
                break
            self.buffered += piece
            self._drain()
        self._drain()
        if self.source_ended and not self.buffered and not self.finished:
            self.finished = True
            # Only this direction ends: a client may send everything, end its side, and read then.
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)

    def _drain(self) -> None:
        while self.buffered:
            try:
                del self.buffered[: self.sink.send(self.buffered)]
            except BlockingIOError:
                return


class Connection:
    """Both directions between a forwarded socket and its target."""

    def __init__(self, inside: socket.socket, outside: socket.socket) -> None:
        self.ends = (inside, outside)
        self.flows = (_Flow(inside, outside), _Flow(outside, inside))

    def wants(self, end: socket.socket) -> int:
        """The selector events for which `end` has to be watched; 0 for none."""
        events = 0
        for flow in self.flows:
            if flow.source is end and not flow.source_ended and len(flow.buffered) < BACKLOG_MAX:
                events |= selectors.EVENT_READ
            if flow.sink is end and flow.buffered:
                events |= selectors.EVENT_WRITE
        return events

    @property
    def finished(self) -> bool:
        return all(flow.finished for flow in self.flows)
