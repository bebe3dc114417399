"""Opens files for their callers where an environment has no mounts: the files of /etc that are made
for it, and /proc without other environments' processes.

Landlock allows nothing of /proc, so whatever is read there is opened here, by the path that was
judged, and the descriptor is injected into the caller.
An open that is not answered here continues, and Landlock decides.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.seccomp_notify.addfd import inject_fd
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.seccomp_notify.response import Response

NAMES = frozenset(("open", "openat"))

# without O_CREAT and O_TRUNC, so that an open here makes and empties nothing
_PASSED_FLAGS = os.O_NONBLOCK | os.O_DIRECTORY | os.O_ACCMODE
_ALIASES = {"/etc/mtab": "/proc/self/mounts"}
# links of /proc into the process that follows them -> below its folder
_SELF_LINKS = {"self": (), "mounts": ("mounts",), "net": ("net",)}
# files of /proc that tell of other processes, or of the kernel
_CLOSED = frozenset(
    (
        "net",
        "kcore",
        "kmsg",
        "keys",
        "key-users",
        "sysvipc",
        "timer_list",
        "sched_debug",
        "kallsyms",
    )
)
# magic links: they lead to a file itself, which Landlock judges (proc(5))
_MAGIC_LINKS = frozenset(("root", "cwd", "exe", "map_files", "ns"))
# settings of a process that it may write, and its memory, which ptrace(2) writes too
_WRITABLE = frozenset(("oom_score_adj", "comm", "coredump_filter", "timerslack_ns", "mem"))
# openat2(2), since 5.6: EXDEV for a path that leaves the folder, ELOOP for a link
_RESOLVE = (
    constants.RESOLVE_BENEATH | constants.RESOLVE_NO_SYMLINKS | constants.RESOLVE_NO_MAGICLINKS
)


class OpenProxy:
    """Answers opens of one environment.

    `texts`: path inside -> file on the host that is read instead. `belongs`: whether a process is
    the environment's.
    """

    def __init__(
        self,
        files: Files,
        listener: Listener,
        texts: Mapping[str, str],
        belongs: Callable[[int], bool],
        proc_fd: int,
    ) -> None:
        self._files = files
        self._listener = listener
        self._texts = texts
        self._belongs = belongs
        self._proc_fd = proc_fd

    def judge(self, call: HeldCall) -> Response | None:
        """None: the path is judged elsewhere."""
        directory, address, flags = constants.AT_FDCWD_U32, *call.arguments[:2]
        if call.name == "openat":
            directory, address, flags = call.arguments[:3]
        if flags & constants.O_PATH:
            return None
        path = self._files.absolute(call.caller, directory, address)
        if not path:
            return None
        # two slashes at the beginning are kept by normpath, and mean one on Linux
        path = os.path.normpath(path).replace("//", "/")
        path = _ALIASES.get(path, path)
        if path in self._texts and not flags & constants.O_WRITING:
            return self._open(call.identifier, None, self._texts[path], flags)
        if path != "/proc" and not path.startswith("/proc/"):
            return None
        return self._judge_proc(call, path.split("/")[2:], flags)

    def _judge_proc(self, call: HeldCall, parts: list[str], flags: int) -> Response | None:
        """Files of /proc: those of the machine, and those of the environment's own processes."""
        parts = _without_self([part for part in parts if part], call.caller)
        of_process = bool(parts) and parts[0].isdigit()
        if of_process and not self._belongs(int(parts[0])):
            return Response(errno.ENOENT)
        if flags & constants.O_WRITING and not (of_process and parts[-1] in _WRITABLE):
            return None
        inner = parts[1:] if of_process else parts
        if of_process and inner[:1] == ["task"]:
            inner = parts[3:]
        if inner and inner[0] in _CLOSED:
            return Response(errno.EACCES)
        # opened for the caller they would lead to files that Landlock has not judged
        if inner and (inner[0] in _MAGIC_LINKS or (inner[0] == "fd" and len(inner) > 1)):
            return None
        process = int(parts[0]) if of_process else 0
        return self._open(call.identifier, self._proc_fd, "/".join(parts) or ".", flags, process)

    def _open(
        self, identifier: int, directory: int | None, path: str, flags: int, process: int = 0
    ) -> Response | None:
        passed = flags & _PASSED_FLAGS
        try:
            if directory is None:
                opened = os.open(path, passed | os.O_CLOEXEC)
            else:
                opened = syscalls.openat2(directory, path, passed, _RESOLVE)
        except OSError as error:
            # a magic link among the parts
            return None if error.errno == errno.ELOOP else Response(error.errno or errno.EACCES)
        try:
            # Opened with the recorder's rights, and the number may be another's by now.
            if process and not self._belongs(process):
                return Response(errno.ENOENT)
            close_on_exec = bool(flags & os.O_CLOEXEC)
            listener = self._listener.fileno()
            return inject_fd(listener, identifier, opened, close_on_exec=close_on_exec)
        finally:
            os.close(opened)


def _without_self(parts: list[str], caller: Caller) -> list[str]:
    """The parts with the caller's process in place of /proc/self and its like."""
    if parts and parts[0] in _SELF_LINKS:
        return [str(caller.group), *_SELF_LINKS[parts[0]], *parts[1:]]
    if parts[:1] == ["thread-self"]:
        # since 3.17: the folder of the thread itself (proc(5))
        return [str(caller.group), "task", str(caller.pid), *parts[1:]]
    return parts
