"""The engine's end of the channels to keeper and wardens, and of commands' output pipes, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from cleanroom.sandbox import channel

PIPE_BYTES = 1 << 20  # the most an ordinary user may ask for: fewer wake-ups while a build floods its output
PIECE = 256 * 1024


Received = TypeVar("Received")


class Link(Generic[Received]):
    """A message channel.

    `receive` takes the next message off it, such as that of a `channel.Direction`.
    `on_message` is called for each message and owns its descriptors.
    `on_end` is called once, when the other side is gone.
    """

    def __init__(
        self,
        end: socket.socket,
        receive: Callable[[socket.socket], tuple[Received, list[int]] | None],
        on_message: Callable[[Received, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._end = end
        self._receive = receive
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._read)

    def send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Send without waiting; the other side reads promptly and the socket's buffer holds hundreds of orders."""
        channel.send(self._end, message, descriptors)

    def _read(self) -> None:
        while self._end.fileno() >= 0:
            try:
                arrived = self._receive(self._end)
            except BlockingIOError:
                return
            except OSError:
                arrived = None
            if arrived is None:
                self.close()
                self._on_end()
                return
            self._on_message(*arrived)

    def close(self) -> None:
        """Stop listening and close. Safe to call twice."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()


class Pipe:
    """One output stream of a command: `far` goes to the command, what it writes comes to `on_piece`, `ended` is set when nobody holds it any more."""

    def __init__(self, on_piece: Callable[[bytes], None]) -> None:
        self._near, self.far = os.pipe2(os.O_CLOEXEC)
        self._far_open = True
        self._on_piece = on_piece
        self.ended = asyncio.Event()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._near, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._near, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._near, self._read)

    def handed_over(self) -> None:
        """The command has its own copy now."""
        if self._far_open:
            self._far_open = False
            os.close(self.far)

    def _read(self) -> None:
        try:
            piece = os.read(self._near, PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if piece:
            self._on_piece(piece)
        else:
            self._stop()

    def _stop(self) -> None:
        if not self.ended.is_set():
            self._loop.remove_reader(self._near)
            os.close(self._near)
            self.ended.set()

    def close(self) -> None:
        """Stop reading; what a process that outlived the command still writes is lost to it."""
        self.handed_over()
        self._stop()
