"""Judges held calls that act on processes.

Pid 1, with which an environment ends, may not be signalled, limited or slowed down.
The core limit stays as it was set: with another one the kernel would start the host's handler of
crashes (core(5), "Piping core dumps to a program").
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel.caller import BadAddress, Caller
from cleanroom.sandbox.kernel.constants import RLIMIT_CORE, UINT_MAX
from cleanroom.sandbox.kernel.core_limit import CORE_BYTES
from cleanroom.sandbox.seccomp.filters import PID_ARGUMENTS, TRACING
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(
    (*PID_ARGUMENTS, *TRACING, "pidfd_send_signal", "pidfd_open", "prlimit64", "setrlimit")
)

_RULE = "process.visibility"
# call -> index of the argument with the signal
_SIGNAL_ARGUMENT = {
    "kill": 1,
    "tkill": 1,
    "tgkill": 2,
    "rt_sigqueueinfo": 1,
    "rt_tgsigqueueinfo": 2,
    "pidfd_send_signal": 1,
}
# struct rlimit64: soft, hard
_RLIMIT = struct.Struct("=QQ")


class Processes:
    """Judges for one environment."""

    def __init__(self, inner_init: int, init_pid: int) -> None:
        """Numbers of its first process: as it sees itself, and as the warden sees it."""
        self._inner_init = inner_init
        self._init_pid = init_pid

    def judge(self, call: HeldCall) -> Response | None:
        caller, name, arguments = call.caller, call.name, call.arguments
        if name == "setrlimit":
            return _judge_core_limit(caller, arguments[1], 0)
        if name == "prlimit64":
            return self._judge_limit(caller, arguments)
        if name in TRACING and arguments[TRACING[name][0]] & UINT_MAX != self._inner_init:
            # from level High on, and where no pid namespace hides the others
            return Response(errno.EPERM, "process.syscalls", {"syscall": name})
        # signal 0 only asks whether the process exists (kill(2))
        if name in _SIGNAL_ARGUMENT and not arguments[_SIGNAL_ARGUMENT[name]] & UINT_MAX:
            return None
        if name == "pidfd_send_signal" and not self._is_init(caller, arguments[0] & UINT_MAX):
            return None
        return self.refuse(name)

    def refuse(self, name: str) -> Response:
        """The response to an attempt on the environment's first process."""
        target: Target = {"signal_pid": self._inner_init, "syscall": f"{name} of init"}
        return Response(errno.EPERM, _RULE, target, recorder_only=True)

    def _judge_limit(self, caller: Caller, arguments: tuple[int, ...]) -> Response | None:
        number, resource, new, old = arguments[:4]
        # only reads the old limit
        if not new:
            return None
        if number & UINT_MAX == self._inner_init:
            return self.refuse("prlimit64")
        if resource & UINT_MAX == RLIMIT_CORE:
            return _judge_core_limit(caller, new, old)
        return None

    def _is_init(self, caller: Caller, descriptor: int) -> bool:
        """Whether a pidfd, or a folder of /proc used as one, refers to the first process."""
        # pidfd_send_signal(2) takes a folder of /proc as a pidfd too
        if caller.link(f"fd/{descriptor}") == f"/proc/{self._inner_init}":
            return True
        return caller.process_behind(descriptor) == self._init_pid


def _judge_core_limit(caller: Caller, new: int, old: int) -> Response:
    """Answer that the limit was set: its caller wants no core file, and none is written."""
    limit = caller.memory(new, _RLIMIT.size)
    if len(limit) < _RLIMIT.size:
        raise BadAddress(hex(new + len(limit)))
    soft, hard = _RLIMIT.unpack(limit)
    # as setrlimit(2) answers
    if soft > hard:
        return Response(errno.EINVAL)
    # raising a hard limit needs CAP_SYS_RESOURCE (setrlimit(2))
    if hard > CORE_BYTES:
        return Response(errno.EPERM)
    if old:
        caller.write(old, _RLIMIT.pack(CORE_BYTES, CORE_BYTES))
    return Response(0)
