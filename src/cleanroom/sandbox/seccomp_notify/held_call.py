"""A held call, as judges are given it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import NamedTuple

from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.seccomp_notify.response import Response


class HeldCall(NamedTuple):
    """A system call whose caller waits in the kernel for a response."""

    # the kernel's number of the notification
    identifier: int
    caller: Caller
    name: str
    arguments: tuple[int, ...]


# None lets the kernel carry the call out (SECCOMP_USER_NOTIF_FLAG_CONTINUE).
Judge = Callable[[HeldCall], Response | None]


class SocketOperation(NamedTuple):
    """A held call on a socket, with what it is performed on."""

    identifier: int
    caller: Caller
    # a duplicate of the caller's socket
    sock: socket.socket
    # duplicates of the descriptors in the caller's message (SCM_RIGHTS); added while it is read
    rights: list[int]

    def close(self) -> None:
        # a descriptor that was sent is another one: closing ours closes none of the caller's
        self.sock.close()
        for descriptor in self.rights:
            os.close(descriptor)
