"""Kernel primitives that an environment is made of: each is tried in a child, never assumed from a
version.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.kernel import constants, privileges, syscalls
from cleanroom.sandbox.kernel.syscall_numbers import MACHINES, machine
from cleanroom.sandbox.network import dns
from cleanroom.sandbox.seccomp import bpf
from cleanroom.sandbox.seccomp_notify.listener import set_sync_wake_up
from cleanroom.sandbox.selftest import probe_hostns

_APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
# A filter that refuses nothing, to see whether one can be installed.
_ALLOW_ALL = struct.pack("=HBBI", constants.BPF_RET_K, 0, 0, constants.SECCOMP_RET_ALLOW)


class Primitive(NamedTuple):
    """Whether one thing works here, and the kernel's answer."""

    works: bool
    detail: str = ""


Primitives = dict[str, Primitive]
Step = tuple[str, Callable[[], str | None]]

# The rules that cannot be held without a primitive.
RULES = {
    "user_namespace": ("process.privileges",),
    "mount_namespace": (
        "filesystem.write",
        "filesystem.metadata",
        "filesystem.secrets",
        "filesystem.workspace",
        "filesystem.reads",
        "network.sockets",
    ),
    "network_namespace": ("network.egress", "network.names"),
    "pid_namespace": ("process.tree", "process.visibility"),
    "overlay": ("filesystem.workspace",),
    "mount_setattr": ("filesystem.write", "filesystem.metadata"),
    "pidfd": ("process.tree",),
    # without it nobody could say where a path that was written leads
    "openat2": ("filesystem.write",),
    "landlock": ("filesystem.write", "process.exec"),
    "seccomp_notify": (
        "network.local",
        "network.publish",
        "network.runtimes",
        "network.record",
        "network.names",
        "network.families",
        "network.listen",
        "process.syscalls",
        "filesystem.reads",
        "process.exec",
    ),
}


def try_primitives(folder: str) -> Primitives:
    """Try every primitive in children that leave nothing behind.

    `folder` is made for it and removed.
    """
    found: Primitives = {
        "kernel": Primitive(
            machine() in MACHINES, "{}.{}".format(*syscalls.kernel_version()) + f" on {machine()}"
        ),
        "landlock": _landlock(),
        "tun": _openable("/dev/net/tun"),
        "pidfd": _pidfd(),
        "openat2": _openat2(),
    }
    os.mkdir(folder, 0o700)
    try:
        found |= _in_child(lambda: _namespaces(folder))
    finally:
        # Removes the overlay's work folder too, whose mode is 000.
        tree_removal.remove_tree(Path(folder))
    if os.geteuid() == 0:
        found |= _in_child(_user_namespace_of_root)
        found |= _in_child(_id_mapped)
    # In a child: a filter stays until its process ends.
    found |= _in_child(_filters)
    lacking = any(name not in found or not found[name].works for name in RULES)
    for steps in probe_hostns.steps(constants.OVERFLOW_UID) if lacking else ():
        found |= _in_child(steps)
    for name in (
        *RULES,
        *(("first_filter", *probe_hostns.needs(os.geteuid() == 0)) if lacking else ()),
        "sync_wake_up",
        "idmapped_mounts",
    ):
        found.setdefault(name, Primitive(False, "not tried: what it stands on does not work"))
    return found


def _landlock() -> Primitive:
    version = syscalls.landlock_abi()
    return Primitive(
        version > 0, f"ABI {version}" if version else "not in this kernel, or switched off"
    )


def _pidfd() -> Primitive:
    try:
        own = syscalls.pidfd_open(os.getpid())
        try:
            # kill(2): signal 0 only checks.
            syscalls.pidfd_send_signal(own, 0)
        finally:
            os.close(own)
    except OSError as error:
        return Primitive(False, error.strerror or "")
    return Primitive(True, "ok")


def _openat2() -> Primitive:
    try:
        os.close(
            syscalls.openat2(
                constants.AT_FDCWD, "/", constants.O_PATH, constants.RESOLVE_NO_SYMLINKS
            )
        )
    except OSError as error:
        return Primitive(False, error.strerror or "")
    return Primitive(True, "ok")


def _openable(path: str) -> Primitive:
    try:
        # ENODEV without the driver behind the node, EPERM where a device cgroup refuses it.
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Primitive(False, error.strerror or "")
    return Primitive(True, "ok")


def _in_child(steps: Callable[[], list[Step]]) -> Primitives:
    """Carry out `steps` in a child, until one fails: the later ones need it."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: dict[str, tuple[bool, str]] = {}
        try:
            for name, step in steps():
                try:
                    found[name] = (True, step() or "ok")
                except OSError as error:
                    found[name] = (
                        False,
                        (
                            f"{os.strerror(error.errno or 0)} "
                            f"({error.args[-1] if len(error.args) > 1 else error})"
                        ),
                    )
                    break
        finally:
            os.write(write_end, json.dumps(found).encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return {
        name: Primitive(works, _explained(name, detail))
        for name, (works, detail) in json.loads(text or b"{}").items()
    }


def _explained(name: str, detail: str) -> str:
    """The kernel's answer, with its cause where AppArmor is the cause."""
    if name == "user_namespace" and detail != "ok":
        try:
            with open(_APPARMOR) as file:
                if file.read().strip() == "1":
                    return f"{detail}; AppArmor keeps them from ordinary users ({_APPARMOR} is 1)"
        except OSError:
            pass
    return detail


