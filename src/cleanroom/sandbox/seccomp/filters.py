"""The system call filters of environments with namespaces: one for each level, one for services.

A filter has three answers: allow the call; hold it, so that the recorder decides and names it
(`sandbox/seccomp_notify/recorder.py`); ENOSYS, where ordinary runtimes have a fallback.
What a held call could still do after SECCOMP_USER_NOTIF_FLAG_CONTINUE is enforced by namespaces,
mounts and Landlock.
"""

from __future__ import annotations

import errno
import functools
import mmap
import socket
import stat
from collections.abc import Mapping

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.constants import BPF_JEQ_K, BPF_JGE_K, BPF_JSET_K
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, numbers
from cleanroom.sandbox.seccomp import bpf
from cleanroom.sandbox.seccomp.bpf import Assembler, argument

# Calls that look into another process -> indexes of the arguments with its number.
# Below level High a phase may look into its own: none but these and pid 1 are in its pid namespace.
TRACING: dict[str, tuple[int, ...]] = {
    "ptrace": (1,),
    "process_vm_readv": (0,),
    "process_vm_writev": (0,),
}

# Refused and attributed at every level: they reach beyond the environment, or widen its rights.
DENIED = (
    "pidfd_getfd",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "mount_setattr",
    "setns",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "keyctl",
    "add_key",
    "request_key",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "acct",
    "syslog",
    "open_by_handle_at",
    "name_to_handle_at",
    "fanotify_init",
    "clock_settime",
    "settimeofday",
    "adjtimex",
    "clock_adjtime",
    "memfd_secret",
    "sethostname",
    "setdomainname",
    "vhangup",
    "quotactl",
    "quotactl_fd",
    "iopl",
    "ioperm",
    "lookup_dcookie",
)

# Changes by path to the file itself, and to the names of a folder.
# Changes by descriptor need no judgement: opening the file for writing was judged.
# fchmodat2 is known since 6.6, setxattrat and removexattrat since 6.13, file_setattr since 6.17.
FILE_CHANGES = (
    "creat",
    "truncate",
    "chmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "removexattr",
    "lremovexattr",
    "setxattrat",
    "removexattrat",
    "file_setattr",
)
NAME_CHANGES = (
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "mknod",
    "mknodat",
)
PATH_CHANGES = (*NAME_CHANGES, *FILE_CHANGES)

# Calls that act on a process -> indexes of the arguments with its number.
# Held where that is 1: pid 1 of a pid namespace ends all of it.
PID_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "kill": (0,),
    "tkill": (0,),
    "tgkill": (0,),
    "rt_sigqueueinfo": (0,),
    "rt_tgsigqueueinfo": (0,),
    "sched_setaffinity": (0,),
    "sched_setscheduler": (0,),
    "sched_setparam": (0,),
    "sched_setattr": (0,),
    "move_pages": (0,),
    "migrate_pages": (0,),
    "get_robust_list": (0,),
    "setpriority": (1,),
    "ioprio_set": (1,),
    "kcmp": (0, 1),
}
# Values of the first argument with which the second is a user's number: PRIO_USER,
# IOPRIO_WHO_USER. All processes of that user are meant, pid 1 among them.
WHOLE_USER = {"setpriority": 2, "ioprio_set": 3}

# Held from Medium on, since /dev/shm is mounted without exec there.
# Holding them adds a hundredth to the start of a program.
EXEC = ("execve", "execveat")

# Held at High too: reading, mapping code, and listening.
# memfd_create with MFD_NOEXEC_SEAL is allowed: that file can never be executed.
ALLOWLISTED = ("open", "openat", "memfd_create", "mmap", "bind", "listen")

# The recorder gives netlink sockets descriptors from this number on.
# A send on a connected socket names no address, and the filter sees descriptor numbers only.
FIRST_NETLINK = 960
WRITES = ("write", "writev")

# Held on the host's network: no namespace hides a listening socket there.
LISTENING = ("bind", "listen")

SENDING = ("connect", "sendmsg", "sendmmsg")

