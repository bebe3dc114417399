"""Performs changes of modes, owners, times and attributes where no read-only mount refuses them.

Landlock does not cover metadata (landlock(7), CAVEATS).
The file is opened with O_PATH and judged by the path of that descriptor; the change is performed on
the descriptor, so that no other file can take its place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.kernel.syscall_numbers import number
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules, is_system_cache

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

_RULE = "filesystem.metadata"
# file capabilities: privileges that a program has by itself (capabilities(7))
_CAPABILITY_ATTRIBUTE = b"security.capability"
_MODE_BITS = 0o7777
# XATTR_CREATE and XATTR_REPLACE
_XATTR_FLAGS = 3

_Change = Callable[[int, Caller, tuple[int, ...]], None]


class _FileArgument(NamedTuple):
    """Indexes of the arguments that name a call's file."""

    # index of the descriptor; None: the working directory
    directory: int | None
    # index of the path; None: the descriptor itself
    path: int | None
    # index of the AT_ flags
    flags: int | None = None
    follow: bool = True


_FILE_ARGUMENTS = {
    "chmod": _FileArgument(None, 0),
    "fchmodat": _FileArgument(0, 1),
    "fchmodat2": _FileArgument(0, 1, 3),
    "fchmod": _FileArgument(0, None),
    "chown": _FileArgument(None, 0),
    "lchown": _FileArgument(None, 0, follow=False),
    "fchownat": _FileArgument(0, 1, 4),
    "fchown": _FileArgument(0, None),
    "utime": _FileArgument(None, 0),
    "utimes": _FileArgument(None, 0),
    "futimesat": _FileArgument(0, 1),
    "utimensat": _FileArgument(0, 1, 3),
    "setxattr": _FileArgument(None, 0),
    "lsetxattr": _FileArgument(None, 0, follow=False),
    "fsetxattr": _FileArgument(0, None),
    "removexattr": _FileArgument(None, 0),
    "lremovexattr": _FileArgument(None, 0, follow=False),
    "fremovexattr": _FileArgument(0, None),
}
NAMES = frozenset(_FILE_ARGUMENTS)
# newer ones that every C library does without
UNKNOWN = ("setxattrat", "removexattrat", "file_setattr")


