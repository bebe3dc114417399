"""The system call filter of an environment: a table per level, assembled to BPF,
installed with a listener.

What a filter says is of three kinds: allow; hold, so that the warden's recorder decides and names
it (`sandbox/seccomp_notify/recorder.py`); answer ENOSYS,
for what ordinary runtimes try and do without.
The kernel's namespaces, mounts and Landlock enforce whatever a held call that continues could do.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import socket
import stat
import struct
import threading
from collections.abc import Mapping

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, numbers

# Refused and attributed at every level: they reach beyond the environment, or widen what it can do.
DENIED = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
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

# Changes by path.
# Those of an open file need no look: whoever opened it for writing was looked at then.
CHANGING = (
    "creat",
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

# They act on whoever's number they are given, by which argument that is. Held where it is pid 1's.
ON_INIT: dict[str, tuple[int, ...]] = {
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
# The first argument of these says of whom the second is the number; this one means a whole user.
OF_USER = {"setpriority": 2, "ioprio_set": 3}  # PRIO_USER, IOPRIO_WHO_USER

# Held from Medium on: what is started, since /dev/shm is mounted without that right.
# It costs a hundredth of starting a program.
STARTING = ("execve", "execveat")

# Held at High too: what is read, what becomes a program, and where somebody listens.
# A file in memory that may not be executed is nobody's program.
LISTED = ("open", "openat", "memfd_create", "mmap", "bind", "listen")

# Where sockets to the kernel's networking are put: sends on them name no address,
# so they are told from all others by their number.
FIRST_NETLINK = 960
WRITING = ("write", "writev")

# Held where the network is shared with the host: no namespace keeps what listens to itself.
WAITING = ("bind", "listen")

SENDING = ("connect", "sendmsg", "sendmmsg")

# Their arguments lie in memory where a filter cannot look,
# and every runtime falls back when they are missing.
ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "openat2")

LOAD, AND, EQUAL, AT_LEAST, ANY_BIT, JUMP, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x05, 0x06
ALLOW, HOLD, AND_ERRNO, KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
NUMBER, ARCH = 0, 4  # offsets in struct seccomp_data
X32 = 0x40000000

_FAMILIES = (socket.AF_INET, getattr(socket, "AF_INET6", 10))
_STREAMS, _DATAGRAMS = (0, socket.IPPROTO_TCP, constants.IPPROTO_MPTCP), (0, socket.IPPROTO_UDP)


class Assembler:
    """BPF with named places.

    Each test is followed by a long jump, so that no distance is too far for the 8 bits a test has.
    """

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int, str]] = []
        self._places: dict[str, int] = {}

    def place(self, name: str) -> None:
        self._places[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((LOAD, 0, 0, offset, ""))

    def mask(self, bits: int) -> None:
        self._code.append((AND, 0, 0, bits, ""))

    def when(self, test: int, value: int, to: str) -> None:
        """Go to `to` if the loaded word passes `test` against `value`."""
        self._code.append((test, 0, 1, value, ""))
        self.go(to)

    def go(self, to: str) -> None:
        self._code.append((JUMP, 0, 0, 0, to))

    def answer(self, action: int) -> None:
        self._code.append((RETURN, 0, 0, action, ""))

    def program(self) -> bytes:
        """The instructions as the kernel takes them, 8 bytes each."""
        packed = []
        for index, (code, true, false, value, to) in enumerate(self._code):
            packed.append(
                struct.pack(
                    "=HBBI", code, true, false, self._places[to] - index - 1 if to else value
                )
            )
        return b"".join(packed)


def medium_filter(machine: str) -> bytes:
    """The program of level Medium for `machine`, one of `syscall_numbers.MACHINES`."""
    # in these words, under which the result is remembered
    return phase_filter(machine, listed=False, starting=True, shared=False)


def high_filter(machine: str) -> bytes:
    """The program of level High: reading, starting programs and listening are held too."""
    return phase_filter(machine, listed=True, starting=True, shared=False)


@functools.cache
def phase_filter(
    machine: str,
    *,
    listed: bool = False,
    starting: bool = True,
    shared: bool = False,
    keep: bool = False,
) -> bytes:
    """The program for phases.

    `listed`: from level High on; `starting`: from Medium on; `shared`:
    on the host's network; `keep`: where sockets are made on the caller's behalf.
    """
    known = numbers(machine)
    asm = Assembler()
    asm.load(ARCH)
    asm.when(EQUAL, AUDIT_ARCH[machine], "ours")
    asm.answer(HOLD)  # a foreign ABI: the recorder answers ENOSYS and names it
    asm.place("ours")
    asm.load(NUMBER)
    if machine == "x86_64":
        asm.when(AT_LEAST, X32, "hold")
    for name in (
        *(LISTED if listed else ()),
        *(WAITING if shared and not listed else ()),
        *(STARTING if starting else ()),
    ):
        if name in known:
            asm.when(
                EQUAL, known[name], {"memfd_create": "memfd", "mmap": "mmap"}.get(name, "hold")
            )
    deciding = ("open", "openat", "socket", "socketpair", "sendto", "clone", "unshare")
    for name in (*deciding, "utimensat", "fchmod"):
        if name in known:
            asm.when(EQUAL, known[name], name)
    held = (*SENDING, *CHANGING, *DENIED, "pidfd_send_signal")
    for names, to in ((WRITING, "netlink"), (held, "hold"), (ABSENT, "absent")):
        for name in names:
            if name in known:
                asm.when(EQUAL, known[name], to)
    if not (listed or shared):
        asm.when(EQUAL, known["bind"], "bind")
    acting_on_init(asm, known)
    asm.answer(ALLOW)
    _by_arguments(asm, shared=shared, keep=keep)
    on_init(asm, known, 1, "hold")
    on_limits(asm, 1, init="hold", core="hold")
    asm.place("mmap")
    asm.load(argument(2))
    asm.when(ANY_BIT, mmap.PROT_EXEC, "mapped")
    asm.go("allow")
    asm.place("mapped")
    asm.load(argument(3))
    asm.when(ANY_BIT, mmap.MAP_ANONYMOUS, "allow")
    asm.go("hold")
    asm.place("memfd")
    asm.load(argument(1))
    asm.when(ANY_BIT, constants.MFD_NOEXEC_SEAL, "allow")
    asm.place("hold")
    asm.answer(HOLD)
    asm.place("allow")
    asm.answer(ALLOW)
    asm.place("absent")
    asm.answer(AND_ERRNO | errno.ENOSYS)
    return asm.program()


@functools.cache
def service_filter(machine: str) -> bytes:
    """The program for services: the same refusals, answered by the kernel itself.

    Nothing is held, so nothing slows a server down.
    """
    known = numbers(machine)
    asm = Assembler()
    asm.load(ARCH)
    asm.when(EQUAL, AUDIT_ARCH[machine], "ours")
    asm.answer(KILL)
    asm.place("ours")
    asm.load(NUMBER)
    if machine == "x86_64":
        asm.when(AT_LEAST, X32, "absent")
    for names, to in ((DENIED, "denied"), (ABSENT, "absent")):
        for name in names:
            if name in known:
                asm.when(EQUAL, known[name], to)
    acting_on_init(asm, known)
    asm.answer(ALLOW)
    on_init(asm, known, 1, "denied")
    on_limits(asm, 1, init="denied", core="core")
    asm.place("core")
    # who asks wants no core file, and none is written: said to be done
    asm.answer(AND_ERRNO)
    asm.place("allow")
    asm.answer(ALLOW)
    asm.place("denied")
    asm.answer(AND_ERRNO | errno.EPERM)
    asm.place("absent")
    asm.answer(AND_ERRNO | errno.ENOSYS)
    return asm.program()


def acting_on_init(asm: Assembler, known: Mapping[str, int]) -> None:
    """Go to the place of each call that may act on another process, or change a limit."""
    for name in (*ON_INIT, "prlimit64", "setrlimit"):
        asm.when(EQUAL, known[name], name)


def on_init(asm: Assembler, known: Mapping[str, int], number: int, to: str) -> None:
    """Those that act on process `number` go to `to`, all others are allowed."""
    for name, indexes in ON_INIT.items():
        asm.place(name)
        if name in OF_USER:
            asm.load(argument(0))
            asm.when(EQUAL, OF_USER[name], to)
        for index in indexes:
            asm.load(argument(index))
            asm.when(EQUAL, number, to)
        asm.go("allow")


def on_limits(asm: Assembler, number: int, *, init: str, core: str) -> None:
    """Limits of process `number` go to `init`, changes of anyone's core limit to `core`."""
    asm.place("prlimit64")
    asm.load(argument(0))
    asm.when(EQUAL, number, init)
    asm.load(argument(1))
    asm.when(EQUAL, constants.RLIMIT_CORE, "prlimit64 of core")
    asm.go("allow")
    asm.place("prlimit64 of core")
    for half in (0, 4):
        asm.load(argument(2) + half)
        asm.when(ANY_BIT, 0xFFFFFFFF, core)
    asm.go("allow")
    asm.place("setrlimit")
    asm.load(argument(0))
    asm.when(EQUAL, constants.RLIMIT_CORE, core)
    asm.go("allow")


