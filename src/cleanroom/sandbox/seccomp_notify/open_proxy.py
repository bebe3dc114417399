"""Reading on the caller's behalf, where an environment has no mounts of its own:
the files of /etc that are made for it, and /proc without strangers.

Landlock lets nothing of /proc be opened, so whatever is read there is opened here,
by the path that was looked at, and the descriptor is given to the caller.
What is not answered here goes on to the kernel, which refuses by itself what is not listed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.seccomp_notify.addfd import inject_fd
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.rules import Response

NAMES = frozenset(("open", "openat"))

_KEPT_FLAGS = os.O_NONBLOCK | os.O_DIRECTORY
_PLACES = {"/etc/mtab": "/proc/self/mounts"}
_OWN_LINKS = {"self": (), "mounts": ("mounts",), "net": ("net",)}
_OUTSIDE = frozenset(
    (
        "net",
        "mem",
        "kcore",
        "kmsg",
        "keys",
        "key-users",
        "sysvipc",
        "timer_list",
        "sched_debug",
        "kallsyms",
    )
)  # tell of others, or hand out memory
# lead to a file itself, which the kernel judges where it lies
_MAGIC = frozenset(("root", "cwd", "exe", "map_files", "ns"))
# a process's own, that may be written
_SWITCHES = frozenset(("oom_score_adj", "comm", "coredump_filter", "timerslack_ns"))
_HOW = constants.RESOLVE_BENEATH | constants.RESOLVE_NO_SYMLINKS | constants.RESOLVE_NO_MAGICLINKS


class OpenProxy:
    """Answers opens.

    `texts`: path of the environment -> file on the host that stands for it;
    `belongs` tells the environment's processes.
    """

    def __init__(
        self,
        files: Files,
        listener: int,
        texts: Mapping[str, str],
        belongs: Callable[[int], bool],
        proc: int,
    ) -> None:
        self._files, self._listener, self._texts = files, listener, texts
        self._belongs, self._proc = belongs, proc

    def judge(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        """None: not ours to answer."""
        directory, address, flags = (
            (constants.AT_FDCWD_U32, *arguments[:2]) if name == "open" else arguments[:3]
        )
        if flags & constants.O_PATH:
            return None
        path = self._files.absolute(caller, directory, address)
        if not path:
            return None
        path = os.path.normpath(path).replace("//", "/")
        path = _PLACES.get(path, path)
        if path in self._texts and not flags & constants.O_WRITING:
            return self._open(identifier, -100, self._texts[path], flags)
        if path != "/proc" and not path.startswith("/proc/"):
            return None
        return self._process(identifier, caller, path.split("/")[2:], flags)

    def _process(
        self, identifier: int, caller: Caller, parts: list[str], flags: int
    ) -> Response | None:
        """Something of /proc: the machine's facts, and the environment's own processes."""
        parts = [part for part in parts if part]
        if parts and parts[0] in _OWN_LINKS:
            parts = [str(caller.group), *_OWN_LINKS[parts[0]], *parts[1:]]
        elif parts[:1] == ["thread-self"]:
            parts = [str(caller.group), "task", str(caller.pid), *parts[1:]]
        own = bool(parts) and parts[0].isdigit()
        if own and not self._belongs(int(parts[0])):
            return Response(errno.ENOENT)
        if flags & constants.O_WRITING and not (own and parts[-1] in _SWITCHES):
            return None
        inner = parts[1:] if own else parts
        if own and inner[:1] == ["task"]:
            inner = parts[3:]
        if inner and inner[0] in _OUTSIDE:
            return Response(errno.EACCES)
        if inner and (inner[0] in _MAGIC or (inner[0] == "fd" and len(inner) > 1)):
            return None
        return self._open(identifier, self._proc, "/".join(parts) or ".", flags)

    def _open(self, identifier: int, directory: int, path: str, flags: int) -> Response | None:
        try:
            how = flags & (_KEPT_FLAGS | os.O_ACCMODE)
            opened = (
                os.open(path, how | os.O_CLOEXEC)
                if directory < 0
                else syscalls.openat2(directory, path, how, _HOW)
            )
        except OSError as error:
            return None if error.errno == errno.ELOOP else Response(error.errno or errno.EACCES)
        try:
            closing = bool(flags & os.O_CLOEXEC)
            return inject_fd(self._listener, identifier, opened, close_on_exec=closing)
        finally:
            os.close(opened)
