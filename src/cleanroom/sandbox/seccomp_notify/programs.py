"""Judging held calls that start programs: by the file that really is started,
and by what that file starts in turn.

Landlock and mounts without exec hold the list (from High on) and the folders where nothing is
started (from Medium on); here an attempt is seen.
A script counts as its interpreter, the dynamic loader called by name as the program that it is to
load, and at High a library as what it is mapped from.

Where a workspace has build folders, only the judgement here tells them from the rest of it: who
raced it would start what he could have put into such a folder.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

NAMES = frozenset(("execve", "execveat", "memfd_create", "mmap"))

_RULE = "process.exec"
_LOADER = re.compile(r"/ld(-linux[-.\w]*|-musl-[-.\w]*|-\d[.\d]*)?\.so(\.\d+)?$|/ld-\d[.\d]*\.so$")
_LOADER_TAKES = frozenset(  # options of ld.so whose value is the next word
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
_HEAD = 256  # what the kernel reads of a script's first line
_SCRIPTS_MOST = 5  # an interpreter that is a script, and so on: the kernel's own limit
_WORDS_MOST = 32  # of a loader's command line


class Programs:
    """Judges by the list of one environment."""

    def __init__(self, rules: Rules, paths: Paths) -> None:
        self._rules = rules
        self._paths = paths

    def judge(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """None lets the kernel go on, which has the same list."""
        if (
            name == "memfd_create"
            # only without the flag that takes the right to be executed away;
            # no mount or Landlock rule covers such a file
        ):
            return Response(errno.ENOSYS, _RULE, {"syscall": name}, alone=True)
        if name == "mmap":
            return self._mapped(caller, arguments[4])
        directory, at, words, flags = (
            (-100, 0, 1, 0) if name == "execve" else (arguments[0], 1, 2, arguments[4])
        )
        said = caller.string(arguments[at]) if arguments[at] else ""
        if said is None:
            return None  # ENAMETOOLONG
        if not said:
            if not flags & constants.AT_EMPTY_PATH:
                return None  # ENOENT
            said = caller.base(directory)
            if not self._rules.programs:
                return self._file(said)
            if not said.startswith("/") or said.startswith("/memfd:"):
                return Response(
                    errno.EACCES, _RULE, {"path": shown(said) or "a descriptor without a path"}
                )
        elif not said.startswith("/"):
            said = f"{caller.base(directory)}/{said}"
        found = self._paths.canonical(
            caller,
            said,
            follow=not flags & constants.AT_SYMLINK_NOFOLLOW,
            allowed=self._rules.programs,
        )
        return self._started(caller, found, arguments[words])

    def _mapped(self, caller: Caller, descriptor: int) -> Response | None:
        """A file that becomes part of a running program: a library, as a rule."""
        path = caller.link(f"fd/{descriptor & constants.UINT_MAX}").removesuffix(" (deleted)")
        if (
            not path.startswith("/")
            or path.startswith(("/memfd:", "/dev/"))
            or self._rules.may_start(path)
        ):
            return None
        return self._refused(errno.EPERM, path)

    def _refused(self, code: int, path: str) -> Response:
        # where the kernel would let it be started, nothing but this stops it
        alone = f"{path}/".startswith(self._rules.startable)
        return Response(code, _RULE, {"path": shown(path)}, alone=alone)

    def _started(self, caller: Caller, path: str, words: int) -> Response | None:
        """The file, then whatever it needs to be started by."""
        for _ in range(_SCRIPTS_MOST):
            refusal = self._file(path)
            if refusal is not None or not self._paths.exists(path):
                return refusal
            interpreter = self._interpreter(path)
            if not interpreter.startswith("/"):
                break
            path = self._paths.canonical(
                caller, interpreter, follow=True, allowed=self._rules.programs
            )
        if _LOADER.search(path):
            loaded = _loaded(caller, words)
            if loaded and "/" in loaded:
                loaded = loaded if loaded.startswith("/") else f"{caller.base(-100)}/{loaded}"
                return self._file(
                    self._paths.canonical(caller, loaded, follow=True, allowed=self._rules.programs)
                )
        return None

    def _file(self, path: str) -> Response | None:
        if not self._rules.programs and not path.startswith(self._rules.not_started):
            return None
        if not path or path.startswith("/memfd:"):
            return Response(errno.EACCES, _RULE, {"path": "a descriptor without a path"})
        kind = self._paths.kind(path)
        if kind == 0:
            hidden = not path.startswith(self._rules.own) and self._paths.on_host(path)
            return Response(errno.ENOENT, _RULE, {"path": shown(path)}) if hidden else None
        if self._rules.may_start(path) or not stat.S_ISREG(kind):
            return None
        return self._refused(errno.EACCES, path)

    def _interpreter(self, path: str) -> str:
        """What the first line of a script names; empty for what is none, or cannot be read."""
        try:
            descriptor = self._paths.open_file(path)
        except OSError:
            return ""
        try:
            head = os.read(descriptor, _HEAD)
        except OSError:
            return ""
        finally:
            os.close(descriptor)
        if not head.startswith(b"#!"):
            return ""
        named = head[2:].split(b"\n")[0].split()
        return os.fsdecode(named[0]) if named else ""


def _loaded(caller: Caller, words: int) -> str:
    """The program that a command line of the dynamic loader names; empty if it names none."""
    skip = 1  # the loader's own name
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
        skip = int(word in _LOADER_TAKES)
    return ""