def _by_arguments(asm: Assembler, *, shared: bool, keep: bool) -> None:
    """The calls whose arguments decide."""
    for name, index in (("open", 1), ("openat", 2)):
        asm.place(name)
        asm.load(argument(index))
        asm.when(ANY_BIT, constants.O_WRITING, "hold")
        asm.go("allow")
    for name in ("clone", "unshare"):
        asm.place(name)
        asm.load(argument(0))
        # the low byte of clone's flags is a signal, so the time namespace's bit there means nothing
        asm.when(
            ANY_BIT,
            constants.CLONE_NEW_ANY | (constants.CLONE_NEWTIME if name == "unshare" else 0),
            "hold",
        )
        asm.go("allow")
    asm.place("bind")  # of netlink sockets it chooses a number, for every question about a name
    asm.load(argument(0))
    asm.when(AT_LEAST, FIRST_NETLINK, "allow")
    asm.go("hold")
    asm.place("sendto")
    # an address makes it a datagram to somewhere; without one it is a write to a connected socket
    for half in (0, 4):
        asm.load(argument(4) + half)
        asm.when(ANY_BIT, 0xFFFFFFFF, "hold")
    asm.place("netlink")
    asm.load(argument(0))
    asm.when(AT_LEAST, FIRST_NETLINK, "hold")
    asm.go("allow")
    asm.place("utimensat")
    for half in (0, 4):  # without a path it is futimens: of an open file, as fchmod and fchown are
        asm.load(argument(1) + half)
        asm.when(ANY_BIT, 0xFFFFFFFF, "hold")
    asm.go("allow")
    asm.place("fchmod")  # of an open file, which was looked at when it was opened for writing
    asm.load(argument(1))
    asm.when(ANY_BIT, stat.S_ISUID | stat.S_ISGID, "hold")
    asm.go("allow")
    asm.place("socketpair")
    asm.load(argument(0))
    asm.when(EQUAL, socket.AF_UNIX, "allow")
    asm.go("hold")
    _sockets(asm, shared=shared, keep=keep)


