"""Giving a descriptor to a held caller: what it asked for was opened or made on its behalf, and its call returns the number it has there."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from cleanroom.sandbox.rules import Refusal

_ADD = 0x40182103  # SECCOMP_IOCTL_NOTIF_ADDFD
_AND_ANSWER = 2  # SECCOMP_ADDFD_FLAG_SEND, Linux 5.14: both in one step, so that a signal cannot come between
_FORM = struct.Struct("=QIIII")  # the call's number, flags, our descriptor, a wanted number, its flags


class Gifts:
    """Through one listener."""

    def __init__(self, listener: int) -> None:
        self._listener = listener

    def give(self, identifier: int, descriptor: int, *, close_on_exec: bool) -> Refusal:
        """Put a copy of ours into the caller's table; ours stays ours. The answer is given already, or says the number."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        try:
            fcntl.ioctl(self._listener, _ADD, _FORM.pack(identifier, _AND_ANSWER, descriptor, 0, flags))
        except OSError as error:
            if error.errno != errno.EINVAL:
                return Refusal(error.errno or errno.EMFILE)
            try:
                return Refusal(0, value=int(fcntl.ioctl(self._listener, _ADD, bytearray(_FORM.pack(identifier, 0, descriptor, 0, flags)))))
            except OSError as again:
                return Refusal(again.errno or errno.EMFILE)
        return Refusal(0, later=True)
