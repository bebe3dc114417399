"""Judges held calls that start programs, by the file that is started and by its interpreters.

Landlock and noexec mounts enforce the allowlist (from High on) and the folders where nothing is
started (from Medium on); the attempt is seen here.
A script counts as its interpreter, and the dynamic loader as the program that it loads.
At High a library counts as the file that it is mapped from.

Where a workspace has build folders, only the judgement here tells them from the rest of it.
Whoever won a race against it would start a file that could as well lie in such a folder.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules

NAMES = frozenset(("execve", "execveat", "memfd_create", "mmap"))

_RULE = "process.exec"
_NO_PATH = "a descriptor without a path"
_LOADER = re.compile(r"/ld(-linux[-.\w]*|-musl-[-.\w]*|-\d[.\d]*)?\.so(\.\d+)?$|/ld-\d[.\d]*\.so$")
# options of ld.so(8) whose value is the next word
_LOADER_OPTIONS_WITH_VALUE = frozenset(
    (
        "--library-path",
        "--inhibit-rpath",
        "--audit",
        "--preload",
        "--argv0",
        "--glibc-hwcaps-prepend",
        "--glibc-hwcaps-mask",
    )
)
# BINPRM_BUF_SIZE: bytes that the kernel reads of a script's first line
# since 5.1; 128 before (execve(2))
_SCRIPT_HEAD = 256
# interpreters that are scripts in turn: the kernel's own limit (execve(2), ELOOP)
_INTERPRETERS_MOST = 5
# words of a loader's command line that are read
_WORDS_MOST = 32


class Programs:
    """Judges by the allowlist of one environment, or by its noexec folders."""

    def __init__(self, rules: Rules, paths: Paths) -> None:
        self._rules = rules
        self._paths = paths

    def judge(self, call: HeldCall) -> Response | None:
        caller, name, arguments = call.caller, call.name, call.arguments
        # Held only without MFD_NOEXEC_SEAL: no mount or Landlock rule covers a file in memory.
        if name == "memfd_create":
            return Response(errno.ENOSYS, _RULE, {"syscall": name}, recorder_only=True)
        if name == "mmap":
            return self._judge_mapping(caller, arguments[4])
        directory, address, words, flags = constants.AT_FDCWD, *arguments[:2], 0
        if name == "execveat":
            directory, address, words, flags = *arguments[:3], arguments[4]
        path = caller.string(address) if address else ""
        # the kernel answers ENAMETOOLONG
        if path is None:
            return None
        if not path:
            # the kernel answers ENOENT
            if not flags & constants.AT_EMPTY_PATH:
                return None
            path = caller.base(directory)
            # fexecve(3): a descriptor is started by an empty path
            if not self._rules.programs:
                return self._judge_file(path)
            if not path.startswith("/") or path.startswith("/memfd:"):
                return Response(errno.EACCES, _RULE, {"path": shown(path) or _NO_PATH})
        elif not path.startswith("/"):
            path = f"{caller.base(directory)}/{path}"
        follow = not flags & constants.AT_SYMLINK_NOFOLLOW
        return self._judge_start(caller, self._canonical(caller, path, follow=follow), words)

    def _canonical(self, caller: Caller, path: str, *, follow: bool = True) -> str:
        return self._paths.canonical(caller, path, follow=follow, allowed=self._rules.programs)

    def _judge_mapping(self, caller: Caller, descriptor: int) -> Response | None:
        """A file that becomes code of a running program: a library, as a rule."""
        link = caller.link(f"fd/{descriptor & constants.UINT_MAX}")
        # a library that is replaced while it is mapped loses its name (proc(5))
        path = link.removesuffix(" (deleted)")
        if not path.startswith("/") or path.startswith(("/memfd:", "/dev/")):
            return None
        if self._rules.may_start(path):
            return None
        return self._refuse(errno.EPERM, path)

    def _refuse(self, code: int, path: str) -> Response:
        recorder_only = f"{path}/".startswith(self._rules.startable)
        return Response(code, _RULE, {"path": shown(path)}, recorder_only=recorder_only)

    def _judge_start(self, caller: Caller, path: str, words: int) -> Response | None:
        """The file, its interpreters, and the program that a dynamic loader loads."""
        for _ in range(_INTERPRETERS_MOST):
            refusal = self._judge_file(path)
            if refusal is not None or not self._paths.exists(path):
                return refusal
            interpreter = self._interpreter(path)
            if not interpreter.startswith("/"):
                break
            path = self._canonical(caller, interpreter)
        # the loader maps the program itself, which no execve names
        if not _LOADER.search(path):
            return None
        loaded = _loaded_program(caller, words)
        if "/" not in loaded:
            return None
        if not loaded.startswith("/"):
            loaded = f"{caller.base(constants.AT_FDCWD)}/{loaded}"
        return self._judge_file(self._canonical(caller, loaded))

    def _judge_file(self, path: str) -> Response | None:
        if not self._rules.programs and not path.startswith(self._rules.noexec):
            return None
        if not path or path.startswith("/memfd:"):
            return Response(errno.EACCES, _RULE, {"path": _NO_PATH})
        kind = self._paths.kind(path)
        if kind == 0:
            hidden = not path.startswith(self._rules.private) and self._paths.on_host(path)
            return Response(errno.ENOENT, _RULE, {"path": shown(path)}) if hidden else None
        if self._rules.may_start(path) or not stat.S_ISREG(kind):
            return None
        return self._refuse(errno.EACCES, path)

    def _interpreter(self, path: str) -> str:
        """The interpreter in the first line of a script; empty for any other file, or one that
        cannot be read.
        """
        try:
            descriptor = self._paths.open_file(path)
        except OSError:
            return ""
        try:
            head = os.read(descriptor, _SCRIPT_HEAD)
        except OSError:
            return ""
        finally:
            os.close(descriptor)
        if not head.startswith(b"#!"):
            return ""
        words = head[2:].split(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else ""


def _loaded_program(caller: Caller, words: int) -> str:
    """The program that a command line of the dynamic loader names; empty if it names none.

    `words` is the address of argv.
    """
    # the loader's own name
    skip = 1
    for index in range(_WORDS_MOST):
        pointer = struct.unpack("=Q", caller.memory(words + 8 * index, 8))[0] if words else 0
        if not pointer:
            return ""
        if skip:
            skip -= 1
            continue
        word = caller.string(pointer) or ""
        if not word.startswith("--"):
            return word
        skip = int(word in _LOADER_OPTIONS_WITH_VALUE)
    return ""