# Their arguments lie in memory, which a filter cannot read (seccomp(2)).
# Every runtime falls back when they answer ENOSYS.
ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "openat2")

_INTERNET = (constants.AF_INET, constants.AF_INET6)
_STREAM_PROTOCOLS = (0, socket.IPPROTO_TCP, constants.IPPROTO_MPTCP)
_DATAGRAM_PROTOCOLS = (0, socket.IPPROTO_UDP)

# label -> answer, of filters with a listener
HOLD_OR_ALLOW = {
    # since 5.0; without a listener the kernel answers ENOSYS (seccomp(2))
    "hold": constants.SECCOMP_RET_USER_NOTIF,
    "allow": constants.SECCOMP_RET_ALLOW,
    "absent": constants.SECCOMP_RET_ERRNO | errno.ENOSYS,
}


def medium_filter(machine: str) -> bytes:
    """The program of level Medium for `machine`, one of `syscall_numbers.MACHINES`."""
    # the keyword arguments that init passes too: functools.cache keys on them as they are written
    return phase_filter(machine, allowlist=False, hold_exec=True, host_network=False)


def high_filter(machine: str) -> bytes:
    """The program of level High: reading, starting programs and listening are held too."""
    return phase_filter(machine, allowlist=True, hold_exec=True, host_network=False)


@functools.cache
def phase_filter(
    machine: str,
    *,
    allowlist: bool = False,
    hold_exec: bool = True,
    host_network: bool = False,
    track_sockets: bool = False,
) -> bytes:
    """The program for phases.

    `allowlist`: from level High on. `hold_exec`: from level Medium on. `host_network`: the network
    is shared with the host. `track_sockets`: the recorder makes all sockets, so that it has copies.
    """
    known = numbers(machine)
    asm = Assembler()
    # the recorder answers ENOSYS to calls of a foreign ABI, and names them
    load_number(asm, machine, foreign=constants.SECCOMP_RET_USER_NOTIF, x32="hold")
    if allowlist:
        labels = {"memfd_create": "memfd_create", "mmap": "mmap"}
        for name in (*ALLOWLISTED, *TRACING):
            jump_from(asm, known, name, labels.get(name, "hold"))
    elif host_network:
        jump_from_each(asm, known, LISTENING, "hold")
    if hold_exec:
        jump_from_each(asm, known, EXEC, "hold")
    deciding = ("open", "openat", "socket", "socketpair", "sendto", "clone", "unshare")
    for name in (*deciding, "utimensat", "fchmod"):
        jump_from(asm, known, name, name)
    jump_from_each(asm, known, WRITES, "netlink")
    jump_from_each(asm, known, (*SENDING, *PATH_CHANGES, *DENIED, "pidfd_send_signal"), "hold")
    jump_from_each(asm, known, ABSENT, "absent")
    if not (allowlist or host_network):
        jump_from(asm, known, "bind", "bind")
    jump_from(asm, known, "sysinfo", "hold")
    on_processes = PID_ARGUMENTS if allowlist else PID_ARGUMENTS | TRACING
    jump_to_process_calls(asm, known, on_processes)
    asm.ret(constants.SECCOMP_RET_ALLOW)
    _test_arguments(asm, host_network=host_network, track_sockets=track_sockets)
    test_process_number(asm, 1, "hold", on_processes)
    test_limits(asm, 1, init="hold", core="hold")
    _test_executable_memory(asm)
    return assemble(asm, HOLD_OR_ALLOW)


