"""Judges held calls that give a file a set-user-id or set-group-id bit.

On a file of the host (the workspace at Low, the home's `.cache`) such a bit would lend its owner's
privileges to whoever starts it; at Low as root the owner is root.
The mode is an argument by value, so the filter holds a call only where it has such a bit.
The change is performed here, on a descriptor of the file that was judged.
"""

from __future__ import annotations

import errno
import os
import stat

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules

BITS = stat.S_ISUID | stat.S_ISGID

# Call -> index of the mode among its arguments.
CHANGE_MODE_ARGUMENT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
CREATE_MODE_ARGUMENT = {"creat": 1, "mknod": 1, "mknodat": 2, "open": 2, "openat": 3}
_OF_DIRECTORY = ("mknodat", "openat")

_RULE = "filesystem.metadata"
# the permission bits and the three above them
_MODE_BITS = 0o7777


def carries_bits(name: str, arguments: tuple[int, ...]) -> bool:
    """Whether this call asks for one of the bits.

    The mode of an open counts only where it creates a file (open(2)).
    """
    if name in ("open", "openat"):
        flags = arguments[CREATE_MODE_ARGUMENT[name] - 1]
        if not flags & (os.O_CREAT | constants.O_TMPFILE_BIT):
            return False
    index = CHANGE_MODE_ARGUMENT.get(name, CREATE_MODE_ARGUMENT.get(name, -1))
    return index >= 0 and bool(arguments[index] & BITS)


class Modes:
    """Judges calls for which `carries_bits` is true."""

    def __init__(self, rules: Rules, files: Files) -> None:
        self._rules = rules
        self._files = files

    def judge(self, call: HeldCall) -> Response:
        """None ever continues: the path may lead to another file by then."""
        refusal = self._files.judge(call) if call.name != "fchmod" else None
        if refusal is not None:
            return refusal
        if call.name in CREATE_MODE_ARGUMENT:
            return self._refuse_creation(call)
        try:
            handle = self._open(call)
        except OSError as error:
            return Response(error.errno or errno.ENOENT)
        try:
            mode = call.arguments[CHANGE_MODE_ARGUMENT[call.name]] & _MODE_BITS
            return self._change(call.caller, handle, mode)
        except OSError as error:
            return Response(error.errno or errno.EPERM)
        finally:
            os.close(handle)

    def _refuse_creation(self, call: HeldCall) -> Response:
        directory, address = constants.AT_FDCWD, call.arguments[0]
        if call.name in _OF_DIRECTORY:
            directory, address = call.arguments[:2]
        return _refuse(self._files.absolute(call.caller, directory, address))

    def _open(self, call: HeldCall) -> int:
        """An O_PATH descriptor of the file."""
        caller, name, arguments = call.caller, call.name, call.arguments
        if name == "fchmod":
            return caller.handle(f"fd/{arguments[0] & constants.UINT_MAX}")
        directory, address = constants.AT_FDCWD_U32, arguments[0]
        if name != "chmod":
            directory, address = arguments[:2]
        follow = not (name == "fchmodat2" and arguments[3] & constants.AT_SYMLINK_NOFOLLOW)
        path = self._files.resolved(caller, directory, address, follow=follow)
        resolve = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
        # with O_PATH and O_NOFOLLOW a link in the last part is opened itself, in spite of
        # RESOLVE_NO_SYMLINKS (openat2(2))
        flags = constants.O_PATH | (0 if follow else os.O_NOFOLLOW)
        return syscalls.openat2(self._files.root(caller), path, flags, resolve)

    def _change(self, caller: Caller, handle: int, mode: int) -> Response:
        link, found = f"/proc/self/fd/{handle}", os.fstat(handle)
        # neither a pipe nor a file in memory has a path that rules could judge
        path = os.readlink(link).removesuffix(" (deleted)")
        if not path.startswith("/") or path.startswith("/memfd:"):
            return Response(errno.EPERM)
        if not self._rules.may_write(path):
            return _refuse(path)
        # S_ISGID of a folder gives new files the folder's group, and nobody privileges (inode(7))
        harmless = stat.S_ISDIR(found.st_mode) and not mode & stat.S_ISUID
        if self._rules.lasts(path) and not harmless:
            return _refuse(path)
        user, groups = caller.identities()
        # the recorder may be root, so the kernel's check for the owner is made here
        if found.st_uid != user:
            return Response(errno.EPERM)
        # as the kernel does for a caller who is not in the file's group (chmod(2))
        if found.st_gid not in groups:
            mode &= ~stat.S_ISGID
        # fchmod(2) fails with EBADF on O_PATH
        os.chmod(link, mode)
        return Response(0)


def _refuse(path: str) -> Response:
    return Response(errno.EPERM, _RULE, {"path": shown(path)}, recorder_only=True)
