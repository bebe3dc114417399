"""Runs a command on what looks like an older or stricter kernel:
`python older_kernel.py NAME[,NAME...] -- COMMAND...`.

Each name is a system call that answers ENOSYS, or `namespaces`:
what a container's default profile refuses with EPERM.
The filter is installed in this process before the command, so all that it starts has it.
"""

from __future__ import annotations

import errno
import os
import sys

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.syscall_numbers import number
from cleanroom.sandbox.seccomp import filters

REFUSED = (
    "mount",
    "umount2",
    "setns",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsmount",
    "mount_setattr",
    "pivot_root",
    "pidfd_getfd",
)
LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def program(names: list[str]) -> bytes:
    """The filter."""
    asm = filters.Assembler()
    asm.load(filters.NUMBER)
    if "namespaces" in names:
        for name in ("unshare", "clone"):
            asm.when(filters.EQUAL, number(name), name)
        for name in REFUSED:
            asm.when(filters.EQUAL, number(name), "refused")
        asm.when(filters.EQUAL, number("clone3"), "absent")
    for name in names:
        for call in LANDLOCK if name == "landlock" else (name,) if name != "namespaces" else ():
            asm.when(filters.EQUAL, number(call), "absent")
    asm.answer(filters.ALLOW)
    for name in ("unshare", "clone"):
        asm.place(name)
        asm.load(filters.argument(0))
        asm.when(filters.ANY_BIT, constants.CLONE_NEW_ANY, "refused")
        asm.answer(filters.ALLOW)
    asm.place("refused")
    asm.answer(filters.AND_ERRNO | errno.EPERM)
    asm.place("absent")
    asm.answer(filters.AND_ERRNO | errno.ENOSYS)
    return asm.program()


if __name__ == "__main__":
    filters.install(program(sys.argv[1].split(",")), listener=False)
    os.execvp(sys.argv[3], sys.argv[3:])
