"""Judges held calls that change files, by the path that they lead to.

From level High on calls that read files are judged too.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules, is_system_cache

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

_WRITE, _METADATA, _READ = "filesystem.write", "filesystem.metadata", "filesystem.reads"


class PathArgument(NamedTuple):
    """Indexes of the arguments that name a path, and when naming it is an attempt."""

    # index of the folder's descriptor; None: the working directory
    directory: int | None
    path: int
    # "new": the call fails where something is there (EEXIST), "old": where nothing is (ENOENT);
    # such a call is no attempt, since it could not change anything
    needs: str = "any"
    # on the name itself: "create" for what is no folder, "remove" or "rename"
    effect: str = ""


class _PathCall(NamedTuple):
    rule: str
    paths: tuple[PathArgument, ...]
    follow: bool = True
    # index of the AT_ flags
    flags: int | None = None


def _rename(
    old: tuple[int | None, int], new: tuple[int | None, int]
) -> tuple[PathArgument, PathArgument]:
    return PathArgument(*old, "old", "rename"), PathArgument(*new, effect="rename")


_PATH_CALLS: dict[str, _PathCall] = {
    "creat": _PathCall(_WRITE, (PathArgument(None, 0, effect="create"),)),
    # mkdir(2) and mknod(2) follow no link in the last part: it is there already (EEXIST)
    "mkdir": _PathCall(_WRITE, (PathArgument(None, 0, "new"),), follow=False),
    "mkdirat": _PathCall(_WRITE, (PathArgument(0, 1, "new"),), follow=False),
    "mknod": _PathCall(_WRITE, (PathArgument(None, 0, "new", "create"),), follow=False),
    "mknodat": _PathCall(_WRITE, (PathArgument(0, 1, "new", "create"),), follow=False),
    # these act on a link itself (symlink(7))
    "rmdir": _PathCall(_WRITE, (PathArgument(None, 0, "old", "remove"),), follow=False),
    "unlink": _PathCall(_WRITE, (PathArgument(None, 0, "old", "remove"),), follow=False),
    "unlinkat": _PathCall(_WRITE, (PathArgument(0, 1, "old", "remove"),), follow=False),
    "rename": _PathCall(_WRITE, _rename((None, 0), (None, 1)), follow=False),
    "renameat": _PathCall(_WRITE, _rename((0, 1), (2, 3)), follow=False),
    "renameat2": _PathCall(_WRITE, _rename((0, 1), (2, 3)), follow=False),
    # the file that gets one more name is not changed
    "link": _PathCall(_WRITE, (PathArgument(None, 1, "new", "create"),), follow=False),
    "linkat": _PathCall(_WRITE, (PathArgument(2, 3, "new", "create"),), follow=False),
    "symlink": _PathCall(_WRITE, (PathArgument(None, 1, "new", "create"),), follow=False),
    "symlinkat": _PathCall(_WRITE, (PathArgument(1, 2, "new", "create"),), follow=False),
    "truncate": _PathCall(_WRITE, (PathArgument(None, 0, "old"),)),
    "chmod": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "fchmodat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),)),
    "fchmodat2": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=3),
    "chown": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "lchown": _PathCall(_METADATA, (PathArgument(None, 0, "old"),), follow=False),
    "fchownat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=4),
    "utime": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "utimes": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "futimesat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),)),
    "utimensat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=3),
    "setxattr": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "lsetxattr": _PathCall(_METADATA, (PathArgument(None, 0, "old"),), follow=False),
    "removexattr": _PathCall(_METADATA, (PathArgument(None, 0, "old"),)),
    "lremovexattr": _PathCall(_METADATA, (PathArgument(None, 0, "old"),), follow=False),
    "setxattrat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=2),
    "removexattrat": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=2),
    "file_setattr": _PathCall(_METADATA, (PathArgument(0, 1, "old"),), flags=4),
}
# call -> index of the argument with the attribute's name
_ATTRIBUTE_ARGUMENT = {"setxattr": 1, "lsetxattr": 1}
# file capabilities: privileges that a program has by itself (capabilities(7))
_CAPABILITY_ATTRIBUTE = "security.capability"
# call -> its path, index of its flags
_OPENS = {"open": (PathArgument(None, 0), 1), "openat": (PathArgument(0, 1), 2)}
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
NAMES = frozenset(_PATH_CALLS) | frozenset(_OPENS)


def path_arguments() -> dict[str, tuple[PathArgument, ...]]:
    """Call -> paths that it changes, without the calls whose other arguments decide too."""
    others = ("mknod", "mknodat", *_ATTRIBUTE_ARGUMENT)
    found = {name: call.paths for name, call in _PATH_CALLS.items() if name not in others}
    return found | {name: (path,) for name, (path, _) in _OPENS.items()}


class Files:
    """Judges by the rules of one environment."""

    def __init__(self, rules: Rules, paths: Paths) -> None:
        self._rules = rules
        self._paths = paths

    def judge(self, call: HeldCall) -> Response | None:
        """None for a call that stays inside, or that the kernel refuses without an attempt to
        change anything outside.
        """
        caller, name, arguments = call.caller, call.name, call.arguments
        if name in _OPENS:
            return self._judge_open(call)
        path_call = _PATH_CALLS[name]
        # device files give access to the kernel, whatever folder they lie in
        if name in ("mknod", "mknodat"):
            mode = arguments[path_call.paths[0].path + 1]
            if stat.S_IFMT(mode) in _DEVICES:
                target: Target = {"syscall": f"{name} of a device"}
                return Response(errno.EPERM, "process.syscalls", target)
        # whoever starts the program gets its capabilities, outside too
        if name in _ATTRIBUTE_ARGUMENT:
            attribute = caller.string(arguments[_ATTRIBUTE_ARGUMENT[name]])
            if attribute == _CAPABILITY_ATTRIBUTE:
                path = self.absolute(caller, constants.AT_FDCWD, arguments[0])
                return Response(errno.EPERM, _METADATA, {"path": shown(path)})
        flags = arguments[path_call.flags] if path_call.flags is not None else 0
        follow = path_call.follow and not flags & constants.AT_SYMLINK_NOFOLLOW
        empty_path = bool(flags & constants.AT_EMPTY_PATH)
        for argument in path_call.paths:
            path = self._argument_path(caller, argument, arguments, empty_path=empty_path)
            refusal = self._judge_path(caller, path_call.rule, argument, path, follow=follow)
            if refusal is not None:
                return refusal
        return None

    def changed_paths(self, call: HeldCall) -> list[str]:
        """Canonical paths that a call changes, in the order of its arguments; "" for no file.

        Empty for an open that does not write.
        """
        if call.name in _OPENS:
            argument, flags_index = _OPENS[call.name]
            flags = call.arguments[flags_index]
            if flags & constants.O_PATH or not flags & constants.O_WRITING:
                return []
            follow = not flags & os.O_NOFOLLOW
            return [self._canonical_argument(call, argument, follow=follow)]
        path_call = _PATH_CALLS[call.name]
        flags = call.arguments[path_call.flags] if path_call.flags is not None else 0
        follow = path_call.follow and not flags & constants.AT_SYMLINK_NOFOLLOW
        return [self._canonical_argument(call, path, follow=follow) for path in path_call.paths]

    def linked_path(self, call: HeldCall) -> str:
        """The canonical path of the file that link(2) or linkat(2) gives one more name."""
        at, flags = (None, 0) if call.name == "link" else (0, call.arguments[4])
        argument = PathArgument(at, 0 if at is None else 1)
        follow = bool(flags & constants.AT_SYMLINK_FOLLOW)
        return self._canonical_argument(call, argument, follow=follow)

    def _canonical_argument(self, call: HeldCall, argument: PathArgument, *, follow: bool) -> str:
        path = self._argument_path(call.caller, argument, call.arguments)
        if not path:
            return ""
        allowed = self._rules.writable
        return self._paths.canonical(call.caller, path, follow=follow, allowed=allowed)

    def judge_bind(self, caller: Caller, raw: bytes) -> Response | None:
        """A unix socket that is bound to the path in the socket address `raw` is a new file."""
        # abstract and unnamed sockets have no path (unix(7))
        if int.from_bytes(raw[:2], "little") != socket.AF_UNIX or not raw[2:3].strip(b"\0"):
            return None
        path = _absolute_name(caller, os.fsdecode(raw[2:].split(b"\0")[0]))
        argument = PathArgument(None, 0, "new", "create")
        return self._judge_path(caller, _WRITE, argument, path, follow=False)

    def may_reach(self, caller: Caller, sun_path: str) -> tuple[bool, str, bool]:
        """Whether a unix socket at this path may be connected, the path that it leads to, and
        whether that exists.
        """
        path = _absolute_name(caller, sun_path)
        found = self._paths.canonical(caller, path, follow=True, allowed=self._rules.sockets)
        return self._rules.may_reach(found), found, self._paths.exists(found)

    def on_host(self, path: str) -> bool:
        """Whether the host has something at a canonical path."""
        return self._paths.on_host(path)

    def root(self, caller: Caller) -> int:
        """A descriptor of the environment's root, which stays ours."""
        return self._paths.root(caller)

    def identity(self, path: str) -> tuple[int, int]:
        """Device and inode of what is at a canonical path; zeros where nothing is."""
        return self._paths.identity(path)

    def absolute(self, caller: Caller, directory: int, address: int) -> str:
        """The path at `address` from the root on, links unresolved; empty where the kernel refuses
        it by itself.
        """
        return self._absolute(caller, directory, address, empty_path=False)

    def resolved(self, caller: Caller, directory: int, address: int, *, follow: bool) -> str:
        """The same without links.

        Raises:
            OSError: ENOENT, it is no path.
        """
        path = self._absolute(caller, directory, address, empty_path=False)
        found = ""
        if path:
            allowed = self._rules.writable
            found = self._paths.canonical(caller, path, follow=follow, allowed=allowed)
        if not found:
            raise OSError(errno.ENOENT, "no such file")
        return found

    def _judge_open(self, call: HeldCall) -> Response | None:
        argument, flags_index = _OPENS[call.name]
        flags = call.arguments[flags_index]
        # a descriptor that gives no access to the file (open(2))
        if flags & constants.O_PATH:
            return None
        path = self._argument_path(call.caller, argument, call.arguments)
        if not flags & constants.O_WRITING:
            return self._judge_read(call.caller, path, follow=not flags & os.O_NOFOLLOW)
        needs, effect = "old", ""
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        if flags & os.O_CREAT:
            needs, effect = "new" if exclusive else "any", "create"
        # O_EXCL follows no link in the last part (open(2))
        follow = not exclusive and not flags & os.O_NOFOLLOW
        argument = argument._replace(needs=needs, effect=effect)
        return self._judge_path(call.caller, _WRITE, argument, path, follow=follow)

    def _judge_read(self, caller: Caller, path: str, *, follow: bool) -> Response | None:
        """Held from level High on, where what is mounted is the allowlist.

        A file that the host has and the environment lacks is an attempt; one that neither has is
        none.
        """
        if not path or self._paths.reaches(caller, path):
            return None
        private = self._rules.private
        found = self._paths.canonical(caller, path, follow=follow, allowed=private)
        if not found or f"{found}/".startswith(private):
            return None
        if self._paths.exists(found) or not self._paths.on_host(found):
            return None
        return Response(errno.ENOENT, _READ, {"path": shown(found)})

    def _argument_path(
        self,
        caller: Caller,
        argument: PathArgument,
        arguments: tuple[int, ...],
        *,
        empty_path: bool = False,
    ) -> str:
        directory = constants.AT_FDCWD
        if argument.directory is not None:
            directory = arguments[argument.directory]
        return self._absolute(caller, directory, arguments[argument.path], empty_path=empty_path)

    def _absolute(self, caller: Caller, directory: int, address: int, *, empty_path: bool) -> str:
        """The path at `address` from the root on; empty where the kernel answers ENAMETOOLONG,
        ENOENT, EBADF or ENOTDIR by itself.

        `empty_path`: an empty one names the descriptor (AT_EMPTY_PATH).
        """
        path = caller.string(address) if address else ""
        if path is None or (not path and address and not empty_path):
            return ""
        if path.startswith("/"):
            return path
        base = caller.base(directory)
        # a descriptor that is not open, or has no path
        if not base.startswith("/"):
            return ""
        return f"{base}/{path}" if path else base

    def _judge_path(
        self, caller: Caller, rule: str, argument: PathArgument, path: str, *, follow: bool
    ) -> Response | None:
        if not path:
            return None
        found = self._paths.canonical(caller, path, follow=follow, allowed=self._rules.writable)
        if not found:
            return None
        if self._rules.may_write(found):
            return self._judge_fixed(found, argument)
        return self._judge_outside(caller, rule, found, argument.needs)

    def _judge_fixed(self, path: str, argument: PathArgument) -> Response | None:
        """Refuse as for a mount point (EBUSY); the outermost fixed name is one where there are
        mounts.
        """
        path = os.path.normpath(path)
        if not argument.effect or not self._rules.is_fixed(path):
            return None
        exists = self._paths.exists(path)
        if (exists and argument.needs == "new") or (not exists and argument.needs == "old"):
            return None
        # a folder that is there already, which no file replaces
        if exists and argument.effect == "create":
            return None
        if argument.effect == "remove" and self._rules.may_remove(path):
            return None
        return Response(errno.EBUSY, _WRITE, {"path": shown(path)}, recorder_only=True)

    def _judge_outside(self, caller: Caller, rule: str, path: str, needs: str) -> Response | None:
        """Refuse as a read-only file system does; None where there is no attempt."""
        parts = path.split("/")
        if parts[1] == "proc" and len(parts) > 3 and parts[2].isdigit():
            other = parts[2] != caller.inner_numbers()[0]
            memory = parts[-1] == "mem" and not self._rules.tracing
            if other and (parts[2] == "1" or memory):
                return Response(errno.EACCES, "process.visibility", {"path": shown(path)})
            # a process's own settings, such as oom_score_adj: file modes decide
            return None
        # nothing could have been changed: the kernel refuses without a mount too
        exists = self._paths.exists(path)
        if (exists and needs == "new") or (not exists and needs == "old"):
            return None
        code = errno.EROFS if exists or self._paths.parent_exists(path) else errno.ENOENT
        # git locks its index to refresh it in commands that only look, and goes on without
        folder, name = os.path.split(path)
        if name == "index.lock" and self._paths.exists(f"{folder}/HEAD"):
            return Response(code, rule, {"path": shown(path)}, ("git-index",))
        if is_system_cache(path):
            return Response(code, rule, {"path": shown(path)}, ("probe",))
        if not path.startswith(self._rules.read_only):
            return Response(code, rule, {"path": shown(path)})
        # One record for a folder of byte code: an interpreter tries one file for each module, under
        # a name that never comes again.
        if "__pycache__" in parts:
            path = "/".join(parts[: parts.index("__pycache__") + 1])
        byte_code = path.endswith(("/__pycache__", ".pyc"))
        return Response(code, rule, {"path": shown(path)}, ("pycache",) if byte_code else ())


def _absolute_name(caller: Caller, name: str) -> str:
    """The path of a unix socket from the root on."""
    return name if name.startswith("/") else f"{caller.base(constants.AT_FDCWD)}/{name}"
