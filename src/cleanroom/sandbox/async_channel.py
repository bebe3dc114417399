"""The engine's end of a channel to a keeper, a warden or the server of shared services,
on the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from cleanroom.sandbox import channel

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
        """Send without waiting; the other side reads promptly and the socket's buffer holds
        hundreds of orders.
        """
        channel.send(self._end, message, descriptors)

    def _read(self) -> None:
        # -1: the handler of a message has closed it.
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
