"""Judging held calls that change files, from level High on those that read them too:
by the path that they really lead to.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

_WRITE, _METADATA, _READ = "filesystem.write", "filesystem.metadata", "filesystem.reads"


class _Place(NamedTuple):
    """Where a call's path is among its arguments, and when it is an attempt."""

    directory: int | None  # index of the dirfd; None is the working directory
    path: int
    # "new" fails anyway where something exists, "old" where nothing does:
    # the kernel says so itself, and nobody tried to change a thing
    needs: str = "any"
    # to the name itself: "makes" it for what is no folder, "removes" or "renames" it
    does: str = ""


class _Call(NamedTuple):
    rule: str
    places: tuple[_Place, ...]
    follow: bool = True
    flags: int | None = None  # index of the AT_ flags


def _renamed(old: tuple[int | None, int], new: tuple[int | None, int]) -> tuple[_Place, _Place]:
    return _Place(*old, "old", "renames"), _Place(*new, does="renames")


_CALLS: dict[str, _Call] = {
    "creat": _Call(_WRITE, (_Place(None, 0, does="makes"),)),
    "mkdir": _Call(_WRITE, (_Place(None, 0, "new"),), follow=False),
    "mkdirat": _Call(_WRITE, (_Place(0, 1, "new"),), follow=False),
    "mknod": _Call(_WRITE, (_Place(None, 0, "new", "makes"),), follow=False),
    "mknodat": _Call(_WRITE, (_Place(0, 1, "new", "makes"),), follow=False),
    "rmdir": _Call(_WRITE, (_Place(None, 0, "old", "removes"),), follow=False),
    "unlink": _Call(_WRITE, (_Place(None, 0, "old", "removes"),), follow=False),
    "unlinkat": _Call(_WRITE, (_Place(0, 1, "old", "removes"),), follow=False),
    "rename": _Call(_WRITE, _renamed((None, 0), (None, 1)), follow=False),
    "renameat": _Call(_WRITE, _renamed((0, 1), (2, 3)), follow=False),
    "renameat2": _Call(_WRITE, _renamed((0, 1), (2, 3)), follow=False),
    # the file that gets one more name is not changed
    "link": _Call(_WRITE, (_Place(None, 1, "new", "makes"),), follow=False),
    "linkat": _Call(_WRITE, (_Place(2, 3, "new", "makes"),), follow=False),
    "symlink": _Call(_WRITE, (_Place(None, 1, "new", "makes"),), follow=False),
    "symlinkat": _Call(_WRITE, (_Place(1, 2, "new", "makes"),), follow=False),
    "truncate": _Call(_WRITE, (_Place(None, 0, "old"),)),
    "chmod": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "fchmodat": _Call(_METADATA, (_Place(0, 1, "old"),)),
    "fchmodat2": _Call(_METADATA, (_Place(0, 1, "old"),), flags=3),
    "chown": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "lchown": _Call(_METADATA, (_Place(None, 0, "old"),), follow=False),
    "fchownat": _Call(_METADATA, (_Place(0, 1, "old"),), flags=4),
    "utime": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "utimes": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "futimesat": _Call(_METADATA, (_Place(0, 1, "old"),)),
    "utimensat": _Call(_METADATA, (_Place(0, 1, "old"),), flags=3),
    "setxattr": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "lsetxattr": _Call(_METADATA, (_Place(None, 0, "old"),), follow=False),
    "removexattr": _Call(_METADATA, (_Place(None, 0, "old"),)),
    "lremovexattr": _Call(_METADATA, (_Place(None, 0, "old"),), follow=False),
    "setxattrat": _Call(_METADATA, (_Place(0, 1, "old"),), flags=2),
    "removexattrat": _Call(_METADATA, (_Place(0, 1, "old"),), flags=2),
    "file_setattr": _Call(_METADATA, (_Place(0, 1, "old"),), flags=4),
}
# Which argument names the attribute; this one is a program's own privileges.
_NAMED_AT, _CAPABILITY = {"setxattr": 1, "lsetxattr": 1}, "security.capability"
_OPENS = {"open": (_Place(None, 0), 1), "openat": (_Place(0, 1), 2)}
NAMES = frozenset(_CALLS) | frozenset(_OPENS)


