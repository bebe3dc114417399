"""Thin wrappers over the Linux calls that the sandbox needs and Python does not have.

Each raises OSError with the errno and the call's name; its manual page has the call's name too.
Nothing here decides anything; standard library only, safe after fork.
Flag words are made of `constants`.
Importing this works on every Unix, calling it only on Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Mapping

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.syscall_numbers import number

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

_SYSINFO_BYTES = 112
_Argument = int | bytes | None | ctypes.Array[ctypes.c_char]


def _call(name: str, *arguments: _Argument) -> int:
    """Make the system call `name`.

    Raises:
        OSError: it failed.
    """
    # ctypes would cut an int to 32 bits; a system call's argument is a full word.
    words = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    result = int(libc.syscall(ctypes.c_long(number(name)), *words))
    if result < 0:
        raise failure(name)
    return result


def failure(what: str) -> OSError:
    """The OSError of the libc call that has just failed."""
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


def kernel_version() -> tuple[int, int]:
    """Major and minor of the running kernel."""
    head = os.uname().release.split("-")[0].split("+")[0].split(".")
    return int(head[0]), int(head[1])


# --- namespaces and mounts


def unshare(flags: int) -> None:
    # CLONE_NEWUSER is EINVAL in a process with more than one thread.
    # CLONE_NEWPID applies to later children only.
    _call("unshare", flags)


def setns(descriptor: int, flags: int = 0) -> None:
    # EINVAL for a namespace of another kind than `flags` says.
    _call("setns", descriptor, flags)


def mount(
    source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None
) -> None:
    """mount(2). The error names the target, since one start makes dozens."""
    encoded = [
        os.fsencode(text) if text is not None else None for text in (source, target, kind, data)
    ]
    try:
        _call("mount", encoded[0], encoded[1], encoded[2], flags, encoded[3])
    except OSError as error:
        raise OSError(
            error.errno,
            f"mount {kind or ''} {source or ''}: {os.strerror(error.errno or 0)}",
            target,
        ) from None


def umount2(target: str, flags: int = 0) -> None:
    _call("umount2", os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    _call("pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def open_tree(directory: int, path: str, flags: int) -> int:
    return _call("open_tree", directory, os.fsencode(path), flags)


def move_mount(
    from_directory: int, from_path: str, to_directory: int, to_path: str, flags: int
) -> None:
    _call(
        "move_mount",
        from_directory,
        os.fsencode(from_path),
        to_directory,
        os.fsencode(to_path),
        flags,
    )


def mount_setattr(
    directory: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clear: int = 0,
    propagation: int = 0,
    user_namespace: int = 0,
) -> None:
    """mount_setattr(2), since 5.12.

    With MOUNT_ATTR_IDMAP, the id map of the descriptor `user_namespace` applies.
    """
    # struct mount_attr; its size goes along, so that later kernels can make it longer.
    attributes = struct.pack("=QQQQ", attr_set, attr_clear, propagation, user_namespace)
    _call("mount_setattr", directory, os.fsencode(path), flags, attributes, len(attributes))


def fsopen(kind: str) -> int:
    return _call("fsopen", kind.encode(), constants.FSOPEN_CLOEXEC)


def fsconfig_string(context: int, key: str, value: str) -> None:
    _call("fsconfig", context, constants.FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_flag(context: int, key: str) -> None:
    _call("fsconfig", context, constants.FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsconfig_create(context: int) -> None:
    _call("fsconfig", context, constants.FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    """A descriptor of the mount that `context` makes, for `move_mount`."""
    # EBUSY for a second mount of one context.
    return _call("fsmount", context, constants.FSMOUNT_CLOEXEC, attributes)


def openat2(directory: int, path: str | bytes, flags: int, resolve: int = 0, mode: int = 0) -> int:
    # struct open_how. EINVAL for unknown bits, which openat(2) ignores.
    # A mode without O_CREAT or O_TMPFILE is EINVAL too.
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _call("openat2", directory, os.fsencode(path), how, len(how))


def sethostname(name: str) -> None:
    encoded = name.encode()
    _call("sethostname", encoded, len(encoded))


# --- processes


def prctl(option: int, *arguments: int) -> int:
    """prctl(2) with the rest of its five arguments zero."""
    # EINVAL for some options unless the arguments that they do not use are zero.
    return _call("prctl", option, *(arguments + (0,) * (4 - len(arguments))))


def set_parent_death_signal(signal_number: int) -> None:
    """Signal this process when the *thread* that made it ends.

    A later credential change clears it.
    """
    prctl(constants.PR_SET_PDEATHSIG, signal_number)


def set_no_new_privileges() -> None:
    # The condition under which Landlock and seccomp filters need no CAP_SYS_ADMIN.
    prctl(constants.PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    # execve(2) sets it anew, as the new program's mode and credentials have it.
    prctl(constants.PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    prctl(constants.PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """Set the name that ps shows as comm; the kernel cuts it at 15 bytes."""
    _call("prctl", constants.PR_SET_NAME, name.encode() + b"\0", 0, 0, 0)


def set_command_line(text: str) -> None:
    """Change what /proc shows as this process's command line, and empty its first variables.

    The text is cut to the length of the old one. proc(5): the kernel reads both from this process's
    memory, where a fork has those of its parent.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # proc_pid_stat(5): fields 48 to 51, arg_start to env_end, 0 without the right to trace.
    words, words_end, variables, variables_end = map(int, fields[45:49])
    for start, end in ((words, words_end), (variables, variables_end)):
        ctypes.memset(start, 0, end - start)
    shown = text.encode()[: max(0, words_end - words - 1)]
    ctypes.memmove(words, shown, len(shown))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets; see capabilities(7)."""
    low, high = 0xFFFFFFFF, 32
    # Pid 0 is the calling thread: capabilities are a thread's, not a process's.
    header = struct.pack("=Ii", constants.LINUX_CAPABILITY_VERSION_3, 0)
    # Version 3 has 64-bit sets in two structs, the low words of all three sets first.
    words = (
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    _call("capset", header, struct.pack("=6I", *words))


def capget() -> tuple[int, int, int]:
    """This thread's effective, permitted and inheritable sets."""
    data = ctypes.create_string_buffer(24)
    _call("capget", struct.pack("=Ii", constants.LINUX_CAPABILITY_VERSION_3, 0), data)
    words = struct.unpack("=6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def close_range(first: int, last: int = 0x7FFFFFFF, flags: int = 0) -> None:
    """Close all descriptors from `first` to `last`; one by one before 5.9."""
    try:
        _call("close_range", first, last, flags)
    except OSError as error:
        # What the flags do cannot be done one by one.
        if error.errno != errno.ENOSYS or flags:
            raise
        os.closerange(first, min(last, os.sysconf("SC_OPEN_MAX")))


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A descriptor for the process, close-on-exec; readable when it has ended.

    With PIDFD_THREAD for one thread (Linux 6.9; else EINVAL).
    """
    # Since 5.3; ESRCH once the process was reaped.
    return _call("pidfd_open", pid, flags)


def pidfd_send_signal(descriptor: int, signal_number: int) -> None:
    # Since 5.1; without siginfo it is sent as kill(2) sends it.
    _call("pidfd_send_signal", descriptor, signal_number, None, 0)


class _Iovec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


# Most paths end within _PEEK bytes. process_vm_readv(2) reads nothing of an iovec that touches a
# page which is not mapped, so one read never goes beyond a page.
_PAGE, _PEEK = 4096, 256
_peeked = ctypes.create_string_buffer(_PEEK)
# Made once: a call is made for each file that a program opens to write.
_here, _there = _Iovec(ctypes.addressof(_peeked), _PEEK), _Iovec()
_AT_HERE, _AT_THERE = (
    ctypes.c_void_p(ctypes.addressof(_here)),
    ctypes.c_void_p(ctypes.addressof(_there)),
)
_ONE, _NO_FLAGS = ctypes.c_ulong(1), ctypes.c_ulong(0)


def peek(pid: int, address: int) -> bytes | None:
    """Read the text at `address` of another process's memory in one call.

    None where it is long, continues in the next page, or may not be read.
    Not thread-safe: the buffer is shared.
    """
    _here.length = _there.length = min(_PEEK, _PAGE - address % _PAGE)
    _there.address = address
    read: int = libc.process_vm_readv(pid, _AT_HERE, _ONE, _AT_THERE, _ONE, _NO_FLAGS)
    # Up to the first NUL, which may be one of an earlier text.
    text = _peeked.value
    return text if len(text) < read else None


def pidfd_getfd(descriptor: int, foreign: int) -> int:
    # Since 5.6; EPERM without the right to trace the process (PTRACE_MODE_ATTACH_REALCREDS).
    return _call("pidfd_getfd", descriptor, foreign, 0)


def bind(descriptor: int, address: bytes) -> None:
    """bind(2) with the address as the kernel takes it."""
    _call("bind", descriptor, address, len(address))


def connect(descriptor: int, address: bytes) -> None:
    """connect(2) with the address as the kernel takes it."""
    _call("connect", descriptor, address, len(address))


def sendmsg(
    descriptor: int, payload: bytes, flags: int, address: bytes = b"", control: bytes = b""
) -> int:
    """sendmsg(2) with address and ancillary data as the kernel takes them; how many bytes went."""
    body, beside = (
        ctypes.create_string_buffer(payload, len(payload)),
        ctypes.create_string_buffer(control, len(control)),
    )
    name = ctypes.create_string_buffer(address, len(address))
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(body), len(payload)))
    header = struct.pack(
        "=QI4xQQQQi4x",
        ctypes.addressof(name) if address else 0,
        len(address),
        ctypes.addressof(vector),
        1,
        ctypes.addressof(beside) if control else 0,
        len(control),
        0,
    )
    # sendmsg(2) is EMSGSIZE for a datagram that the socket cannot take in one piece.
    return _call("sendmsg", descriptor, header, flags)


def sysinfo() -> bytes:
    """The struct sysinfo of the machine (sysinfo(2))."""
    found = ctypes.create_string_buffer(_SYSINFO_BYTES)
    _call("sysinfo", found)
    return found.raw


def memfd(name: str, flags: int = constants.MFD_CLOEXEC) -> int:
    return _call("memfd_create", name.encode(), flags)


def set_limits(limits: Mapping[int, int]) -> None:
    """Set soft and hard limits, each at most the present hard limit.

    setrlimit(2): an ordinary user cannot raise a hard limit.
    """
    for kind, wanted in limits.items():
        _soft, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


# --- security


def seccomp(operation: int, flags: int, argument: bytes | None) -> int:
    # EACCES without PR_SET_NO_NEW_PRIVS or CAP_SYS_ADMIN.
    return _call("seccomp", operation, flags, argument)


def landlock_abi() -> int:
    """The Landlock ABI version; 0 where there is none."""
    try:
        # ENOSYS where it was not built in, EOPNOTSUPP where it is off at boot.
        return _call("landlock_create_ruleset", None, 0, constants.LANDLOCK_CREATE_RULESET_VERSION)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    return _call("landlock_create_ruleset", attributes, len(attributes), 0)


def landlock_add_path(ruleset: int, descriptor: int, access: int) -> None:
    # struct landlock_path_beneath_attr is packed: 12 bytes. ENOMSG for a rule without any right.
    rule = struct.pack("=Qi", access, descriptor)
    _call("landlock_add_rule", ruleset, constants.LANDLOCK_RULE_PATH_BENEATH, rule, 0)


def landlock_restrict_self(ruleset: int, flags: int = 0) -> None:
    # EPERM without PR_SET_NO_NEW_PRIVS or CAP_SYS_ADMIN, E2BIG where too many are stacked.
    _call("landlock_restrict_self", ruleset, flags)