def _namespaces(folder: str) -> list[Step]:
    """The steps of a warden and its init, in their order."""
    user, group = os.geteuid(), os.getegid()
    steps: list[Step] = [
        ("mount_namespace", _mount_namespace),
        ("network_namespace", _network_namespace),
        ("pid_namespace", _pid_namespace),
        ("overlay", lambda: _overlay(folder, as_root=not user)),
        ("mount_setattr", lambda: _read_only_mount(folder)),
    ]
    # Root makes the other namespaces without one.
    if user:

        def user_namespace() -> None:
            privileges.enter_user_namespace(1000, user, group)

        steps.insert(0, ("user_namespace", user_namespace))
    return steps


def _mount_namespace() -> None:
    syscalls.unshare(constants.CLONE_NEWNS)
    # mount_namespaces(7): a shared mount would pass new mounts on to the host's namespace.
    syscalls.mount(None, "/", None, constants.MS_REC | constants.MS_PRIVATE)


def _network_namespace() -> None:
    syscalls.unshare(constants.CLONE_NEWNET)
    # network_namespaces(7): a new one has nothing but "lo", which is down.
    dns.raise_link("lo")


def _pid_namespace() -> None:
    # CLONE_NEWPID leaves the caller where it is and applies to its children (unshare(2)).
    syscalls.unshare(constants.CLONE_NEWPID | constants.CLONE_NEWIPC | constants.CLONE_NEWUTS)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(pid, 0)[1]:
        raise OSError(errno.ENOSYS, "the first process in it is not number 1")


def _overlay(folder: str, *, as_root: bool) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{folder}/{name}")
    # "volatile", since 5.10: no sync of the upper layer.
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work,volatile"
    # In a user namespace overlayfs may not write trusted.* attributes (since 5.11).
    if not as_root:
        options += ",userxattr"
    syscalls.mount("overlay", f"{folder}/merged", "overlay", constants.MS_NODEV, options)
    with open(f"{folder}/merged/file", "w"):
        pass
    if not os.path.exists(f"{folder}/upper/file"):
        raise OSError(errno.EIO, "what was written did not reach the upper layer")


def _read_only_mount(folder: str) -> None:
    clone = constants.OPEN_TREE_CLONE | constants.OPEN_TREE_CLOEXEC | constants.AT_RECURSIVE
    tree = syscalls.open_tree(constants.AT_FDCWD, folder, clone)
    deep = constants.AT_EMPTY_PATH | constants.AT_RECURSIVE
    # Before it is attached: nobody sees the mount while it can be written.
    syscalls.mount_setattr(tree, "", deep, attr_set=constants.MOUNT_ATTR_RDONLY)
    # Over the folder itself: what follows looks up the new mount.
    syscalls.move_mount(tree, "", constants.AT_FDCWD, folder, constants.MOVE_MOUNT_F_EMPTY_PATH)
    if os.access(folder, os.W_OK):
        raise OSError(errno.EROFS, "a read-only mount can be written")


def _user_namespace_of_root() -> list[Step]:
    """Root's environments change their uid first, then make a user namespace: RLIMIT_NPROC counts
    the processes of a user in one namespace (since 5.14).
    """

    def step() -> None:
        nobody = constants.OVERFLOW_UID
        privileges.switch_user(nobody, nobody)
        # setresuid(2) has made it undumpable: /proc/self/uid_map would belong to root.
        syscalls.set_dumpable(True)
        privileges.enter_user_namespace(1000, nobody, nobody)

    return [("user_namespace", step)]


def _id_mapped() -> list[Step]:
    """Id-mapped mounts (mount_setattr(2), since 5.12); without them root's project is copied."""

    def step() -> None:
        parent_end, child_end = os.pipe()
        gate_end, done_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                # mount_setattr(2) refuses the initial user namespace: the map needs one of its own.
                syscalls.unshare(constants.CLONE_NEWUSER)
                os.write(child_end, b"r")
                os.close(done_end)
                os.read(gate_end, 1)
            finally:
                os._exit(0)
        try:
            os.close(child_end)
            if not os.read(parent_end, 1):
                raise OSError(1, "no user namespace for the map")
            # From outside, and by root: a map other than the writer's own id needs CAP_SETUID.
            privileges.write_id_maps(pid, "0 1000 1\n", "0 1000 1\n")
            syscalls.unshare(constants.CLONE_NEWNS)
            tree = syscalls.open_tree(
                constants.AT_FDCWD, "/usr", constants.OPEN_TREE_CLONE | constants.OPEN_TREE_CLOEXEC
            )
            users = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            # EINVAL from a file system that does not allow id-mapped mounts.
            syscalls.mount_setattr(
                tree,
                "",
                constants.AT_EMPTY_PATH,
                attr_set=constants.MOUNT_ATTR_IDMAP,
                user_namespace=users,
            )
        finally:
            os.close(done_end)
            os.waitpid(pid, 0)

    return [("idmapped_mounts", step)]


def _filters() -> list[Step]:
    listener = -1

    def notify() -> None:
        nonlocal listener
        # EBUSY where a filter of this process has a listener already.
        installed = bpf.install(_ALLOW_ALL, listener=True)
        assert installed is not None
        listener = installed

    def in_step() -> None:
        if not set_sync_wake_up(listener):
            raise OSError(22, "unknown to this kernel; a held call costs 0.1 ms instead of 0.03")

    return [("seccomp_notify", notify), ("sync_wake_up", in_step)]
