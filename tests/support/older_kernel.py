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
from cleanroom.sandbox.seccomp import bpf

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
    asm = bpf.Assembler()
    asm.load(bpf.NR)
    if "namespaces" in names:
        for name in ("unshare", "clone"):
            asm.jump_if(constants.BPF_JEQ_K, number(name), name)
        for name in REFUSED:
            asm.jump_if(constants.BPF_JEQ_K, number(name), "refused")
        asm.jump_if(constants.BPF_JEQ_K, number("clone3"), "absent")
    for name in names:
        for call in LANDLOCK if name == "landlock" else (name,) if name != "namespaces" else ():
            asm.jump_if(constants.BPF_JEQ_K, number(call), "absent")
    asm.ret(constants.SECCOMP_RET_ALLOW)
    for name in ("unshare", "clone"):
        asm.label(name)
        asm.load(bpf.argument(0))
        asm.jump_if(constants.BPF_JSET_K, constants.CLONE_NEW_ANY, "refused")
        asm.ret(constants.SECCOMP_RET_ALLOW)
    asm.label("refused")
    asm.ret(constants.SECCOMP_RET_ERRNO | errno.EPERM)
    asm.label("absent")
    asm.ret(constants.SECCOMP_RET_ERRNO | errno.ENOSYS)
    return asm.assemble()


if __name__ == "__main__":
    bpf.install(program(sys.argv[1].split(",")), listener=False)
    os.execvp(sys.argv[3], sys.argv[3:])