@functools.cache
def service_filter(machine: str) -> bytes:
    """The program for services: the same refusals, answered by the kernel.

    No call is held, so the filter costs a server no round trip to the recorder.
    """
    known = numbers(machine)
    asm = Assembler()
    # SECCOMP_RET_KILL_PROCESS (since 4.14) ends all threads, SECCOMP_RET_KILL_THREAD one only
    load_number(asm, machine, foreign=constants.SECCOMP_RET_KILL_PROCESS, x32="absent")
    jump_from_each(asm, known, (*DENIED, *TRACING), "denied")
    jump_from_each(asm, known, ABSENT, "absent")
    jump_to_process_calls(asm, known, PID_ARGUMENTS)
    asm.ret(constants.SECCOMP_RET_ALLOW)
    test_process_number(asm, 1, "denied", PID_ARGUMENTS)
    test_limits(asm, 1, init="denied", core="core limit")
    answers = {
        # errno 0, so the call seems to succeed: its caller wants no core file, and none is written
        "core limit": constants.SECCOMP_RET_ERRNO,
        "allow": constants.SECCOMP_RET_ALLOW,
        "denied": constants.SECCOMP_RET_ERRNO | errno.EPERM,
        "absent": constants.SECCOMP_RET_ERRNO | errno.ENOSYS,
    }
    return assemble(asm, answers)


def load_number(asm: Assembler, machine: str, *, foreign: int, x32: str) -> None:
    """Load the number of a native call; another ABI's gets the answer `foreign`, since its numbers
    mean other calls.
    """
    asm.load(bpf.ARCH)
    asm.jump_if(BPF_JEQ_K, AUDIT_ARCH[machine], "native")
    asm.ret(foreign)
    asm.label("native")
    asm.load(bpf.NR)
    # x32 has the architecture of x86-64 and its own numbers, from this bit on
    if machine == "x86_64":
        asm.jump_if(BPF_JGE_K, constants.X32_SYSCALL_BIT, x32)


def assemble(asm: Assembler, answers: Mapping[str, int]) -> bytes:
    """The program, with its answers by label at its end."""
    for label, action in answers.items():
        asm.label(label)
        asm.ret(action)
    return asm.assemble()


def jump_to_process_calls(
    asm: Assembler,
    known: Mapping[str, int],
    calls: Mapping[str, tuple[int, ...]],
) -> None:
    """Jump to the label of each of `calls` on another process, and of those that change a limit."""
    for name in (*calls, "prlimit64", "setrlimit"):
        asm.jump_if(BPF_JEQ_K, known[name], name)


def test_process_number(
    asm: Assembler,
    number: int,
    label: str,
    calls: Mapping[str, tuple[int, ...]],
) -> None:
    """Those of `calls` that act on process `number` jump to `label`, all others are allowed."""
    for name, indexes in calls.items():
        asm.label(name)
        if name in WHOLE_USER:
            asm.load(argument(0))
            asm.jump_if(BPF_JEQ_K, WHOLE_USER[name], label)
        for index in indexes:
            asm.load(argument(index))
            asm.jump_if(BPF_JEQ_K, number, label)
        asm.jump("allow")


def test_limits(asm: Assembler, number: int, *, init: str, core: str) -> None:
    """Limits of process `number` jump to `init`, changes of any core limit to `core`."""
    asm.label("prlimit64")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, number, init)
    asm.load(argument(1))
    asm.jump_if(BPF_JEQ_K, constants.RLIMIT_CORE, "prlimit64 of core")
    asm.jump("allow")
    asm.label("prlimit64 of core")
    # without a new limit prlimit(2) only reads the old one
    asm.jump_if_nonzero(2, core)
    asm.jump("allow")
    asm.label("setrlimit")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, constants.RLIMIT_CORE, core)
    asm.jump("allow")


def jump_from(asm: Assembler, known: Mapping[str, int], name: str, label: str) -> None:
    """Jump to `label` for call `name`, where this machine has it."""
    if name in known:
        asm.jump_if(BPF_JEQ_K, known[name], label)


def jump_from_each(
    asm: Assembler, known: Mapping[str, int], names: tuple[str, ...], label: str
) -> None:
    for name in names:
        jump_from(asm, known, name, label)


