"""Giving a descriptor to a held caller: what it asked for was opened or made on its behalf,
and its call returns the number it has there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.seccomp_notify.rules import Response

_FORM = struct.Struct("=QIIII")  # struct seccomp_notif_addfd


def inject_fd(
    listener: int,
    identifier: int,
    descriptor: int,
    *,
    close_on_exec: bool,
    place: int = 0,
) -> Response:
    """Put a copy of our `descriptor` into the table of the caller of call `identifier`; ours stays.

    It gets the number `place` there, or the lowest free one where that is 0. The refusal returned
    says that the call is answered already (`later`), which number to answer it with, or the errno.
    """
    flags = constants.SECCOMP_ADDFD_FLAG_SETFD if place else 0
    form = descriptor, place, os.O_CLOEXEC if close_on_exec else 0
    try:
        # both in one step, so that a signal cannot come between
        _add(listener, identifier, flags | constants.SECCOMP_ADDFD_FLAG_SEND, *form)
        return Response(0, later=True)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return Response(error.errno or errno.EMFILE)
    try:
        return Response(0, value=_add(listener, identifier, flags, *form))
    except OSError as error:
        return Response(error.errno or errno.EMFILE)


def _add(listener: int, identifier: int, flags: int, *rest: int) -> int:
    """The number that the caller has now."""
    return int(
        fcntl.ioctl(
            listener,
            constants.SECCOMP_IOCTL_NOTIF_ADDFD,
            bytearray(_FORM.pack(identifier, flags, *rest)),
        )
    )
