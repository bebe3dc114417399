"""The fast path of a held call: does it plainly stay inside, as nearly all do?

It takes as few steps as possible.

A path below a writable folder, without ".." and without a link on its way, leads where it is
written.
Any other is left to `files`, which knows every case; this module never refuses.
Paths stay bytes, as the kernel has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.kernel.constants import AT_FDCWD_U32, UINT_MAX
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.seccomp_notify import files, modes
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Rules

# part of the names that `Rules.is_fixed` knows
_FIXED_NAME = b".ggen"
# in place of the index of a folder's descriptor: the working directory
_WORKING_DIRECTORY = -1


class FastPath:
    """Judges by the rules of one environment.

    `proc_fd` is a descriptor of /proc as the recorder sees it.
    """

    def __init__(self, rules: Rules, proc_fd: int, paths: Paths) -> None:
        self._proc_fd = proc_fd
        self._paths = paths
        self._writable = tuple(map(os.fsencode, rules.writable))
        self._nested_tools = tuple(map(os.fsencode, rules.nested_tools))
        self._arguments = _arguments_by_number()

    def stays_inside(self, pid: int, number: int, arguments: Sequence[int]) -> bool:
        """Whether system call `number` of thread `pid` plainly changes only what may be written.

        False means nothing.
        """
        return self.inside_paths(pid, number, arguments) is not None

    def inside_paths(self, pid: int, number: int, arguments: Sequence[int]) -> list[bytes] | None:
        """The paths that such a call changes, none of which has a link on its way; else None."""
        known = self._arguments.get(number)
        if known is None:
            return None
        found = []
        paths, mode_index = known
        if mode_index >= 0 and arguments[mode_index] & modes.BITS:
            return None
        for directory, index in paths:
            # None where the path is long or crosses a page, or the memory may not be read
            path = syscalls.peek(pid, arguments[index])
            if not path or _FIXED_NAME in path:
                return None
            if path[:1] != b"/":
                folder = arguments[directory] & UINT_MAX if directory >= 0 else AT_FDCWD_U32
                path = b"%b/%b" % (self._base(pid, folder), path)
            prefix = path + b"/"
            if not prefix.startswith(self._writable) or prefix.startswith(self._nested_tools):
                return None
            # the kernel resolves ".." by the folder it is in, not by the text (path_resolution(7))
            if b"/../" in prefix or not self._paths.plain(path):
                return None
            found.append(path)
        return found

    def _base(self, pid: int, folder: int) -> bytes:
        """The folder that a relative path starts from; empty where there is none."""
        link = b"%d/cwd" % pid if folder == AT_FDCWD_U32 else b"%d/fd/%d" % (pid, folder)
        try:
            base = os.readlink(link, dir_fd=self._proc_fd)
        except OSError:
            return b""
        # no path leads to a folder that was removed (proc(5))
        return b"" if base.endswith(b" (deleted)") else base


def _arguments_by_number() -> dict[int, tuple[tuple[tuple[int, int], ...], int]]:
    """Number of a call here -> indexes of its folders and paths, and of its mode or -1."""
    mode_arguments = modes.CHANGE_MODE_ARGUMENT | modes.CREATE_MODE_ARGUMENT
    found = {}
    for name, arguments in files.path_arguments().items():
        if name in NUMBERS:
            pairs = tuple((_directory(argument), argument.path) for argument in arguments)
            found[NUMBERS[name]] = pairs, mode_arguments.get(name, -1)
    return found


def _directory(argument: files.PathArgument) -> int:
    return _WORKING_DIRECTORY if argument.directory is None else argument.directory
