"""Injecting a descriptor into the caller of a held call (SECCOMP_IOCTL_NOTIF_ADDFD).

The recorder opened or made the file for the caller, whose call returns the new descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from cleanroom.sandbox.kernel.constants import (
    SECCOMP_ADDFD_FLAG_SEND,
    SECCOMP_ADDFD_FLAG_SETFD,
    SECCOMP_IOCTL_NOTIF_ADDFD,
)
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

# struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags
_SECCOMP_NOTIF_ADDFD = struct.Struct("=QIIII")


def inject_fd(
    listener: int,
    identifier: int,
    descriptor: int,
    *,
    close_on_exec: bool,
    newfd: int = 0,
) -> Response:
    """Duplicate `descriptor` into the caller of notification `identifier`; ours stays open.

    The duplicate gets number `newfd`, or where that is 0 the lowest free one.
    The response says whether the call is answered already (`pending`), which value to answer it
    with, or the errno.
    """
    flags = SECCOMP_ADDFD_FLAG_SETFD if newfd else 0
    # O_CLOEXEC is the only flag that newfd_flags takes (seccomp_unotify(2))
    source = descriptor, newfd, os.O_CLOEXEC if close_on_exec else 0
    try:
        # one step: a signal between the two would leave the caller a descriptor it knows nothing of
        _add(listener, identifier, flags | SECCOMP_ADDFD_FLAG_SEND, *source)
        return Response(0, pending=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return Response(error.errno or errno.EMFILE)
    # before Linux 5.14, which has no SECCOMP_ADDFD_FLAG_SEND
    try:
        return Response(0, value=_add(listener, identifier, flags, *source))
    except OSError as error:
        return Response(error.errno or errno.EMFILE)


def inject_socket(
    listener: int, call: HeldCall, made: socket.socket, *, newfd: int = 0
) -> Response:
    """Inject the socket that was made for a caller of socket(2); ours stays open."""
    close_on_exec = bool(call.arguments[1] & socket.SOCK_CLOEXEC)
    return inject_fd(
        listener, call.identifier, made.fileno(), close_on_exec=close_on_exec, newfd=newfd
    )


def _add(listener: int, identifier: int, flags: int, *source: int) -> int:
    """The duplicate's number in the caller."""
    request = bytearray(_SECCOMP_NOTIF_ADDFD.pack(identifier, flags, *source))
    return int(fcntl.ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, request))
