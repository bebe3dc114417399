"""Calls whose caller would block: tried again when their socket is ready, and answered then.

The recorder goes on with other held calls meanwhile.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from cleanroom.sandbox.seccomp_notify.held_call import SocketOperation
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.socket_calls import is_blocking

# begun; begun by an earlier connect(2); a full buffer, or the full queue of a unix socket
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)
# between two checks whether a caller was killed or has a signal: a person's Ctrl-C, no loop's
_CHECK_SECONDS = 0.05


class _PendingCall(NamedTuple):
    operation: SocketOperation
    # performs the call without blocking, and returns its value
    attempt: Callable[[], int]
    # monotonic seconds, or infinity: SO_SNDTIMEO of the socket
    deadline: float
    # errno after the deadline
    timeout_errno: int


class PendingCalls:
    """The calls of one environment that wait for their socket."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # by descriptor of the duplicate
        self._pending: dict[int, _PendingCall] = {}
        self._writable = select.epoll()
        self._next_check = 0.0

    def perform(
        self,
        operation: SocketOperation,
        attempt: Callable[[], int],
        response: Response,
        *,
        timeout_errno: int,
        may_block: bool = True,
    ) -> Response:
        """Perform a call; where its caller would block, answer it later.

        `response` says what is recorded; value and errno, or `pending`, are filled in.
        """
        try:
            return response._replace(value=attempt())
        except OSError as error:
            blocks = error.errno in _UNDER_WAY and may_block and is_blocking(operation.sock)
            if not blocks:
                return response._replace(errno=error.errno or errno.EIO)
        seconds = _send_timeout(operation.sock)
        deadline = time.monotonic() + seconds if seconds else math.inf
        # a duplicate for each call, so no two pending calls share a descriptor
        descriptor = operation.sock.fileno()
        self._pending[descriptor] = _PendingCall(operation, attempt, deadline, timeout_errno)
        # ready too when a connection has failed: EPOLLERR is always reported (epoll_ctl(2))
        self._writable.register(descriptor, select.EPOLLOUT)
        return response._replace(pending=True)

    def fileno(self) -> int:
        """Readable when `ready` has something to do."""
        return self._writable.fileno()

    def ready(self) -> None:
        """Try again those whose socket is ready."""
        for descriptor, _ in self._writable.poll(0):
            self._retry(self._pending[descriptor])

    def wait_seconds(self) -> float | None:
        """How long until `tick` has something to do; None while no call is pending."""
        return max(0.0, self._next_check - time.monotonic()) if self._pending else None

    def tick(self) -> None:
        """Answer the calls whose caller was killed, has a signal, or is out of time."""
        now = time.monotonic()
        if not self._pending or now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        for pending in list(self._pending.values()):
            operation = pending.operation
            if not self._listener.is_valid(operation.identifier):
                self._finish(pending, 0, errno.EINTR)
            elif now >= pending.deadline:
                self._finish(pending, 0, pending.timeout_errno)
            # a call that the kernel performs would end for a signal (signal(7), EINTR)
            elif interruption := operation.caller.interrupted():
                self._finish(pending, 0, interruption)
            # one that is not connected is not woken when its receiver's queue has room again
            elif operation.sock.family == socket.AF_UNIX:
                self._retry(pending)

    def close(self) -> None:
        for pending in self._pending.values():
            pending.operation.close()
        self._pending.clear()
        self._writable.close()

    def _retry(self, pending: _PendingCall) -> None:
        try:
            self._finish(pending, pending.attempt(), 0)
        except OSError as error:
            if error.errno not in _UNDER_WAY:
                self._finish(pending, 0, error.errno or errno.EIO)

    def _finish(self, pending: _PendingCall, value: int, code: int) -> None:
        operation = pending.operation
        descriptor = operation.sock.fileno()
        del self._pending[descriptor]
        # before the descriptor is closed: epoll(7) keeps an open file that has other descriptors
        self._writable.unregister(descriptor)
        operation.close()
        self._listener.respond(operation.identifier, value, code)


def _send_timeout(sock: socket.socket) -> float:
    """SO_SNDTIMEO in seconds; 0 is none."""
    option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
    seconds, microseconds = struct.unpack("=qq", option)
    return float(seconds + microseconds / 1e6)
