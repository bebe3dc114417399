"""The relay out: the keeper's child that connects to declared hosts on the host's network."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import process_tree, syscalls
from cleanroom.sandbox.network import dial, relay

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Relay


class EgressRelay:
    """One process for all environments of a run, started with the first declared host."""

    def __init__(self, owner: socket.socket) -> None:
        """`owner` is the keeper's channel, which the child must not hold open."""
        self._owner = owner
        self._channel: socket.socket | None = None
        # 0 while there is none
        self.pid = 0

    def send(self, order: Relay, descriptors: list[int]) -> None:
        """Pass listening sockets for declared hosts on."""
        if self._channel is None:
            self._channel = self._start()
        # It was killed: its environments are ended when it is reaped.
        with contextlib.suppress(OSError):
            channel.RELAY_ORDERS.send(self._channel, order, descriptors)

    def _start(self) -> socket.socket:
        ours, theirs = channel.pair()
        pid = os.fork()
        if pid == 0:
            # First: a parent that ends before it sends no signal (prctl(2)).
            syscalls.set_parent_death_signal(signal.SIGKILL)
            syscalls.set_process_name("relay out")
            process_tree.stop_reaping()
            # The owner notices the keeper's end by the end of this channel.
            self._owner.close()
            ours.close()
            with contextlib.suppress(BaseException):
                relay.raise_open_files()
                relay.Relay(theirs, dial.dial_out, slow=True).serve()
            os._exit(0)
        theirs.close()
        self.pid = pid
        return ours

    def ended(self) -> None:
        """It was killed, and reaped: the next order starts another one."""
        if self._channel is not None:
            self._channel.close()
        self._channel, self.pid = None, 0