def changed_places() -> dict[str, tuple[_Place, ...]]:
    """Where the calls that change something by path name it,
    but for those whose other arguments decide too.
    """
    apart = ("mknod", "mknodat", *_NAMED_AT)
    return {name: call.places for name, call in _CALLS.items() if name not in apart} | {
        name: (place,) for name, (place, _) in _OPENS.items()
    }


class Files:
    """Judges by the rules of one environment."""

    def __init__(self, rules: Rules, paths: Paths) -> None:
        self._rules = rules
        self._paths = paths

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """None lets the kernel go on: the call stays inside,
        or fails in the kernel without anyone having tried to change what is outside.
        """
        if name in _OPENS:
            return self._open(caller, name, arguments)
        call = _CALLS[name]
        if name in ("mknod", "mknodat") and stat.S_IFMT(arguments[call.places[0].path + 1]) in (
            stat.S_IFCHR,
            stat.S_IFBLK,
        ):
            return Response(errno.EPERM, "process.syscalls", {"syscall": f"{name} of a device"})
        if name in _NAMED_AT and caller.string(arguments[_NAMED_AT[name]]) == _CAPABILITY:
            said = self.absolute(caller, -100, arguments[0])
            return Response(errno.EPERM, _METADATA, {"path": shown(said)})
        flags = arguments[call.flags] if call.flags is not None else 0
        follow = call.follow and not flags & constants.AT_SYMLINK_NOFOLLOW
        for place in call.places:
            refusal = self._place(
                caller,
                call.rule,
                place,
                arguments,
                follow=follow,
                empty_is_descriptor=bool(flags & constants.AT_EMPTY_PATH),
            )
            if refusal is not None:
                return refusal
        return None

    def bound(self, caller: Caller, raw: bytes) -> Response | None:
        """A socket is bound to the address `raw`: a unix one with a path is a new file."""
        if int.from_bytes(raw[:2], "little") != socket.AF_UNIX or not raw[2:3].strip(b"\0"):
            return None
        said = os.fsdecode(raw[2:].split(b"\0")[0])
        absolute = said if said.startswith("/") else f"{caller.base(-100)}/{said}"
        allowed = self._rules.writable
        found = self._paths.canonical(caller, absolute, follow=False, allowed=allowed)
        if not found:
            return None
        if self._rules.may_write(found):
            return self._fixed(found, _Place(None, 0, "new", "makes"))
        return self._outside(caller, _WRITE, found, "new")

    def may_reach(self, caller: Caller, sun_path: str) -> tuple[bool, str, bool]:
        """Whether a unix socket at this path may be reached, where that really is,
        and whether it is there at all.
        """
        absolute = sun_path if sun_path.startswith("/") else f"{caller.base(-100)}/{sun_path}"
        found = self._paths.canonical(caller, absolute, follow=True, allowed=self._rules.sockets)
        return self._rules.may_reach(found), found, self._paths.exists(found)

    def root(self, caller: Caller) -> int:
        """A descriptor of the environment's root, which stays ours."""
        return self._paths.root(caller)

    def identity(self, path: str) -> tuple[int, int]:
        """Device and number of what is at a canonical path; zeros where nothing is."""
        return self._paths.identity(path)

    def _open(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        place, flags_at = _OPENS[name]
        flags = arguments[flags_at]
        if flags & constants.O_PATH:
            return None  # a handle without any right
        if not flags & constants.O_WRITING:
            return self._read(
                caller,
                arguments[place.directory] if place.directory is not None else -100,
                arguments[place.path],
                flags,
            )
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        needs = "any" if flags & os.O_CREAT else "old"
        if exclusive:
            needs = "new"
        follow = not exclusive and not flags & os.O_NOFOLLOW
        does = "makes" if flags & os.O_CREAT else ""
        meant = _Place(place.directory, place.path, needs, does)
        return self._place(caller, _WRITE, meant, arguments, follow=follow)

    def _read(self, caller: Caller, directory: int, address: int, flags: int) -> Response | None:
        """Held from level High on.

        The view is the list: what it lacks and the host has was not meant to be read;
        what neither has is nothing.
        """
        path = self._absolute(caller, directory, address, empty_is_descriptor=False)
        if not path or self._paths.reaches(caller, path):
            return None
        found = self._paths.canonical(
            caller, path, follow=not flags & os.O_NOFOLLOW, allowed=self._rules.own
        )
        if (
            not found
            or f"{found}/".startswith(self._rules.own)
            or self._paths.exists(found)
            or not self._paths.on_host(found)
        ):
            return None
        return Response(errno.ENOENT, _READ, {"path": shown(found)})

    def absolute(self, caller: Caller, directory: int, address: int) -> str:
        """The path at `address` from the root on, as it is said;
        empty where the kernel refuses it by itself.
        """
        return self._absolute(caller, directory, address, empty_is_descriptor=False)

    def resolved(self, caller: Caller, directory: int, address: int, *, follow: bool) -> str:
        """The same without links.

        Raises:
            OSError: ENOENT, it is none.
        """
        path = self._absolute(caller, directory, address, empty_is_descriptor=False)
        allowed = self._rules.writable
        found = self._paths.canonical(caller, path, follow=follow, allowed=allowed) if path else ""
        if not found:
            raise OSError(errno.ENOENT, "no such file")
        return found

    def _absolute(
        self, caller: Caller, directory: int, address: int, *, empty_is_descriptor: bool
    ) -> str:
        """The path at `address` from the root on; empty where the kernel says ENAMETOOLONG,
        ENOENT, EBADF or ENOTDIR by itself.
        """
        path = caller.string(address) if address else ""
        if path is None or (not path and address and not empty_is_descriptor):
            return ""
        if path.startswith("/"):
            return path
        base = caller.base(directory)
        if not base.startswith("/"):
            return ""  # a descriptor that is not there, or has no path
        return f"{base}/{path}" if path else base

    def _place(
        self,
        caller: Caller,
        rule: str,
        place: _Place,
        arguments: tuple[int, ...],
        *,
        follow: bool,
        empty_is_descriptor: bool = False,
    ) -> Response | None:
        directory = arguments[place.directory] if place.directory is not None else -100
        path = self._absolute(
            caller, directory, arguments[place.path], empty_is_descriptor=empty_is_descriptor
        )
        if not path:
            return None
        found = self._paths.canonical(caller, path, follow=follow, allowed=self._rules.writable)
        if not found:
            return None
        if self._rules.may_write(found):
            return self._fixed(found, place)
        return self._outside(caller, rule, found, place.needs)

    def _fixed(self, path: str, place: _Place) -> Response | None:
        """What a mount point would say; the one at the top is one where there are mounts."""
        path = os.path.normpath(path)
        if not place.does or not self._rules.is_fixed(path):
            return None
        exists = self._paths.exists(path)
        if (exists and place.needs == "new") or (not exists and place.needs == "old"):
            return None
        if exists and place.does == "makes":
            return None  # it is a folder already, which no file replaces
        if place.does == "removes" and self._rules.may_remove(path):
            return None
        return Response(errno.EBUSY, _WRITE, {"path": shown(path)}, alone=True)

    def _outside(self, caller: Caller, rule: str, path: str, needs: str) -> Response | None:
        """What a read-only file system would say, and whether anybody tried to change it."""
        parts = path.split("/")
        if parts[1] == "proc" and len(parts) > 3 and parts[2].isdigit():
            others = parts[2] != caller.inner_numbers()[0]
            if others and (parts[2] == "1" or parts[-1] == "mem"):
                return Response(errno.EACCES, "process.visibility", {"path": shown(path)})
            return None  # a process's own switches, such as oom_score_adj; file modes decide
        exists = self._paths.exists(path)
        if (exists and needs == "new") or (not exists and needs == "old"):
            return None
        error = errno.EROFS if exists or self._paths.parent_exists(path) else errno.ENOENT
        if not path.startswith(self._rules.read_only):
            return Response(error, rule, {"path": shown(path)})
        if (
            "__pycache__" in parts
            # one record for a folder: an interpreter tries a file for each module,
            # under names that never come again
        ):
            path = "/".join(parts[: parts.index("__pycache__") + 1])
        return Response(
            error,
            rule,
            {"path": shown(path)},
            ("pycache",) if path.endswith(("/__pycache__", ".pyc")) else (),
        )
