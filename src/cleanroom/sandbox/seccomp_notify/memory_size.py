"""Answers sysinfo(2), by which C libraries tell how much memory there is (sysconf(3)), with the
environment's own limit.
"""

from __future__ import annotations

import struct

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

NAMES = frozenset(("sysinfo",))
# struct sysinfo up to the unit: time since boot, three loads, six sizes of memory and swap,
# processes, two sizes of high memory, and the bytes that each size is counted in
_SYSINFO = struct.Struct("=q3Q6QH6x2QI4x")
_TOTAL, _FREE, _SWAP, _FREE_SWAP, _UNIT = 4, 5, 8, 9, 13


class MemorySize:
    """Answers for one environment."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes

    def judge(self, call: HeldCall) -> Response:
        call.caller.write(call.arguments[0], limited(syscalls.sysinfo(), self._limit_bytes))
        return Response(0)


def limited(raw: bytes, limit_bytes: int) -> bytes:
    """A struct sysinfo with at most `limit_bytes` of memory, and no swap: it counts as memory."""
    fields = list(_SYSINFO.unpack(raw))
    most = limit_bytes // max(1, fields[_UNIT])
    for index in (_TOTAL, _FREE):
        fields[index] = min(fields[index], most)
    fields[_SWAP] = fields[_FREE_SWAP] = 0
    return _SYSINFO.pack(*fields)
