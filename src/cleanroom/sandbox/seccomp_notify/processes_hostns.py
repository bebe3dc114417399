"""Judges held calls on processes of environments without a pid namespace.

Their processes are told from others by the host's numbers.
"""

from __future__ import annotations

import contextlib
import errno
import os

from cleanroom.sandbox.kernel import process_tree
from cleanroom.sandbox.kernel.constants import F_SETOWN, UINT_MAX
from cleanroom.sandbox.seccomp.filters import TRACING
from cleanroom.sandbox.seccomp.filters_hostns import PID_ARGUMENT
from cleanroom.sandbox.seccomp_notify import processes
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

# values of the first argument with which the second is a process's number: PRIO_PROCESS,
# IOPRIO_WHO_PROCESS
_ONE_PROCESS = {"setpriority": 0, "ioprio_set": 1}
NAMES = processes.NAMES | frozenset((*PID_ARGUMENT, "kcmp", "fcntl", "kill"))


class HostnsProcesses(processes.Processes):
    """Judges for one environment, by the numbers of the host."""

    def __init__(self, init_pid: int) -> None:
        super().__init__(init_pid, init_pid)

    def belongs(self, pid: int) -> bool:
        """Whether a process is the environment's, other than init, which is ours."""
        return pid != self._init_pid and process_tree.within(pid, self._init_pid)

    def judge(self, call: HeldCall) -> Response | None:
        name, arguments = call.name, call.arguments
        if name in PID_ARGUMENT:
            refusal = self._judge_other(call)
            # of prlimit64 the core limit is still to be judged
            if refusal is not None or name != "prlimit64":
                return refusal
        if name in TRACING:
            number = arguments[TRACING[name][0]] & UINT_MAX
            # Landlock lets it look into processes of its own domain only.
            return None if self.belongs(number) else super().judge(call)
        if name == "kcmp":
            compared = [number & UINT_MAX for number in arguments[:2]]
            return None if all(map(self.belongs, compared)) else self.refuse("kcmp")
        if name == "fcntl":
            return self._judge_owner(arguments)
        if name == "kill" and signed(arguments[0]) < 0:
            return self._kill_many(call)
        return super().judge(call)

    def _judge_other(self, call: HeldCall) -> Response | None:
        """A thread may change itself and its siblings, by the number 0 or by their own."""
        number = call.arguments[PID_ARGUMENT[call.name]] & UINT_MAX
        group = call.caller.group
        if _means_one_process(call) and (
            number in (0, call.caller.pid, group) or os.path.exists(f"/proc/{group}/task/{number}")
        ):
            return None
        return Response(
            errno.EPERM,
            "process.visibility",
            {"signal_pid": number, "syscall": call.name},
            recorder_only=True,
        )

    def _judge_owner(self, arguments: tuple[int, ...]) -> Response | None:
        """A process may get a file's signals; a group or init may not.

        A structure in memory (F_SETOWN_EX) cannot be judged, and is refused as an unknown command.
        """
        # the filter holds F_SETOWN and F_SETOWN_EX
        if arguments[1] & UINT_MAX != F_SETOWN:
            return Response(errno.EINVAL)
        number = signed(arguments[2])
        # a negative number is a process group (fcntl(2))
        if number == self._init_pid or number < 0:
            return self.refuse("fcntl")
        return None

    def _kill_many(self, call: HeldCall) -> Response | None:
        """A group may be signalled unless it is init's.

        All processes (-1) are those of the environment without init and the caller: each is
        signalled here.
        """
        number, signal = signed(call.arguments[0]), call.arguments[1] & UINT_MAX
        if number == -os.getpgid(self._init_pid):
            return self.refuse("kill")
        if number != -1:
            return None
        # the kernel would signal every process of the user, outside too (kill(2))
        for pid in process_tree.descendants(self._init_pid):
            if pid != call.caller.group:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal)
        return Response(0)


def _means_one_process(call: HeldCall) -> bool:
    """Whether the number in a call is a process's, not that of a group or a user."""
    return call.name not in _ONE_PROCESS or call.arguments[0] & UINT_MAX == _ONE_PROCESS[call.name]


def signed(argument: int) -> int:
    """An int as the kernel takes it from the low half of an argument."""
    low = argument & UINT_MAX
    return low - (1 << 32) if low >> 31 else low
