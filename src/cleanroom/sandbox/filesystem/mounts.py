"""Carries out a layout: builds an environment's root in a mount namespace of its own and makes it
the root.

Runs in init with the privileges of the namespace (or of root), before they are given up.
Every failure fails the start: a mount that could not be made read-only must never be let through.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, assert_never

from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_GUARDED = constants.MS_NOSUID | constants.MS_NODEV


class Owner(NamedTuple):
    """Whose the environment's private folders are, as this process names the ids,
    and the map for writable host folders.
    """

    user: int
    group: int
    id_map: int  # descriptor of a user namespace for idmapped mounts; 0 where ids need no map


def build(mount_ops: Sequence[protocol.MountOp], root: str, owner: Owner) -> None:
    """Enter a private mount namespace, build the root at the empty folder `root` and pivot into it.

    Raises:
        OSError: something could not be put in place; its file name says what.
    """
    stage(mount_ops, root, owner)
    syscalls.mount_setattr(constants.AT_FDCWD, root, 0, attr_set=constants.MOUNT_ATTR_RDONLY)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", constants.MNT_DETACH)
    os.chdir("/")


def stage(mount_ops: Sequence[protocol.MountOp], root: str, owner: Owner) -> None:
    """Enter a private mount namespace and build the root at the empty folder `root`.

    Raises as `build` does.
    """
    syscalls.unshare(constants.CLONE_NEWNS)
    syscalls.mount(None, "/", None, constants.MS_REC | constants.MS_PRIVATE)
    syscalls.mount("tmpfs", root, "tmpfs", _GUARDED, "mode=755,size=16m")
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
        # it would lead to the host's folder of that name
        if os.path.islink(at) and os.path.isabs(os.readlink(at)):
            raise OSError(errno.ELOOP, "it lies behind a link of the environment's own root", path)
    return root + path


def _exec_folder(root: str, mount: protocol.ExecFolder) -> None:
    """A folder of the workspace once more at its own place, where programs may be started."""
    target = _at(root, mount["target"])
    if not _inside(target, _at(root, mount["workspace"])):
        return  # no folder, or a link that leads elsewhere: nothing in it may be started
    attributes = (
        constants.MOUNT_ATTR_NOSUID
        | constants.MOUNT_ATTR_NODEV
        | (0 if mount["writable"] else constants.MOUNT_ATTR_RDONLY)
    )
    _attach(
        root,
        mount["target"],
        target,
        attributes,
        recursive=False,
        clear=constants.MOUNT_ATTR_NOEXEC,
    )


def _pin(root: str, mount: protocol.PinFolder) -> None:
    """A folder once more at its own place: a mount point is not renamed, removed or exchanged."""
    target = _at(root, mount["target"])
    if os.path.isdir(target) and not os.path.islink(target):
        attributes = constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NODEV
        _attach(root, mount["target"], target, attributes, recursive=False)


def _inside(path: str, folder: str) -> bool:
    return os.path.isdir(path) and os.path.realpath(path) == os.path.join(
        os.path.realpath(folder), os.path.relpath(path, folder)
    )


def _write(path: str, data: bytes, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, _NEW, mode)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _files(root: str, mount: protocol.MakeFiles) -> None:
    """A folder with some texts and copies of the host's small files;
    one that this user may not read is not there inside either.
    """
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    folder = os.open(target, _FOLDER)
    try:
        host = os.open(mount["source"], _FOLDER)
        try:
            for name, text in mount["texts"].items():
                made = os.open(name, _NEW, 0o644, dir_fd=folder)
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
        given = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=host)
    except (PermissionError, FileNotFoundError):
        return
    try:
        made = os.open(name, _NEW, 0o644, dir_fd=folder)
        try:
            while os.sendfile(made, given, None, _PIECE):
                pass
        finally:
            os.close(made)
    finally:
        os.close(given)


def _replace(root: str, mount: protocol.ReplaceFile) -> None:
    """A text in the place of a file that a shown folder has."""
    # a file system of its own: a clone of the root's is refused
    held = f"{mount['staging']}/{mount['target'].replace('/', '-')}"
    _write(root + held, mount["text"].encode("utf-8", "surrogateescape"))
    if os.path.lexists(_at(root, mount["target"])):
        attributes = (
            constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NODEV | constants.MOUNT_ATTR_RDONLY
        )
        _attach(root, mount["target"], root + held, attributes, recursive=False)


def _tmpfs(root: str, mount: protocol.Tmpfs, owner: Owner) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    options = [f"mode={mount['mode']:o}"]
    if mount["size"]:
        options += [f"size={mount['size']}", "nr_inodes=200k"]
    if mount["own"]:
        options += [f"uid={owner.user}", f"gid={owner.group}"]
    flags = (
        _GUARDED
        | (0 if mount["exec"] else constants.MS_NOEXEC)
        | (constants.MS_RDONLY if mount["read_only"] else 0)
    )
    syscalls.mount("tmpfs", target, "tmpfs", flags, ",".join(options))


def _proc(root: str, mount: protocol.Proc) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    syscalls.mount("proc", target, "proc", _GUARDED | constants.MS_NOEXEC, mount["options"] or None)


def _devpts(root: str, mount: protocol.Devpts) -> None:
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    syscalls.mount(
        "devpts",
        target,
        "devpts",
        constants.MS_NOSUID | constants.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )


def _device(root: str, mount: protocol.Device) -> None:
    _attach(
        root,
        mount["target"],
        mount["source"],
        constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NOEXEC,
        recursive=False,
    )


def _bind(root: str, mount: protocol.Bind, owner: Owner) -> None:
    attributes = constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NODEV
    if mount["optional"] and not os.path.lexists(mount["source"]):
        return  # it went away meanwhile
    if mount["writable"]:
        _attach(
            root, mount["target"], mount["source"], attributes, recursive=False, id_map=owner.id_map
        )
        return
    # The caller's own tools are read as the caller reads them,
    # also where a folder of root's is closed to others.
    id_map = owner.id_map if mount["tool"] else 0
    _attach(
        root,
        mount["target"],
        mount["source"],
        attributes | constants.MOUNT_ATTR_RDONLY,
        recursive=True,
        id_map=id_map,
        must_map=False,
    )


def _attach(
    root: str,
    at: str,
    source: str,
    attributes: int,
    *,
    recursive: bool,
    id_map: int = 0,
    must_map: bool = True,
    clear: int = 0,
) -> None:
    """Clone the mount at `source`, restrict the clone while nobody sees it,
    then put it in place.
    """
    deep = constants.AT_RECURSIVE if recursive else 0
    tree = -1
    try:
        tree = syscalls.open_tree(
            constants.AT_FDCWD,
            source,
            constants.OPEN_TREE_CLONE | constants.OPEN_TREE_CLOEXEC | deep,
        )
        syscalls.mount_setattr(
            tree, "", constants.AT_EMPTY_PATH | deep, attr_set=attributes, attr_clear=clear
        )
        if id_map:
            try:
                syscalls.mount_setattr(
                    tree,
                    "",
                    constants.AT_EMPTY_PATH,
                    attr_set=constants.MOUNT_ATTR_IDMAP,
                    user_namespace=id_map,
                )
            # a file system without id maps: what is closed to others then stays closed
            except OSError:
                if must_map:
                    raise
        target = _at(root, at)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.makedirs(target, exist_ok=True)
        elif not os.path.lexists(target):
            _write(target, b"")
        syscalls.move_mount(tree, "", constants.AT_FDCWD, target, constants.MOVE_MOUNT_F_EMPTY_PATH)
    except OSError as error:
        raise OSError(error.errno, f"showing {source}: {error.strerror}", at) from None
    finally:
        if tree >= 0:
            os.close(tree)


def _overlay(root: str, mount: protocol.Overlay, owner: Owner) -> None:
    """The workspace: the project below, earlier layers above it, the newest written.

    Paths are short and relative, since the options fit a page.
    """
    stage = root + "/.stage"
    attributes = constants.MOUNT_ATTR_NOSUID | constants.MOUNT_ATTR_NODEV
    names = [f"l{index}" for index in range(len(mount["layers"]))]
    below = [f"k{index}" for index in range(len(mount["kept"]))] + ["p"]
    sources = dict(zip(names, mount["layers"], strict=True))
    sources |= dict(zip(below, [*mount["kept"], mount["lower"]], strict=True))
    for name, source in sources.items():
        # layers belong to the environment's user on disk: an idmapped upper could not hold what
        # overlayfs itself makes as root
        _attach(
            root,
            f"/.stage/{name}",
            source,
            attributes,
            recursive=False,
            id_map=owner.id_map if name in below else 0,
        )
    target = _at(root, mount["target"])
    os.makedirs(target, exist_ok=True)
    lower = ":".join([*(f"{name}/upper" for name in names[1:]), *below])
    os.chdir(stage)
    flags = _GUARDED | (0 if mount["exec"] else constants.MS_NOEXEC)
    # volatile: a layer lives no longer than its run, so neither each file that is first changed nor
    # the end waits for the disk
    syscalls.mount(
        "overlay",
        target,
        "overlay",
        flags,
        f"lowerdir={lower},upperdir=l0/upper,workdir=l0/work,userxattr,volatile",
    )
    os.chdir("/")
    for name in sources:
        syscalls.umount2(f"{stage}/{name}", constants.MNT_DETACH)
        os.rmdir(f"{stage}/{name}")
    os.rmdir(stage)
