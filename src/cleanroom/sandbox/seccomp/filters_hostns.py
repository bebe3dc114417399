"""The system call filter of environments without namespaces.

A namespace or a read-only mount would refuse these calls by itself.
Here they are held, so that the recorder decides and performs them for the caller
(`sandbox/seccomp_notify/recorder_hostns.py`): every open, every socket call, changes of metadata by
descriptor too, and calls that act on another process by its number.
"""

from __future__ import annotations

import functools
import socket

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.constants import BPF_JEQ_K, BPF_JSET_K
from cleanroom.sandbox.kernel.syscall_numbers import numbers
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.seccomp.bpf import Assembler, argument

METADATA_BY_DESCRIPTOR = ("fchmod", "fchown", "fsetxattr", "fremovexattr")
# Calls that act on a process -> index of the argument with its number.
PID_ARGUMENT = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setscheduler": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
# Without a pid namespace init is an ordinary process, which a signal ends.
# Held where the number is that of init.
SIGNALS = ("tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open")
# Memory, queues and semaphores that all processes of a user share and that outlive them.
SYSTEM_V_IPC = (
    "shmget",
    "shmat",
    "shmctl",
    "semget",
    "semop",
    "semctl",
    "semtimedop",
    "msgget",
    "msgsnd",
    "msgrcv",
    "msgctl",
    "mq_open",
    "mq_unlink",
)
# The first four change metadata of a file that is open for reading.
# The others choose the process that gets its signals.
HELD_IOCTLS = (
    constants.FS_IOC_SETFLAGS,
    constants.FS_IOC_FSSETXATTR,
    constants.FS_IOC32_SETFLAGS,
    constants.FS_IOC_ENABLE_VERITY,
    constants.FIOSETOWN,
    constants.SIOCSPGRP,
)
_SIGN_BIT = 0x80000000


@functools.cache
def hostns_filter(machine: str, *, service: bool, init: int) -> bytes:
    """The program for `machine`, one of `syscall_numbers.MACHINES`, below process number `init`.

    A `service` may have shared memory of its own.
    """
    known = numbers(machine)
    asm = Assembler()
    filters.load_number(asm, machine, foreign=constants.SECCOMP_RET_USER_NOTIF, x32="hold")
    by_arguments = (
        "socket",
        "socketpair",
        "sendto",
        "clone",
        "unshare",
        "ioctl",
        "fcntl",
        "kill",
        "setrlimit",
        "ptrace",
        *PID_ARGUMENT,
        *SIGNALS,
    )
    for name in by_arguments:
        asm.jump_if(BPF_JEQ_K, known[name], name)
    held = (
        *filters.SENDING,
        "bind",
        "listen",
        "open",
        "openat",
        "kcmp",
        "pidfd_send_signal",
        *filters.PATH_CHANGES,
        *filters.DENIED,
        "process_vm_readv",
        "process_vm_writev",
        "sysinfo",
        *METADATA_BY_DESCRIPTOR,
    )
    filters.jump_from_each(asm, known, held, "hold")
    filters.jump_from_each(asm, known, filters.ABSENT, "absent")
    if not service:
        filters.jump_from_each(asm, known, SYSTEM_V_IPC, "absent")
    asm.ret(constants.SECCOMP_RET_ALLOW)
    _test_arguments(asm)
    _test_sockets(asm)
    _test_other_processes(asm)
    _test_init(asm, init)
    _test_tracing(asm)
    return filters.assemble(asm, filters.HOLD_OR_ALLOW)


def _test_arguments(asm: Assembler) -> None:
    asm.label("ioctl")
    asm.load(argument(1))
    for command in HELD_IOCTLS:
        asm.jump_if(BPF_JEQ_K, command, "hold")
    asm.jump("allow")
    asm.label("clone")
    asm.load(argument(0))
    asm.jump_if(BPF_JSET_K, constants.CLONE_NEW_ANY, "hold")
    asm.jump_if(BPF_JSET_K, constants.CLONE_THREAD, "allow")
    # Who shares its descriptor table can have a descriptor exchanged between judgement and call.
    asm.jump_if(BPF_JSET_K, constants.CLONE_FILES, "hold")
    asm.jump("allow")
    asm.label("unshare")
    asm.load(argument(0))
    asm.jump_if(BPF_JSET_K, constants.CLONE_NEW_ANY | constants.CLONE_NEWTIME, "hold")
    asm.jump("allow")


def _test_sockets(asm: Assembler) -> None:
    asm.label("sendto")
    asm.jump_if_nonzero(4, "hold")
    asm.jump("allow")
    asm.label("socketpair")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, socket.AF_UNIX, "unix pair")
    asm.jump("hold")
    # a datagram socket of a pair may still be connected elsewhere (unix(7))
    asm.label("unix pair")
    asm.load(argument(1))
    asm.mask(constants.SOCK_TYPE_MASK)
    asm.jump_if(BPF_JEQ_K, socket.SOCK_DGRAM, "hold")
    asm.jump("allow")
    asm.label("socket")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, constants.AF_NETLINK, "netlink")
    asm.jump("hold")
    # NETLINK_ROUTE tells of links and addresses, other protocols of other processes
    asm.label("netlink")
    asm.load(argument(2))
    asm.jump_if(BPF_JEQ_K, constants.NETLINK_ROUTE, "allow")
    asm.jump("hold")


def _test_init(asm: Assembler, init: int) -> None:
    """Signals to init by its number, by that of a group, or to all processes (kill(2))."""
    asm.label("kill")
    asm.load(argument(0))
    # a number is an int, so bit 31 is its sign; 0 is the caller's own group
    asm.jump_if(BPF_JSET_K, _SIGN_BIT, "hold")
    asm.jump_if(BPF_JEQ_K, init, "hold")
    asm.jump("allow")
    for name in SIGNALS:
        asm.label(name)
        asm.load(argument(0))
        asm.jump_if(BPF_JEQ_K, init, "hold")
        asm.jump("allow")
    asm.label("fcntl")
    asm.load(argument(1))
    for command in (constants.F_SETOWN, constants.F_SETOWN_EX):
        asm.jump_if(BPF_JEQ_K, command, "hold")
    asm.jump("allow")


def _test_tracing(asm: Assembler) -> None:
    """Attaching is held; every other request is for a process that is traced already (ptrace(2)).

    PTRACE_TRACEME asks the parent: one of the environment, or init, which ignores it.
    """
    asm.label("ptrace")
    asm.load(argument(0))
    for request in (constants.PTRACE_ATTACH, constants.PTRACE_SEIZE):
        asm.jump_if(BPF_JEQ_K, request, "hold")
    asm.jump("allow")


def _test_other_processes(asm: Assembler) -> None:
    """Number 0 means the caller, any other is held."""
    asm.label("setrlimit")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, constants.RLIMIT_CORE, "hold")
    asm.jump("allow")
    for name, index in PID_ARGUMENT.items():
        asm.label(name)
        asm.jump_if_nonzero(index, "hold")
        # the first argument says of whom the second is the number: more than bit 0 is a group or a
        # user (PRIO_PGRP, PRIO_USER, IOPRIO_WHO_PGRP, IOPRIO_WHO_USER)
        if index:
            asm.load(argument(0))
            asm.jump_if(BPF_JSET_K, 0xFFFFFFFE, "hold")
        if name == "prlimit64":
            asm.load(argument(1))
            asm.jump_if(BPF_JEQ_K, constants.RLIMIT_CORE, "hold")
        asm.jump("allow")
