"""The steps of a warden's start that need nothing of the warden's own."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, NoReturn

from cleanroom.sandbox import channel
from cleanroom.sandbox.filesystem.constants import NO_EXEC_FOLDERS, USER_ID
from cleanroom.sandbox.filesystem.layer_stack import LayerStack
from cleanroom.sandbox.kernel import constants, privileges, syscalls
from cleanroom.sandbox.processes import init
from cleanroom.sandbox.processes.init_process import InitProcess
from cleanroom.sandbox.seccomp_notify.rules import Grants, Rules
from cleanroom.sandbox.seccomp_notify.socket_calls import (
    DirectExecutor,
    SocketExecutor,
    UnprivilegedExecutor,
)

if TYPE_CHECKING:
    from cleanroom.sandbox.kernel import cgroups
    from cleanroom.sandbox.protocol import Identity, SandboxSpec

NAMESPACES = (
    constants.CLONE_NEWNET
    | constants.CLONE_NEWPID
    | constants.CLONE_NEWIPC
    | constants.CLONE_NEWUTS
)


class StartFailed(Exception):
    """A step of the start failed; the message names it."""


def enter_namespaces(as_root: bool, *, own_network: bool) -> None:
    """Make and enter the environment's namespaces.

    Root makes them in its own user namespace, so that the environment has no right over them. An
    ordinary user needs a user namespace to make them at all (user_namespaces(7)).
    """
    flags = NAMESPACES if own_network else NAMESPACES & ~constants.CLONE_NEWNET
    if as_root:
        syscalls.unshare(flags)
        return
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(flags | constants.CLONE_NEWUSER)
    privileges.map_own_user(USER_ID, user, group)


def socket_executor(identity: Identity) -> SocketExecutor:
    """The executor of held socket calls. Forks, where the warden is root."""
    if identity["mode"] == "root":
        return UnprivilegedExecutor(identity["user"], identity["group"])
    return DirectExecutor()


def rules_of(spec: SandboxSpec) -> Rules:
    """The rules by which held calls of an environment with namespaces are judged."""
    files = spec["filesystem"]
    shared = spec["network"]["host_network"] is not None
    grants = Grants(
        writable=files["writable"],
        read_only=files["executable"],
        sockets=files["sockets"],
        programs=files["programs"] if files["allowlist"] else (),
        startable=files["startable"] if files["allowlist"] else (),
        ports=spec["network"]["ports"],
        tracing=not files["allowlist"],
        noexec=() if shared else NO_EXEC_FOLDERS,
        lasting=files["lasting"],
        project=files["project"],
    )
    return Rules(grants)


def stacks_of(spec: SandboxSpec) -> list[LayerStack]:
    """The environment's overlays, as the host has their folders."""
    return [
        LayerStack(
            mount["target"],
            [*(f"{layer}/upper" for layer in mount["layers"]), *mount["kept"], mount["lower"]],
        )
        for mount in spec["filesystem"]["mounts"]
        if mount["kind"] == "overlay"
    ]


def fork_init(
    spec: SandboxSpec, control: socket.socket, id_map: int, group: cgroups.Group | None
) -> tuple[InitProcess, int | None]:
    """Fork init; returns it, and the listener of its filter where calls are held, else None.

    `control` is the engine's channel, which init must not hold open.
    The listener is None too where init failed before it had a filter: its reason is on the channel.
    """
    end, inits_end = channel.pair()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        _run_init(spec, (end, ours, control), inits_end, theirs, (id_map, group))
    process = InitProcess(pid, end, own_pids=spec["host_namespaces"] is None)
    inits_end.close()
    theirs.close()
    descriptors: list[int] = []
    with ours:
        if spec["notify"]:
            with contextlib.suppress(OSError):
                _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    return process, descriptors[0] if descriptors else None


def _run_init(
    spec: SandboxSpec,
    wardens: tuple[socket.socket, ...],
    orders: socket.socket,
    listeners: socket.socket,
    means: tuple[int, cgroups.Group | None],
) -> NoReturn:
    for end in wardens:
        end.detach()
    init.main(spec, orders, listeners, *means)
