"""Performs a mount plan: builds an environment's root in a mount namespace and pivots into it.

Runs in init with the privileges of the namespace (or of root), before they are given up.
Every failure fails the start: a mount that could not be made read-only must never be let through.
Mounts are cloned from the host with open_tree(2), restricted with mount_setattr(2) while nobody
sees them, and attached with move_mount(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, assert_never

from cleanroom.sandbox.filesystem.trees import NEW_FILE
from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SENDFILE_BYTES = 1 << 20
_MS_GUARDED = constants.MS_NOSUID | constants.MS_NODEV
_ATTR_GUARDED = constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NODEV
_ATTR_READ_ONLY = _ATTR_GUARDED | constants.MOUNT_ATTR_RDONLY


class Owner(NamedTuple):
    """Owner of the environment's private folders, in the ids of this process's user namespace."""

    user: int
    group: int
    # descriptor of a user namespace for idmapped mounts (since 5.12); 0 if ids need no map
    id_map: int


class _Clone(NamedTuple):
    """A clone of one of the host's mounts, and its restrictions."""

    # a path of the host
    source: str
    # a path inside
    target: str
    # MOUNT_ATTR_* to set and to clear
    attributes: int
    clear: int = 0
    # whether mounts below the source are cloned too
    recursive: bool = False
    # as `Owner.id_map`
    id_map: int = 0
    # whether a file system that cannot be idmapped is attached as it is
    id_map_optional: bool = False


def build(mount_ops: Sequence[protocol.MountOp], root: str, owner: Owner) -> None:
    """Enter a private mount namespace, build the root at the empty folder `root` and pivot into it.

    Raises:
        OSError: something could not be put in place; its file name says what.
    """
    stage(mount_ops, root, owner)
    # Only the root itself: without AT_RECURSIVE mounts below keep their flags (mount_setattr(2)).
    syscalls.mount_setattr(constants.AT_FDCWD, root, 0, attr_set=constants.MOUNT_ATTR_RDONLY)
    os.chdir(root)
    # pivot_root(2), "pivot_root(".", ".")": the old root lies on top of the new one until it is
    # unmounted.
    syscalls.pivot_root(".", ".")
    # MNT_DETACH: the host's mounts below the old root would make it EBUSY (umount(2)).
    syscalls.umount2(".", constants.MNT_DETACH)
    os.chdir("/")


def stage(mount_ops: Sequence[protocol.MountOp], root: str, owner: Owner) -> None:
    """Enter a private mount namespace and build the root at the empty folder `root`.

    Raises as `build` does.
    """
    syscalls.unshare(constants.CLONE_NEWNS)
    # Copies of shared mounts stay peers of the host's: what is mounted here would appear there
    # (mount_namespaces(7)). pivot_root(2) fails with EINVAL below a shared mount, too.
    syscalls.mount(None, "/", None, constants.MS_REC | constants.MS_PRIVATE)
    # pivot_root(2) takes a mount point only (EINVAL), and this one carries the others.
    syscalls.mount("tmpfs", root, "tmpfs", _MS_GUARDED, "mode=755,size=16m")
    for mount in mount_ops:
        _perform(root, mount, owner)


def _perform(root: str, mount: protocol.MountOp, owner: Owner) -> None:
    match mount["kind"]:
        case "unbindable":
            # Keep the root out of clones of the host's folder in which it is built, which would
            # show it a second time.
            syscalls.mount(None, root, None, constants.MS_UNBINDABLE)
        case "folder":
            os.makedirs(_at(root, mount["target"]), mode=0o755, exist_ok=True)
        case "link":
            os.symlink(mount["to"], _at(root, mount["target"]))
        case "file":
            _write(_at(root, mount["target"]), mount["text"].encode())
        case "files":
            _files(root, mount)
        case "replace":
            _replace(root, mount)
        case "tmpfs":
            _tmpfs(root, mount, owner)
        case "proc":
            _proc(root, mount)
        case "devpts":
            _devpts(root, mount)
        case "device":
            _device(root, mount)
        case "bind":
            _bind(root, mount, owner)
        case "overlay":
            _overlay(root, mount, owner)
        case "exec":
            _exec_folder(root, mount)
        case "pin":
            _pin(root, mount)
        case _:
            assert_never(mount)


def _at(root: str, path: str) -> str:
    assert path.startswith("/"), path
    assert ".." not in path.split("/"), path
    at = root
    for name in path.split("/")[1:-1]:
        at = f"{at}/{name}"
        # An absolute link is resolved from the host's root until pivot_root(2).
        if os.path.islink(at) and os.path.isabs(os.readlink(at)):
            raise OSError(errno.ELOOP, "it lies behind a link of the environment's own root", path)
    return root + path