def _sockets(asm: Assembler, *, shared: bool, keep: bool) -> None:
    """socket(): unix freely, the internet's families as TCP, UDP or, in a network of one's own,
    MPTCP; netlink is put in its place; nothing else.
    """
    asm.place("socket")
    if keep:
        asm.go("hold")
    asm.load(argument(0))
    asm.when(EQUAL, socket.AF_UNIX, "allow")
    for family in _FAMILIES:
        asm.when(EQUAL, family, "internet")
    asm.go("hold")
    asm.place("internet")
    asm.load(argument(1))
    asm.mask(0xF)  # the rest is SOCK_CLOEXEC and SOCK_NONBLOCK
    asm.when(EQUAL, socket.SOCK_STREAM, "stream")
    asm.when(EQUAL, socket.SOCK_DGRAM, "datagram")
    asm.go("hold")
    for name, protocols in (
        ("stream", _STREAMS[:2] if shared else _STREAMS),
        ("datagram", _DATAGRAMS),
    ):
        asm.place(name)
        asm.load(argument(2))
        for protocol in protocols:
            asm.when(EQUAL, protocol, "allow")
        asm.go("hold")


def argument(index: int) -> int:
    """Offset of the low half of an argument; both machines are little-endian."""
    return 16 + 8 * index


def install(program: bytes, *, listener: bool) -> int | None:
    """Install `program` for the calling thread and all it starts;
    the listener's descriptor if asked for one.

    Raises:
        OSError: EBUSY where a filter with a listener is there already.
    """
    syscalls.set_no_new_privileges()
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    if not listener:
        syscalls.seccomp(constants.SECCOMP_SET_MODE_FILTER, 0, descriptor)
        return None
    wanted = constants.SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        return syscalls.seccomp(
            constants.SECCOMP_SET_MODE_FILTER,
            wanted | constants.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            descriptor,
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # before Linux 5.19
    return syscalls.seccomp(constants.SECCOMP_SET_MODE_FILTER, wanted, descriptor)


def install_and_send(program: bytes, channel: socket.socket) -> None:
    """Install `program` and send its listener over `channel` with the byte b"L".

    The filter holds sendmsg, so a thread does the sending:
    it starts before, so the filter is not its own, and shares our descriptors.
    """
    handed: list[int] = []
    failures: list[OSError] = []
    installed = threading.Event()

    def send() -> None:
        installed.wait()
        try:
            if handed:
                socket.send_fds(channel, [b"L"], handed)
        except OSError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        listener = install(program, listener=True)
        assert listener is not None
        handed.append(listener)
    finally:
        installed.set()
        sender.join()
    os.close(listener)
    if failures:
        raise failures[0]
