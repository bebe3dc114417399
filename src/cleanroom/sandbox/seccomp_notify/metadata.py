"""Changing modes, owners, times and attributes on the caller's behalf,
where no read-only mount refuses: Landlock does not cover them.

The file is opened without any right first and looked at then;
what is done is done to that very file, so that nobody can put another one in its place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.kernel.syscall_numbers import number
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

_RULE = "filesystem.metadata"
_CAPABILITY = b"security.capability"  # a program's own privileges

# name: index of the folder's descriptor (None: the working directory), index of the path (None:
# the descriptor itself), index of the flags; follows links
_PLACES: dict[str, tuple[int | None, int | None, int | None, bool]] = {
    "chmod": (None, 0, None, True),
    "fchmodat": (0, 1, None, True),
    "fchmodat2": (0, 1, 3, True),
    "fchmod": (0, None, None, True),
    "chown": (None, 0, None, True),
    "lchown": (None, 0, None, False),
    "fchownat": (0, 1, 4, True),
    "fchown": (0, None, None, True),
    "utime": (None, 0, None, True),
    "utimes": (None, 0, None, True),
    "futimesat": (0, 1, None, True),
    "utimensat": (0, 1, 3, True),
    "setxattr": (None, 0, None, True),
    "lsetxattr": (None, 0, None, False),
    "fsetxattr": (0, None, None, True),
    "removexattr": (None, 0, None, True),
    "lremovexattr": (None, 0, None, False),
    "fremovexattr": (0, None, None, True),
}
NAMES = frozenset(_PLACES)
# newer ones that every C library does without
UNKNOWN = ("setxattrat", "removexattrat", "file_setattr")


class Metadata:
    """Judges and does."""

    def __init__(self, rules: Rules, files: Files) -> None:
        self._rules, self._files = rules, files

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response:
        directory, path, flags_at, follow = _PLACES[name]
        flags = arguments[flags_at] if flags_at is not None else 0
        folder = arguments[directory] if directory is not None else constants.AT_FDCWD
        address = arguments[path] if path is not None else 0
        try:
            handle = self._handle(
                caller, folder, address, follow=follow and not flags & constants.AT_SYMLINK_NOFOLLOW
            )
        except OSError as error:
            return Response(error.errno or errno.ENOENT)
        try:
            found = os.readlink(f"/proc/self/fd/{handle}").removesuffix(" (deleted)")
            if (
                found.startswith("/")
                and not found.startswith("/memfd:")
                and not self._rules.may_write(found)
            ):
                return Response(
                    errno.EPERM, _RULE, {"path": shown(found)}, _habits(found), alone=True
                )
            if name.endswith("setxattr") and _attribute(caller, arguments[1]) == _CAPABILITY:
                return Response(errno.EPERM, _RULE, {"path": shown(found)}, alone=True)
            _ACTS[name](handle, caller, arguments)
        except OSError as error:
            return Response(error.errno or errno.EPERM)
        finally:
            os.close(handle)
        return Response(0)

    def _handle(self, caller: Caller, folder: int, address: int, *, follow: bool) -> int:
        """The file that is meant, opened without a right to it."""
        path = caller.string(address) if address else ""
        if path is None:
            raise OSError(errno.ENAMETOOLONG, "too long")
        base = caller.base(folder) if not path.startswith("/") else ""
        if not path:
            return caller.handle(
                "cwd"
                if folder & constants.UINT_MAX == constants.AT_FDCWD_U32
                else f"fd/{folder & constants.UINT_MAX}"
            )
        whole = _for(caller, path if not base else f"{base}/{path}")
        return os.open(whole, constants.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


def _for(caller: Caller, path: str) -> str:
    """The path without what would lead to our own process instead of the caller's.

    A link that does lands on a file that is judged like any other.
    """
    own = f"/proc/{caller.group}"
    for said, meant in (
        ("/proc/self/", f"{own}/"),
        ("/proc/thread-self/", f"{own}/task/{caller.pid}/"),
        ("/dev/fd/", f"{own}/fd/"),
    ):
        if path.startswith(said):
            return meant + path[len(said) :]
    return path


def _habits(path: str) -> tuple[str, ...]:
    # a terminal or a null device that is made one's own, as on every machine
    return ("probe",) if path.startswith("/dev/") else ()


def _place(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _mode(index: int) -> Callable[[int, Caller, tuple[int, ...]], None]:
    def act(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        os.chmod(_place(handle), arguments[index] & 0o7777)

    return act


def _owner(index: int) -> Callable[[int, Caller, tuple[int, ...]], None]:
    def act(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        user, group = (value & constants.UINT_MAX for value in arguments[index : index + 2])
        _checked("fchownat", handle, b"", user, group, constants.AT_EMPTY_PATH)

    return act


def _times(index: int, form: str, scale: int) -> Callable[[int, Caller, tuple[int, ...]], None]:
    """`form`: how two times lie in memory; `scale`: nanoseconds of the second number of each,
    0 where there is none.
    """

    def act(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
        told = b""
        if arguments[index]:
            words = struct.unpack(form, caller.memory(arguments[index], struct.calcsize(form)))
            pairs = words if scale else (words[0], 0, words[1], 0)
            told = struct.pack(
                "=4q",
                pairs[0],
                pairs[1] * scale if scale else 0,
                pairs[2],
                pairs[3] * scale if scale else 0,
            )
        _checked("utimensat", handle, b"", told or None, constants.AT_EMPTY_PATH)

    return act


def _set_attribute(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
    if arguments[3] > constants.XATTR_SIZE_MAX:
        raise OSError(errno.E2BIG, "too long")
    value = caller.memory(arguments[2], arguments[3]) if arguments[3] else b""
    os.setxattr(_place(handle), _attribute(caller, arguments[1]), value, arguments[4] & 3)


def _remove_attribute(handle: int, caller: Caller, arguments: tuple[int, ...]) -> None:
    os.removexattr(_place(handle), _attribute(caller, arguments[1]))


def _attribute(caller: Caller, address: int) -> bytes:
    name = caller.memory(address, constants.XATTR_NAME_MAX + 1).split(b"\0")[0]
    if not name:
        raise OSError(errno.ERANGE, "no name")
    return name


def _checked(name: str, *arguments: int | bytes | None) -> None:
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if syscalls.libc.syscall(ctypes.c_long(number(name)), *words) < 0:
        raise syscalls.failure(name)


_ACTS: dict[str, Callable[[int, Caller, tuple[int, ...]], None]] = {
    "chmod": _mode(1),
    "fchmod": _mode(1),
    "fchmodat": _mode(2),
    "fchmodat2": _mode(2),
    "chown": _owner(1),
    "lchown": _owner(1),
    "fchown": _owner(1),
    "fchownat": _owner(2),
    "utime": _times(1, "=2q", 0),
    "utimes": _times(1, "=4q", 1000),
    "futimesat": _times(2, "=4q", 1000),
    "utimensat": _times(2, "=4q", 1),
    "setxattr": _set_attribute,
    "lsetxattr": _set_attribute,
    "fsetxattr": _set_attribute,
    "removexattr": _remove_attribute,
    "lremovexattr": _remove_attribute,
    "fremovexattr": _remove_attribute,
}
