"""The first look at a held call: whether it plainly stays inside, which nearly all do,
said in as few steps as possible.

A path that is written below a writable folder, without ".." and without a link on its way,
leads where it says.
Whatever is not as plain as that is left to the full judgement, which knows every case;
this one never refuses.
Paths stay bytes, as the kernel has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.kernel.constants import AT_FDCWD_U32, UINT_MAX
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.seccomp_notify import files
from cleanroom.sandbox.seccomp_notify import modes as held_modes
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Rules

_FIXED = b".ggen"  # names that stay, which the full judgement knows
_HERE = -1  # in place of a folder's index: the working directory


class FastPath:
    """Looks by the rules of one environment.

    `proc` is a descriptor of /proc as the recorder sees it.
    """

    def __init__(self, rules: Rules, proc: int, paths: Paths) -> None:
        self._proc, self._paths = proc, paths
        self._open_folders = tuple(map(os.fsencode, rules.writable))
        self._closed = tuple(map(os.fsencode, rules.closed))
        self._places = _places()

    def stays_inside(self, pid: int, number: int, arguments: Sequence[int]) -> bool:
        """Whether system call `number` of thread `pid` plainly changes nothing but what may be
        written; False says nothing.
        """
        known = self._places.get(number)
        if known is None:
            return False
        places, mode_at = known
        if mode_at >= 0 and arguments[mode_at] & held_modes.BITS:
            return False
        for folder, at in places:
            path = syscalls.peek(pid, arguments[at])
            if not path or _FIXED in path:
                return False
            if path[:1] != b"/":
                base = self._base(
                    pid, arguments[folder] & UINT_MAX if folder >= 0 else AT_FDCWD_U32
                )
                path = b"%b/%b" % (base, path)
            place = path + b"/"
            if (
                not place.startswith(self._open_folders)
                or place.startswith(self._closed)
                or b"/../" in place
            ):
                return False
            if not self._paths.plain(path):
                return False
        return True

    def _base(self, pid: int, folder: int) -> bytes:
        """The folder that a relative path starts from; what is no folder lies below nothing that
        may be written.
        """
        try:
            base = os.readlink(
                b"%d/cwd" % pid if folder == AT_FDCWD_U32 else b"%d/fd/%d" % (pid, folder),
                dir_fd=self._proc,
            )
        except OSError:
            return b""
        return b"" if base.endswith(b" (deleted)") else base


def _places() -> dict[int, tuple[tuple[tuple[int, int], ...], int]]:
    """For each call's number here: the indexes of its folders and paths, and of its mode or -1."""
    modes = held_modes.CHANGED_AT | held_modes.MADE_AT
    found = {}
    for name, places in files.changed_places().items():
        if name in NUMBERS:
            folders = [_HERE if place.directory is None else place.directory for place in places]
            paths = [place.path for place in places]
            pairs = tuple(zip(folders, paths, strict=True))
            found[NUMBERS[name]] = pairs, modes.get(name, -1)
    return found
