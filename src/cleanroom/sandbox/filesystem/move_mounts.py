"""Showing folders inside a container that somebody else made:
mounts are built aside and moved into its mount namespace.

What is moved hangs on no path of the host: it ends with the container,
and until it is moved with this process.
Needs root, and the target paths to exist.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cleanroom.sandbox.filesystem import mounts
from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MountOp


def show(
    mount_ops: Sequence[MountOp],
    targets: Sequence[str],
    root: str,
    owner: mounts.Owner,
    container: int,
) -> None:
    """Carry out `mount_ops` on a root of our own at the empty folder `root`,
    then move `targets` of it into the mount namespace of the process `container`.

    A target that the container does not have is left out if it is a file.
    Enters namespaces, so call it in a child.

    Raises:
        OSError: something could not be put in place; its file name says what.
    """
    theirs = os.open(f"/proc/{container}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    mounts.stage(mount_ops, root, owner)
    trees = [(target, _tree(root + target)) for target in targets]
    syscalls.setns(theirs, constants.CLONE_NEWNS)
    for target, tree in trees:
        if os.path.islink(target):
            raise OSError(errno.ELOOP, "it is a link in the image", target)
        if not os.path.lexists(target) and not stat.S_ISDIR(os.fstat(tree).st_mode):
            continue
        try:
            syscalls.move_mount(
                tree, "", constants.AT_FDCWD, target, constants.MOVE_MOUNT_F_EMPTY_PATH
            )
        except OSError as error:
            raise OSError(
                error.errno, f"showing it in the container: {error.strerror}", target
            ) from None


def _tree(path: str) -> int:
    return syscalls.open_tree(
        constants.AT_FDCWD,
        path,
        constants.OPEN_TREE_CLONE
        | constants.OPEN_TREE_CLOEXEC
        | constants.AT_RECURSIVE
        | constants.AT_SYMLINK_NOFOLLOW,
    )
