"""Judging held calls that give a file a set-user-id or set-group-id bit.

Where a file is the host's own and stays (the workspace at Low, the home's `.cache`), such a bit
would lend its owner's rights to whoever starts it: as root at Low that is root. The mode lies in
a register, so the filter holds what carries such a bit. The change is then done here, on the very
file that was looked at, so that nobody can put another one in its place.
"""

from __future__ import annotations

import errno
import os
import stat

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

BITS = stat.S_ISUID | stat.S_ISGID

# Index of the mode among the arguments.
CHANGED_AT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}
MADE_AT = {"creat": 1, "mknod": 1, "mknodat": 2, "open": 2, "openat": 3}

_RULE = "filesystem.metadata"
_ALL = 0o7777


def carries_bits(name: str, arguments: tuple[int, ...]) -> bool:
    """Whether this call asks for one of the bits; an open that makes no file has no mode."""
    if name in ("open", "openat"):
        flags = arguments[MADE_AT[name] - 1]
        if not flags & (os.O_CREAT | constants.O_TMPFILE_BIT):
            return False
    at = CHANGED_AT.get(name, MADE_AT.get(name, -1))
    return at >= 0 and bool(arguments[at] & BITS)


class Modes:
    """Judges calls of which `carries_bits` is true."""

    def __init__(self, rules: Rules, files: Files) -> None:
        self._rules, self._files = rules, files

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response:
        """Never lets the kernel go on: another file could be there by then."""
        refusal = self._files.judge(caller, name, arguments) if name != "fchmod" else None
        if refusal is not None:
            return refusal
        if name in MADE_AT:
            return self._made(caller, name, arguments)
        try:
            handle = self._handle(caller, name, arguments)
        except OSError as error:
            return Response(error.errno or errno.ENOENT)
        try:
            return self._change(caller, handle, arguments[CHANGED_AT[name]] & _ALL)
        except OSError as error:
            return Response(error.errno or errno.EPERM)
        finally:
            os.close(handle)

    def _made(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response:
        directory, at = (arguments[0], 1) if name.endswith("at") and name != "creat" else (-100, 0)
        path = self._files.absolute(caller, directory, arguments[at])
        return _refused(path)

    def _handle(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> int:
        """The file that is meant, opened without a right to it."""
        if name == "fchmod":
            return caller.handle(f"fd/{arguments[0] & constants.UINT_MAX}")
        directory, at = (constants.AT_FDCWD_U32, 0) if name == "chmod" else (arguments[0], 1)
        follow = not (name == "fchmodat2" and arguments[3] & constants.AT_SYMLINK_NOFOLLOW)
        path = self._files.resolved(caller, directory, arguments[at], follow=follow)
        how = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
        flags = constants.O_PATH | (0 if follow else os.O_NOFOLLOW)
        return syscalls.openat2(self._files.root(caller), path, flags, how)

    def _change(self, caller: Caller, handle: int, mode: int) -> Response:
        place, found = f"/proc/self/fd/{handle}", os.fstat(handle)
        path = os.readlink(place).removesuffix(" (deleted)")
        if not path.startswith("/") or path.startswith("/memfd:"):
            return Response(errno.EPERM)
        if not self._rules.may_write(path):
            return Response(errno.EPERM, _RULE, {"path": shown(path)}, alone=True)
        # a folder's set-group-id bit gives what is made in it the folder's group, and no rights
        harmless = stat.S_ISDIR(found.st_mode) and not mode & stat.S_ISUID
        if self._rules.lasts(path) and not harmless:
            return _refused(path)
        user, groups = caller.identities()
        if found.st_uid != user:
            return Response(errno.EPERM)
        if found.st_gid not in groups:
            mode &= ~stat.S_ISGID
        os.chmod(place, mode)
        return Response(0)


def _refused(path: str) -> Response:
    return Response(errno.EPERM, _RULE, {"path": shown(path)}, alone=True)