def _exec_folder(root: str, mount: protocol.ExecFolder) -> None:
    """Mount a folder of the workspace over itself without MS_NOEXEC."""
    target = _at(root, mount["target"])
    if not _is_folder_within(target, _at(root, mount["workspace"])):
        # No folder, or a link that leads elsewhere: no program in it may be started.
        return
    attributes = _ATTR_GUARDED if mount["writable"] else _ATTR_READ_ONLY
    # A clone inherits the flags of its mount. They may be cleared because that mount was made in
    # this namespace: those of inherited mounts are locked in a user namespace (EPERM,
    # mount_namespaces(7)).
    _attach(root, _Clone(target, mount["target"], attributes, clear=constants.MOUNT_ATTR_NOEXEC))


def _pin(root: str, mount: protocol.PinFolder) -> None:
    """Mount a folder over itself: rename(2) and rmdir(2) of a mount point fail with EBUSY."""
    target = _at(root, mount["target"])
    if os.path.isdir(target) and not os.path.islink(target):
        _attach(root, _Clone(target, mount["target"], _ATTR_GUARDED))


def _is_folder_within(path: str, folder: str) -> bool:
    """Whether `path` is a folder, and no link on the way from `folder` leads elsewhere."""
    return os.path.isdir(path) and os.path.realpath(path) == os.path.join(
        os.path.realpath(folder), os.path.relpath(path, folder)
    )


def _write(path: str, data: bytes, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, NEW_FILE, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _files(root: str, mount: protocol.MakeFiles) -> None:
    """Make a folder with some texts, and copies of the host's small files.

    A file that this user may not read is left out.
    """
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    folder = os.open(target, _FOLDER)
    try:
        host = os.open(mount["source"], _FOLDER)
        try:
            for name, text in mount["texts"].items():
                made = os.open(name, NEW_FILE, 0o644, dir_fd=folder)
                os.write(made, text.encode())
                os.close(made)
            for name in mount["copied"]:
                _copy(host, folder, name)
        finally:
            os.close(host)
    finally:
        os.close(folder)


def _copy(host: int, folder: int, name: str) -> None:
    try:
        source = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=host)
    except (PermissionError, FileNotFoundError):
        return
    try:
        made = os.open(name, NEW_FILE, 0o644, dir_fd=folder)
        try:
            # sendfile(2) may send a part; 0 is the end of the file.
            while os.sendfile(made, source, None, _SENDFILE_BYTES):
                pass
        finally:
            os.close(made)
    finally:
        os.close(source)


def _replace(root: str, mount: protocol.ReplaceFile) -> None:
    """Mount a text over a file of a shown folder."""
    # The staging folder is a file system of its own: open_tree(2) refuses to clone a mount that is
    # MS_UNBINDABLE, as the root is at level Low.
    staging = f"{root}{mount['staging']}"
    # A path can be longer than a name may be.
    text = f"{staging}/{len(os.listdir(staging))}"
    _write(text, mount["text"].encode("utf-8", "surrogateescape"))
    if os.path.lexists(_at(root, mount["target"])):
        _attach(root, _Clone(text, mount["target"], _ATTR_READ_ONLY))


def _tmpfs(root: str, mount: protocol.Tmpfs, owner: Owner) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    # Without `size` the limit is half of the memory (tmpfs(5)); covers are read-only and need
    # none.
    options = [f"mode={mount['mode']:o}"]
    if mount["size"]:
        # `size` limits the pages of files only; empty files count as inodes (tmpfs(5)).
        options += [f"size={mount['size']}", "nr_inodes=200k"]
    if mount["own"]:
        options += [f"uid={owner.user}", f"gid={owner.group}"]
    flags = (
        _MS_GUARDED
        | (0 if mount["exec"] else constants.MS_NOEXEC)
        | (constants.MS_RDONLY if mount["read_only"] else 0)
    )
    syscalls.mount("tmpfs", target, "tmpfs", flags, ",".join(options))


def _proc(root: str, mount: protocol.Proc) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    # It shows the pid namespace of the process that mounts it (pid_namespaces(7)). `hidepid` is an
    # option of this instance since 5.8; before it was one of the pid namespace.
    syscalls.mount(
        "proc", target, "proc", _MS_GUARDED | constants.MS_NOEXEC, mount["options"] or None
    )


def _devpts(root: str, mount: protocol.Devpts) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    syscalls.mount(
        "devpts",
        target,
        "devpts",
        # No MS_NODEV: terminals are devices.
        constants.MS_NOSUID | constants.MS_NOEXEC,
        # devpts: each mount is an instance of its own since 4.7, and newinstance is accepted
        # still. Without ptmxmode its ptmx has mode 0000, and nobody could open it.
        "newinstance,ptmxmode=0666,mode=0620",
    )


def _device(root: str, mount: protocol.Device) -> None:
    # The host's node is bound: mknod(2) of a device fails with EPERM in a user namespace.
    # MOUNT_ATTR_NODEV would forbid to open it.
    attributes = constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NOEXEC
    _attach(root, _Clone(mount["source"], mount["target"], attributes))


