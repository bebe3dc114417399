"""Judging held calls that act on processes.

Pid 1, with which an environment ends, is nobody's to signal, to limit or to slow down. A core
limit stays what it is, since the host's own handler of crashes would be started by another one.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel.caller import BadAddress, Caller
from cleanroom.sandbox.kernel.constants import RLIMIT_CORE, UINT_MAX
from cleanroom.sandbox.kernel.core_limit import CORE_BYTES
from cleanroom.sandbox.seccomp.filters import PID_ARGUMENTS
from cleanroom.sandbox.seccomp_notify.rules import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset((*PID_ARGUMENTS, "pidfd_send_signal", "pidfd_open", "prlimit64", "setrlimit"))

_RULE = "process.visibility"
_SIGNAL_AT = {
    "kill": 1,
    "tkill": 1,
    "tgkill": 2,
    "rt_sigqueueinfo": 1,
    "rt_tgsigqueueinfo": 2,
    "pidfd_send_signal": 1,
}
_RLIMIT = struct.Struct("=QQ")  # struct rlimit64


class Processes:
    """Judges for one environment."""

    def __init__(self, init: int, own: int) -> None:
        """`init` is the number of its first process as it sees it, `own` as the warden does."""
        self._init, self._own = init, own

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """None lets the kernel go on, which judges the rest as on any machine."""
        if name == "setrlimit":
            return _core_limit(caller, arguments[1], 0)
        if name == "prlimit64":
            return self._limit(caller, arguments)
        if name in _SIGNAL_AT and not arguments[_SIGNAL_AT[name]] & UINT_MAX:
            return None  # it only asks whether it is there
        if name == "pidfd_send_signal" and not self._is_init(caller, arguments[0] & UINT_MAX):
            return None
        return self.refused(name)

    def refused(self, name: str) -> Response:
        """What is said of an attempt on the environment's first process."""
        target: Target = {"signal_pid": self._init, "syscall": f"{name} of init"}
        return Response(errno.EPERM, _RULE, target, alone=True)

    def _limit(self, caller: Caller, arguments: tuple[int, ...]) -> Response | None:
        number, resource, new, old = arguments[:4]
        if not new:
            return None
        if number & UINT_MAX == self._init:
            return self.refused("prlimit64")
        if resource & UINT_MAX == RLIMIT_CORE:
            return _core_limit(caller, new, old)
        return None

    def _is_init(self, caller: Caller, descriptor: int) -> bool:
        """Whether a pidfd, or a folder of /proc used as one, stands for it."""
        if caller.link(f"fd/{descriptor}") == f"/proc/{self._init}":
            return True
        return caller.process_behind(descriptor) == self._own


def _core_limit(caller: Caller, new: int, old: int) -> Response:
    """Say that it was done: whoever asks for less wants no core file, and there is none."""
    told = caller.memory(new, _RLIMIT.size)
    if len(told) < _RLIMIT.size:
        raise BadAddress(hex(new + len(told)))
    soft, hard = _RLIMIT.unpack(told)
    if soft > hard:
        return Response(errno.EINVAL)
    if hard > CORE_BYTES:
        return Response(errno.EPERM)
    if old:
        caller.write(old, _RLIMIT.pack(CORE_BYTES, CORE_BYTES))
    return Response(0)
