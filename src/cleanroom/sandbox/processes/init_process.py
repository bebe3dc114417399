"""Init of an environment as its warden sees it: a process, and a channel to it."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import InitMessage, InitOrder


class InitProcess:
    """Init, a child of the warden."""

    def __init__(self, pid: int, end: socket.socket, *, own_pids: bool = True) -> None:
        """`end` is the warden's end of the channel.

        `own_pids`: it is in a pid namespace of its own.
        """
        self.pid = pid
        self.pidfd = syscalls.pidfd_open(pid)
        self.end = end
        self._own_pids = own_pids

    def fileno(self) -> int:
        """The descriptor that is readable when a message is there."""
        return self.end.fileno()

    def send(self, order: InitOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order."""
        channel.INIT_ORDERS.send(self.end, order, descriptors)

    def receive(self) -> tuple[InitMessage, list[int]] | None:
        """The next message; None when init has ended.

        Where it ended with orders unread, the kernel reports ECONNRESET once, then what it sent.
        """
        try:
            return channel.INIT_MESSAGES.receive(self.end)
        except ConnectionResetError:
            return channel.INIT_MESSAGES.receive(self.end)

    def host_pid(self, inside: int) -> int:
        """The host's pid of a child of init; 0 when it has ended already."""
        if not self._own_pids:
            return inside
        with contextlib.suppress(OSError, ValueError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            for pid in children.split():
                status = Path(f"/proc/{pid}/status").read_text().splitlines()
                numbers = next(line for line in status if line.startswith("NSpid:"))
                if int(numbers.split()[-1]) == inside:
                    return int(pid)
        return 0

    def kill(self) -> None:
        """Kill init; the kernel kills its pid namespace with it."""
        with contextlib.suppress(OSError):
            syscalls.pidfd_send_signal(self.pidfd, signal.SIGKILL)
