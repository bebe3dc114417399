"""Privileges given up for good, and the id maps of user namespaces: each sequence written once.

Standard library only, safe after fork.
Every function acts on the calling process and cannot be undone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Identity


def drop_privileges(identity: Identity) -> None:
    """Take on the environment's user where this process is root, and give up every capability.

    An ordinary user keeps its bounding set, which counts for nothing without new privileges.

    Raises:
        OSError: the kernel refused a step.
    """
    if identity["mode"] == "root":
        drop_root(identity["user"], identity["group"])
        return
    syscalls.set_no_new_privileges()
    # An ordinary user has some by file capabilities, or all in a user namespace of its own.
    syscalls.capset(0, 0, 0)


def drop_root(user: int, group: int) -> None:
    """Become an ordinary user without capabilities, in the one order that works.

    capabilities(7): emptying the bounding set needs CAP_SETPCAP, which the change of ids takes.

    Raises:
        OSError: the kernel refused a step.
    """
    drop_bounding_set()
    switch_user(user, group)
    syscalls.set_no_new_privileges()
    # The change from uid 0 clears the permitted and effective sets, not the inheritable one.
    syscalls.capset(0, 0, 0)


def switch_user(user: int, group: int) -> None:
    """Change from root to the ids of an ordinary user, in no supplementary group.

    setresuid(2) clears the parent death signal and makes the process undumpable.

    Raises:
        OSError: this process is not root.
    """
    # Groups first, which need CAP_SETGID: the change of the uid takes it (capabilities(7)).
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def drop_all_capabilities() -> None:
    """Empty the ambient, bounding, inheritable, permitted and effective sets.

    Raises:
        OSError: a capability is in the bounding set and may not be dropped.
    """
    # Ambient capabilities would survive the execve(2) of a program without file capabilities.
    syscalls.prctl(constants.PR_CAP_AMBIENT, constants.PR_CAP_AMBIENT_CLEAR_ALL)
    drop_bounding_set()
    syscalls.capset(0, 0, 0)


def drop_bounding_set() -> None:
    """Empty the bounding set; needs CAP_SETPCAP, so call it before the uid changes.

    Raises:
        OSError: a capability is still in the set and may not be dropped.
    """
    # Per thread since 2.6.25; execve(2) grants no capability that is outside the set.
    for capability in range(constants.CAPABILITIES_MAX):
        try:
            present = syscalls.prctl(constants.PR_CAPBSET_READ, capability)
        except OSError:
            # EINVAL: past the last one that this kernel knows
            return
        if present:
            syscalls.prctl(constants.PR_CAPBSET_DROP, capability)


def enter_user_namespace(inside: int, user: int, group: int) -> None:
    """Make a user namespace in which `user` and `group` are both the id `inside`, and enter it.

    The caller is single-threaded and dumpable: else /proc/self belongs to root and its map files
    cannot be written (proc_pid_uid_map(5)).

    Raises:
        OSError: user namespaces are refused here.
    """
    # The first process of a user namespace has every capability in it, and none outside.
    syscalls.unshare(constants.CLONE_NEWUSER)
    map_own_user(inside, user, group)


def map_own_user(inside: int, user: int, group: int) -> None:
    """Write this process's id maps: one user, one group, both seen as `inside`.

    user_namespaces(7): without CAP_SETGID outside, gid_map needs "deny" in setgroups, since 3.19.

    Raises:
        OSError: the kernel refused a map.
    """
    # Before gid_map, after which it can no longer be denied.
    _write("self", "setgroups", "deny")
    write_id_maps("self", f"{inside} {user} 1", f"{inside} {group} 1")


def write_id_maps(process: int | str, uid_map: str, gid_map: str) -> None:
    """Write the id maps of the user namespace of `process`, a pid or "self".

    Raises:
        OSError: the kernel refused a map.
    """
    _write(process, "uid_map", uid_map)
    _write(process, "gid_map", gid_map)


def _write(process: int | str, name: str, text: str) -> None:
    with open(f"/proc/{process}/{name}", "w") as file:
        file.write(text)
