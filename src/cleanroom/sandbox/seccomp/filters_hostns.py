"""The system call filter of environments without namespaces.

What a namespace or a read-only mount would refuse by itself is held,
so that it is decided outside and done on the caller's behalf:
every open, every socket and what is done with it, changes of metadata by descriptor too,
and calls that act on another process by its number.
"""

from __future__ import annotations

import errno
import functools
import socket

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, numbers
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.seccomp.filters import (
    ALLOW,
    AND_ERRNO,
    ANY_BIT,
    ARCH,
    AT_LEAST,
    EQUAL,
    HOLD,
    NUMBER,
    X32,
    argument,
)

BY_DESCRIPTOR = ("fchmod", "fchown", "fsetxattr", "fremovexattr")
# They act on whoever's number they are given: which argument that is.
ON_OTHERS = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setscheduler": 0,
    "sched_setparam": 0,
    "sched_setattr": 0,
    "setpriority": 1,
    "ioprio_set": 1,
}
# Here init is a process like any other, which a signal ends: held where it is meant.
SIGNALS = ("tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open")
# who gets a file's signals
OWNER_COMMANDS = (constants.FIOSETOWN, constants.SIOCSPGRP)
# Memory, queues and semaphores that all processes of a user share and nobody removes.
SHARED_MEMORY = (
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
# ioctl(2) requests that change metadata without a write
FILE_FLAGS = (
    constants.FS_IOC_SETFLAGS,
    constants.FS_IOC_FSSETXATTR,
    constants.FS_IOC32_SETFLAGS,
    constants.FS_IOC_ENABLE_VERITY,
)


@functools.cache
def bare_filter(machine: str, *, service: bool, init: int) -> bytes:
    """The program for `machine`, one of `syscall_numbers.MACHINES`,
    below the process with number `init`.

    A `service` may have shared memory of its own.
    """
    known = numbers(machine)
    asm = filters.Assembler()
    asm.load(ARCH)
    asm.when(EQUAL, AUDIT_ARCH[machine], "ours")
    asm.answer(HOLD)
    asm.place("ours")
    asm.load(NUMBER)
    if machine == "x86_64":
        asm.when(AT_LEAST, X32, "hold")
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
        *ON_OTHERS,
        *SIGNALS,
    )
    for name in by_arguments:
        asm.when(EQUAL, known[name], name)
    held = (
        *filters.SENDING,
        "bind",
        "listen",
        "open",
        "openat",
        "kcmp",
        "pidfd_send_signal",
        *filters.CHANGING,
        *filters.DENIED,
        *BY_DESCRIPTOR,
    )
    for names, to in (
        (held, "hold"),
        (filters.ABSENT, "absent"),
        (() if service else SHARED_MEMORY, "absent"),
    ):
        for name in names:
            if name in known:
                asm.when(EQUAL, known[name], to)
    asm.answer(ALLOW)
    _by_arguments(asm)
    _on_others(asm)
    _on_init(asm, init)
    asm.place("hold")
    asm.answer(HOLD)
    asm.place("allow")
    asm.answer(ALLOW)
    asm.place("absent")
    asm.answer(AND_ERRNO | errno.ENOSYS)
    return asm.program()


def _by_arguments(asm: filters.Assembler) -> None:
    asm.place("ioctl")
    asm.load(argument(1))
    for command in (*FILE_FLAGS, *OWNER_COMMANDS):
        asm.when(EQUAL, command, "hold")
    asm.go("allow")
    asm.place("clone")
    asm.load(argument(0))
    asm.when(ANY_BIT, constants.CLONE_NEW_ANY, "hold")
    asm.when(ANY_BIT, constants.CLONE_THREAD, "allow")
    asm.when(
        ANY_BIT, constants.CLONE_FILES, "hold"
    )  # descriptors are shared by threads only, so that one thread alone cannot have them exchanged
    asm.go("allow")
    asm.place("unshare")
    asm.load(argument(0))
    asm.when(ANY_BIT, constants.CLONE_NEW_ANY | constants.CLONE_NEWTIME, "hold")
    asm.go("allow")
    asm.place("sendto")
    for half in (0, 4):
        asm.load(argument(4) + half)
        asm.when(ANY_BIT, 0xFFFFFFFF, "hold")
    asm.go("allow")
    asm.place("socketpair")
    asm.load(argument(0))
    asm.when(EQUAL, socket.AF_UNIX, "pair")
    asm.go("hold")
    asm.place("pair")  # of datagram sockets either could be sent elsewhere
    asm.load(argument(1))
    asm.mask(0xF)
    asm.when(EQUAL, socket.SOCK_DGRAM, "hold")
    asm.go("allow")
    asm.place("socket")
    asm.load(argument(0))
    asm.when(EQUAL, constants.AF_NETLINK, "netlink")
    asm.go("hold")
    asm.place("netlink")  # about links and addresses; other kinds tell of other processes
    asm.load(argument(2))
    asm.when(EQUAL, 0, "allow")
    asm.go("hold")


def _on_init(asm: filters.Assembler, init: int) -> None:
    """Signals to it by its number, by that of a group, or to all that there is."""
    asm.place("kill")
    asm.load(argument(0))
    asm.when(ANY_BIT, 0x80000000, "hold")
    asm.when(EQUAL, init, "hold")
    asm.go("allow")
    for name in SIGNALS:
        asm.place(name)
        asm.load(argument(0))
        asm.when(EQUAL, init, "hold")
        asm.go("allow")
    asm.place("fcntl")
    asm.load(argument(1))
    for command in (constants.F_SETOWN, constants.F_SETOWN_EX):
        asm.when(EQUAL, command, "hold")
    asm.go("allow")


def _on_others(asm: filters.Assembler) -> None:
    asm.place("setrlimit")
    asm.load(argument(0))
    asm.when(EQUAL, constants.RLIMIT_CORE, "hold")
    asm.go("allow")
    for name, index in ON_OTHERS.items():
        asm.place(name)
        for half in (0, 4):
            asm.load(argument(index) + half)
            asm.when(ANY_BIT, 0xFFFFFFFF, "hold")
        if index:  # whose: of a group or a user means others
            asm.load(argument(0))
            asm.when(ANY_BIT, 0xFFFFFFFE, "hold")
        if name == "prlimit64":
            asm.load(argument(1))
            asm.when(EQUAL, constants.RLIMIT_CORE, "hold")
        asm.go("allow")