def _bind(root: str, mount: protocol.Bind, owner: Owner) -> None:
    if mount["optional"] and not os.path.lexists(mount["source"]):
        # It went away since the plan was made.
        return
    source, target = mount["source"], mount["target"]
    if mount["writable"]:
        _attach(root, _Clone(source, target, _ATTR_GUARDED, id_map=owner.id_map))
        return
    clone = _Clone(
        source,
        target,
        _ATTR_READ_ONLY,
        recursive=True,
        # The caller's tools are read with the caller's rights, also in a folder that root closed
        # to others.
        id_map=owner.id_map if mount["tool"] else 0,
        id_map_optional=True,
    )
    _attach(root, clone)


def _attach(root: str, clone: _Clone) -> None:
    """Clone a mount, restrict the clone while it is detached, then attach it.

    Raises:
        OSError: the target is its file name, the source stands in its text.
    """
    tree = -1
    try:
        tree = _restricted(clone)
        target = _at(root, clone.target)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.makedirs(target, exist_ok=True)
        # The kernel mounts a folder on a folder only, and a file on a file (else EINVAL).
        elif not os.path.lexists(target):
            _write(target, b"")
        syscalls.move_mount(tree, "", constants.AT_FDCWD, target, constants.MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        text = f"showing {clone.source}: {error.strerror}"
        raise OSError(error.errno, text, clone.target) from None
    finally:
        if tree >= 0:
            os.close(tree)


def _restricted(clone: _Clone) -> int:
    """A descriptor of the detached clone; on failure nothing stays open."""
    deep = constants.AT_RECURSIVE if clone.recursive else 0
    # Without AT_RECURSIVE the clone has the mount itself, and none of those below it
    # (open_tree(2)).
    flags = constants.OPEN_TREE_CLONE | constants.OPEN_TREE_CLOEXEC | deep
    tree = syscalls.open_tree(constants.AT_FDCWD, clone.source, flags)
    try:
        syscalls.mount_setattr(
            tree,
            "",
            constants.AT_EMPTY_PATH | deep,
            attr_set=clone.attributes,
            attr_clear=clone.clear,
        )
        # Before it is attached: only a detached mount can be idmapped (EINVAL, mount_setattr(2)).
        if clone.id_map:
            _map_ids(tree, clone)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _map_ids(tree: int, clone: _Clone) -> None:
    try:
        syscalls.mount_setattr(
            tree,
            "",
            constants.AT_EMPTY_PATH,
            attr_set=constants.MOUNT_ATTR_IDMAP,
            user_namespace=clone.id_map,
        )
    except OSError:
        # EINVAL from a file system without FS_ALLOW_IDMAP: files that are closed to others stay so.
        if not clone.id_map_optional:
            raise


# Where overlayfs marks the work folder of the uppermost layer (ovl_create_volatile_dirty).
_VOLATILE_MARK = "l0/work/work/incompat/volatile"


def _overlay(root: str, mount: protocol.Overlay, owner: Owner) -> None:
    """Mount an overlay: the lower folder, kept ones and layers above it, the newest written.

    Layers are attached under short names in one folder, and options are relative to it:
    mount(2) takes one page of options.
    """
    stage = f"{root}/.stage"
    names = [f"l{index}" for index in range(len(mount["layers"]))]
    below = [f"k{index}" for index in range(len(mount["kept"]))] + ["p"]
    sources = dict(zip(names, mount["layers"], strict=True))
    sources |= dict(zip(below, [*mount["kept"], mount["lower"]], strict=True))
    for name, source in sources.items():
        # Layers belong to the environment's user on disk already.
        # An idmapped upper layer would refuse (EOVERFLOW) what overlayfs itself makes as root.
        id_map = owner.id_map if name in below else 0
        _attach(root, _Clone(source, f"/.stage/{name}", _ATTR_GUARDED, id_map=id_map))
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    lower = ":".join([*(f"{name}/upper" for name in names[1:]), *below])
    os.chdir(stage)
    flags = _MS_GUARDED | (0 if mount["exec"] else constants.MS_NOEXEC)
    # volatile (since 5.10): no sync of the upper file system. A layer lives no longer than its run,
    # so neither a first change of a file nor the end has to wait for the disk.
    # userxattr (since 5.11): marks are user.overlay.*, which need no CAP_SYS_ADMIN.
    options = f"lowerdir={lower},upperdir=l0/upper,workdir=l0/work,userxattr,volatile"
    # A volatile overlay leaves a mark, so that its layer is not mounted again after a crash of the
    # machine. This one's, of a service that is restarted, ended on a machine that runs on.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{_VOLATILE_MARK}/dirty")
        os.rmdir(_VOLATILE_MARK)
    # overlayfs: the leftmost lower folder is the uppermost, and "work" has to be an empty folder
    # on the file system of "upper".
    syscalls.mount("overlay", target, "overlay", flags, options)
    os.chdir("/")
    for name in sources:
        # overlayfs holds private clones of its layers' mounts, and needs their names no longer.
        syscalls.umount2(f"{stage}/{name}", constants.MNT_DETACH)
        os.rmdir(f"{stage}/{name}")
    os.rmdir(stage)
