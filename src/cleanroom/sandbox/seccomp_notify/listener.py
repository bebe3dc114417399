"""The listener of a filter: receives notifications of held calls and answers them.

See seccomp_unotify(2).
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel.constants import (
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
)

if TYPE_CHECKING:
    # id, pid, flags, then struct seccomp_data: number, architecture, instruction pointer, arguments
    Notification = tuple[int, ...]

_SECCOMP_NOTIF = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, value, error, flags
_SECCOMP_NOTIF_RESP = struct.Struct("=QqiI")
_ZEROS = bytes(_SECCOMP_NOTIF.size)


def set_sync_wake_up(listener: int) -> bool:
    """Let the kernel run caller and recorder in turn on one processor.

    False where the kernel does not know the flag (before Linux 6.6).
    """
    try:
        fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
    except OSError:
        return False
    return True


class Listener:
    """One notification descriptor, which `close` closes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(_SECCOMP_NOTIF.size)
        set_sync_wake_up(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def receive(self) -> Notification | None:
        """The next notification; None if its caller has died meanwhile.

        Blocks until there is one.
        """
        # EINVAL unless it is zeroed
        self._buffer[:] = _ZEROS
        # ENOENT: the caller was killed, or a signal interrupted it
        try:
            fcntl.ioctl(self._descriptor, SECCOMP_IOCTL_NOTIF_RECV, self._buffer)
        except OSError:
            return None
        return _SECCOMP_NOTIF.unpack(self._buffer)

    def let_continue(self, identifier: int) -> None:
        """Let the kernel carry the call out."""
        # since 5.5; value and error have to be 0 (EINVAL)
        self._send(_SECCOMP_NOTIF_RESP.pack(identifier, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE))

    def respond(self, identifier: int, value: int, code: int) -> None:
        """Answer with `value`, or with errno `code` unless that is 0."""
        # the error field is a negative errno, and the value counts only where it is 0
        self._send(_SECCOMP_NOTIF_RESP.pack(identifier, value, -code, 0))

    def is_valid(self, identifier: int) -> bool:
        """Whether the caller still waits.

        Else its number may have been given to another process, so nothing that was read of it
        counts (seccomp_unotify(2), SECCOMP_IOCTL_NOTIF_ID_VALID).
        """
        # ENOENT: the call has ended
        try:
            fcntl.ioctl(
                self._descriptor, SECCOMP_IOCTL_NOTIF_ID_VALID, identifier.to_bytes(8, "little")
            )
        except OSError:
            return False
        return True

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, SECCOMP_IOCTL_NOTIF_SEND, response)
        except OSError:
            # the caller was killed while it waited
            pass
