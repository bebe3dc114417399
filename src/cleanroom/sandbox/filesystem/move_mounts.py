"""Showing folders inside a container that an engine made.

Mounts are built in a mount namespace of our own, then moved into the container's.
They hang on no path of the host, so they end with the container,
and before they are moved with this process.
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
    """Build `mount_ops` at the empty folder `root`, then move its `targets` into a container.

    `container` is a process in the container's mount namespace.
    A file that the container does not have is left out.
    Enters namespaces, so call it in a child.

    Raises:
        OSError: something could not be put in place; its file name says what.
    """
    namespace = os.open(f"/proc/{container}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    mounts.stage(mount_ops, root, owner)
    # Clones of open_tree(2) are detached: move_mount(2) attaches them in the namespace entered.
    trees = [(target, _detached_clone(root + target)) for target in targets]
    # Root and working folder become those of the namespace, so targets are the container's paths.
    # EINVAL in a process that shares them with another one, as threads do (setns(2)).
    syscalls.setns(namespace, constants.CLONE_NEWNS)
    for target, tree in trees:
        # Without MOVE_MOUNT_T_SYMLINKS move_mount(2) covers the link itself, and its target stays.
        if os.path.islink(target):
            raise OSError(errno.ELOOP, "it is a link in the image", target)
        # A missing folder stays an error: move_mount(2) fails with ENOENT.
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


def _detached_clone(path: str) -> int:
    return syscalls.open_tree(
        constants.AT_FDCWD,
        path,
        constants.OPEN_TREE_CLONE
        | constants.OPEN_TREE_CLOEXEC
        | constants.AT_RECURSIVE
        | constants.AT_SYMLINK_NOFOLLOW,
    )