class Metadata:
    """Judges and performs the changes of one environment."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def judge(self, call: HeldCall) -> Response:
        caller, name, arguments = call.caller, call.name, call.arguments
        try:
            handle = _open(call)
        except OSError as error:
            return Response(error.errno or errno.ENOENT)
        try:
            # the kernel writes " (deleted)" behind the path of a file without a name (proc(5))
            path = os.readlink(_link(handle)).removesuffix(" (deleted)")
            has_path = path.startswith("/") and not path.startswith("/memfd:")
            if has_path and not self._rules.may_write(path):
                # programs change terminals and null devices on every machine
                usual = path.startswith("/dev/") or is_system_cache(path)
                tags = ("probe",) if usual else ()
                target: Target = {"path": shown(path)}
                return Response(errno.EPERM, _RULE, target, tags, recorder_only=True)
            if (
                name.endswith("setxattr")
                and _attribute(caller, arguments[1]) == _CAPABILITY_ATTRIBUTE
            ):
                return Response(errno.EPERM, _RULE, {"path": shown(path)}, recorder_only=True)
            _CHANGES[name](handle, caller, arguments)
        except OSError as error:
            return Response(error.errno or errno.EPERM)
        finally:
            os.close(handle)
        return Response(0)


def _open(call: HeldCall) -> int:
    """An O_PATH descriptor of the file."""
    argument, caller, arguments = _FILE_ARGUMENTS[call.name], call.caller, call.arguments
    flags = arguments[argument.flags] if argument.flags is not None else 0
    follow = argument.follow and not flags & constants.AT_SYMLINK_NOFOLLOW
    directory = constants.AT_FDCWD_U32
    if argument.directory is not None:
        directory = arguments[argument.directory] & constants.UINT_MAX
    address = arguments[argument.path] if argument.path is not None else 0
    path = caller.string(address) if address else ""
    if path is None:
        raise OSError(errno.ENAMETOOLONG, "too long")
    if not path:
        return caller.handle("cwd" if directory == constants.AT_FDCWD_U32 else f"fd/{directory}")
    if not path.startswith("/"):
        base = caller.base(directory)
        path = f"{base}/{path}" if base else path
    # O_PATH needs no permission on the file itself, and opens no device (open(2))
    open_flags = constants.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    return os.open(_of_caller(caller, path), open_flags)


def _of_caller(caller: Caller, path: str) -> str:
    """The path with the caller's process in place of /proc/self, which would be ours.

    A symbolic link that leads there reaches a file that is judged like any other.
    """
    # resolved here, /proc/self is the recorder
    process = f"/proc/{caller.group}"
    for prefix, replacement in (
        ("/proc/self/", f"{process}/"),
        ("/proc/thread-self/", f"{process}/task/{caller.pid}/"),
        ("/dev/fd/", f"{process}/fd/"),
    ):
        if path.startswith(prefix):
            return replacement + path[len(prefix) :]
    return path


def _link(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _change_mode(index: int) -> _Change:
    def change(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        # fchmod(2) refuses an O_PATH descriptor; its link in /proc does not
        os.chmod(_link(handle), arguments[index] & _MODE_BITS)

    return change


def _change_owner(index: int) -> _Change:
    def change(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        user, group = (value & constants.UINT_MAX for value in arguments[index : index + 2])
        # fchown(2) refuses an O_PATH descriptor; AT_EMPTY_PATH takes it, since Linux 2.6.39
        _call("fchownat", handle, b"", user, group, constants.AT_EMPTY_PATH)

    return change


def _change_times(index: int, form: str, scale: int) -> _Change:
    """`form`: struct of two times in memory. `scale`: nanoseconds of the second number of each, 0
    where there is none.
    """

    def change(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        times = b""
        if arguments[index]:
            words = struct.unpack(form, caller.memory(arguments[index], struct.calcsize(form)))
            accessed, modified = (words[:2], words[2:]) if scale else ((words[0], 0), (words[1], 0))
            times = struct.pack(
                "=4q", accessed[0], accessed[1] * scale, modified[0], modified[1] * scale
            )
        # without times both become the present (utimensat(2))
        # AT_EMPTY_PATH is known to utimensat(2) since Linux 5.8
        _call("utimensat", handle, b"", times or None, constants.AT_EMPTY_PATH)

    return change


def _set_attribute(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
    # as setxattr(2) answers a value that is too long
    if arguments[3] > constants.XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, "too long")
    value = caller.memory(arguments[2], arguments[3]) if arguments[3] else b""
    name = _attribute(caller, arguments[1])
    os.setxattr(_link(handle), name, value, arguments[4] & _XATTR_FLAGS)


def _remove_attribute(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
    os.removexattr(_link(handle), _attribute(caller, arguments[1]))


def _attribute(caller: Caller, address: int) -> bytes:
    name = caller.memory(address, constants.XATTR_NAME_MAX + 1).split(b"\0")[0]
    # as setxattr(2) answers an empty name
    if not name:
        raise OSError(errno.ERANGE, "no name")
    return name


def _call(name: str, *arguments: int | bytes | None) -> None:
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if syscalls.libc.syscall(ctypes.c_long(number(name)), *words) < 0:
        raise syscalls.failure(name)


_CHANGES: dict[str, _Change] = {
    "chmod": _change_mode(1),
    "fchmod": _change_mode(1),
    "fchmodat": _change_mode(2),
    "fchmodat2": _change_mode(2),
    "chown": _change_owner(1),
    "lchown": _change_owner(1),
    "fchown": _change_owner(1),
    "fchownat": _change_owner(2),
    "utime": _change_times(1, "=2q", 0),
    "utimes": _change_times(1, "=4q", 1000),
    "futimesat": _change_times(2, "=4q", 1000),
    "utimensat": _change_times(2, "=4q", 1),
    "setxattr": _set_attribute,
    "lsetxattr": _set_attribute,
    "fsetxattr": _set_attribute,
    "removexattr": _remove_attribute,
    "lremovexattr": _remove_attribute,
    "fremovexattr": _remove_attribute,
}