def _test_arguments(asm: Assembler, *, host_network: bool, track_sockets: bool) -> None:
    """Calls that are held or allowed by their arguments."""
    for name, index in (("open", 1), ("openat", 2)):
        asm.label(name)
        asm.load(argument(index))
        asm.jump_if(BPF_JSET_K, constants.O_WRITING, "hold")
        asm.jump("allow")
    # CLONE_NEWTIME lies in the low byte, which is the exit signal in the flags of clone(2)
    for name, flags in (
        ("clone", constants.CLONE_NEW_ANY),
        ("unshare", constants.CLONE_NEW_ANY | constants.CLONE_NEWTIME),
    ):
        asm.label(name)
        asm.load(argument(0))
        asm.jump_if(BPF_JSET_K, flags, "hold")
        asm.jump("allow")
    # resolvers bind a netlink socket for each lookup, which only chooses its port id (netlink(7))
    asm.label("bind")
    asm.load(argument(0))
    asm.jump_if(BPF_JGE_K, FIRST_NETLINK, "allow")
    asm.jump("hold")
    # with an address a datagram to anywhere; without one a write to a connected socket
    asm.label("sendto")
    asm.jump_if_nonzero(4, "hold")
    asm.label("netlink")
    asm.load(argument(0))
    asm.jump_if(BPF_JGE_K, FIRST_NETLINK, "hold")
    asm.jump("allow")
    # without a path it is futimens(3), of an open file
    asm.label("utimensat")
    asm.jump_if_nonzero(1, "hold")
    asm.jump("allow")
    # opening the file for writing was judged; these two bits are judged by their own
    asm.label("fchmod")
    asm.load(argument(1))
    asm.jump_if(BPF_JSET_K, stat.S_ISUID | stat.S_ISGID, "hold")
    asm.jump("allow")
    asm.label("socketpair")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, socket.AF_UNIX, "allow")
    asm.jump("hold")
    _test_sockets(asm, host_network=host_network, track_sockets=track_sockets)


def _test_sockets(asm: Assembler, *, host_network: bool, track_sockets: bool) -> None:
    """socket(2): unix sockets are allowed, of the internet's families TCP and UDP, and MPTCP in a
    network namespace.

    All others are held, netlink among them.
    """
    asm.label("socket")
    if track_sockets:
        asm.jump("hold")
    asm.load(argument(0))
    asm.jump_if(BPF_JEQ_K, socket.AF_UNIX, "allow")
    for family in _INTERNET:
        asm.jump_if(BPF_JEQ_K, family, "internet")
    asm.jump("hold")
    asm.label("internet")
    asm.load(argument(1))
    # the argument also has SOCK_NONBLOCK and SOCK_CLOEXEC (socket(2), since 2.6.27)
    asm.mask(constants.SOCK_TYPE_MASK)
    asm.jump_if(BPF_JEQ_K, socket.SOCK_STREAM, "stream")
    asm.jump_if(BPF_JEQ_K, socket.SOCK_DGRAM, "datagram")
    asm.jump("hold")
    streams = _STREAM_PROTOCOLS[:2] if host_network else _STREAM_PROTOCOLS
    for name, protocols in (("stream", streams), ("datagram", _DATAGRAM_PROTOCOLS)):
        asm.label(name)
        asm.load(argument(2))
        for protocol in protocols:
            asm.jump_if(BPF_JEQ_K, protocol, "allow")
        asm.jump("hold")


def _test_executable_memory(asm: Assembler) -> None:
    """Files that are mapped as code, and files in memory that may become code."""
    asm.label("mmap")
    asm.load(argument(2))
    asm.jump_if(BPF_JSET_K, mmap.PROT_EXEC, "mmap of code")
    asm.jump("allow")
    asm.label("mmap of code")
    asm.load(argument(3))
    # no file is mapped, so there is no path to judge
    asm.jump_if(BPF_JSET_K, mmap.MAP_ANONYMOUS, "allow")
    asm.jump("hold")
    asm.label("memfd_create")
    asm.load(argument(1))
    # since 6.3; older kernels answer EINVAL (memfd_create(2))
    asm.jump_if(BPF_JSET_K, constants.MFD_NOEXEC_SEAL, "allow")
    asm.jump("hold")
