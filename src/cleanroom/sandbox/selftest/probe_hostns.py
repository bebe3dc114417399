"""The primitives of environments without namespaces: the rules that each holds, and the attempt
that shows whether it works.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, privileges, syscalls
from cleanroom.sandbox.kernel.landlock import SCOPES_SINCE
from cleanroom.sandbox.kernel.syscall_numbers import number
from cleanroom.sandbox.seccomp import bpf
from cleanroom.sandbox.seccomp_notify.addfd import inject_fd

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MissingRule

Step = tuple[str, Callable[[], str | None]]

_ON_BEHALF = (
    "filesystem.metadata",
    "network.egress",
    "network.names",
    "network.sockets",
    "process.visibility",
)
# for a child to make its call
_ASKED_SECONDS = 1.0
# the ABI of Landlock, Linux 6.2, that refuses to cut a file by its name
TRUNCATE_SINCE = 3
HOLDS: dict[str, tuple[str, ...]] = {
    "landlock": ("filesystem.secrets", "filesystem.write", "process.visibility"),
    "landlock_truncate": ("filesystem.write",),
    "landlock_scopes": ("process.visibility",),
    "seccomp_notify": (*_ON_BEHALF, "network.families", "process.syscalls"),
    "caller_memory": _ON_BEHALF,
    "given_descriptors": ("network.egress", "network.sockets", "process.visibility"),
    "loopback_device": ("network.egress",),
    "openat2": ("filesystem.metadata", "network.sockets", "process.visibility"),
    "pidfd": ("process.tree",),
}
HINTS = {
    "landlock_truncate": "use Linux 6.2 or later",
    "landlock_scopes": "use Linux 6.12 or later, or allow user namespaces",
    "caller_memory": "set kernel.yama.ptrace_scope to 0 or 1",
    "given_descriptors": "use Linux 5.9 or later",
    "loopback_device": "use Linux 5.7 or later, with its loopback device up",
    "own_user": (
        "run as an ordinary user, or with the right to become one (CAP_SETUID, CAP_SETGID, "
        "CAP_CHOWN)"
    ),
}
MECHANISMS = {
    **dict.fromkeys(
        ("network.local", "network.publish", "network.runtimes"),
        "held calls, done on the caller's behalf",
    ),
    "network.record": "held calls",
    "filesystem.write": "Landlock; held calls attribute",
    "filesystem.metadata": "held calls, done on the caller's behalf",
    "filesystem.secrets": "Landlock: what is not listed cannot be opened",
    "filesystem.workspace": "a copy, compared before and after",
    "network.egress": (
        "sockets made on the caller's behalf on the loopback device; held calls, done on its "
        "behalf; relays to what is declared"
    ),
    "network.names": "name answerer behind held calls",
    "network.families": "seccomp",
    "network.sockets": "held calls, done on the caller's behalf; Landlock scope",
    "process.tree": "subreapers, killed until none is left",
    "process.visibility": "Landlock scope; /proc is read on the caller's behalf",
    "process.privileges": "an ordinary user, no capabilities, no new privileges",
    "process.syscalls": "seccomp",
}
DIMENSIONS = (
    (
        "network",
        "sockets made and used on the caller's behalf, name answerer, relays",
        ("seccomp_notify", "given_descriptors", "loopback_device"),
    ),
    (
        "filesystem",
        "Landlock, a copy of the workspace, held calls",
        ("landlock", "seccomp_notify", "caller_memory"),
    ),
    (
        "process",
        "subreapers, Landlock scope, no capabilities, seccomp",
        ("landlock_scopes", "pidfd", "seccomp_notify"),
    ),
)
_NEEDS_NAMESPACES = "it is held with namespaces only, which cannot be made here"
LEVELS: dict[str, list[MissingRule]] = {
    "Low": [
        {
            "rule": "network.record",
            "why": _NEEDS_NAMESPACES,
            "hint": "use Medium, with `egress` for declared hosts",
        }
    ],
    "Locked": [
        {
            "rule": "filesystem.pinned",
            "why": "a root pinned by digest is not there yet",
            "hint": "use Medium",
        },
        {
            "rule": "process.calls",
            "why": "a list of allowed system calls is not there yet",
            "hint": "use Medium",
        },
    ],
}


def needs(is_root: bool) -> dict[str, tuple[str, ...]]:
    """Primitive to rules; root must also be able to change to an ordinary user."""
    return HOLDS | {"own_user": ("process.privileges",)} if is_root else HOLDS


def steps(anybody: int) -> list[Callable[[], list[Step]]]:
    """The attempts, each list for a child of its own."""

    def own_user() -> None:
        privileges.switch_user(anybody, anybody)

    def user_first() -> list[Step]:
        become = [("own_user", own_user)] if os.geteuid() == 0 else []
        return [*become, ("caller_memory", _memory), ("given_descriptors", _gift)]

    return [
        lambda: [("first_filter", _first)],
        lambda: [("landlock_truncate", lambda: _abi(TRUNCATE_SINCE))],
        lambda: [("landlock_scopes", lambda: _abi(SCOPES_SINCE))],
        lambda: [("loopback_device", _loopback)],
        user_first,
    ]


def _abi(wanted: int) -> str:
    version = syscalls.landlock_abi()
    if version < wanted:
        raise OSError(95, f"Landlock has ABI {version}, {wanted} is needed")
    return f"ABI {version}"


def _loopback() -> None:
    """A socket that is bound to the loopback device reaches what is on it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        # SO_BINDTODEVICE: since 5.7 without CAP_NET_RAW, while the socket is bound to no device.
        client.setsockopt(socket.SOL_SOCKET, 25, b"lo\0")
        client.settimeout(1)
        client.connect(server.getsockname())


def _memory() -> None:
    """A process reads the memory of its child that has become a program of its own."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write_end, 1)
        # execve(2) makes it dumpable again; the shell that answers shows that this is done.
        os.execv("/bin/sh", ["sh", "-c", "echo x; exec sleep 10"])
    os.close(write_end)
    os.read(read_end, 1)
    try:
        # ptrace(2): needs the same ids and a dumpable process. Yama's ptrace_scope 1 leaves it to
        # ancestors, 2 to CAP_SYS_PTRACE.
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
        os.readlink(f"/proc/{pid}/fd/1")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _gift() -> None:
    """A held caller is given a descriptor."""
    pid, listener = _held_child("fchown", lambda: os.fchown(0, -1, -1))
    try:
        # struct seccomp_notif. seccomp_unotify(2): EINVAL unless it is all zeros.
        held = bytearray(80)
        fcntl.ioctl(listener, constants.SECCOMP_IOCTL_NOTIF_RECV, held)
        answer = inject_fd(listener, int.from_bytes(held[:8], "little"), 0, close_on_exec=True)
        if answer.errno:
            raise OSError(answer.errno, "a descriptor cannot be given")
    finally:
        _away(pid, listener)


def _first() -> None:
    """No other filter refuses before ours is asked: a container's does,
    for calls that it does not allow.
    """
    for name, act in (
        ("mount", lambda: syscalls.mount("none", "/", "none")),
        # Docker's filter allows both to CAP_SYS_ADMIN only.
        ("unshare", lambda: syscalls.unshare(constants.CLONE_NEWUSER)),
    ):
        pid, listener = _held_child(name, act)
        try:
            # readable too when the child has ended, which it has if its call was answered without
            # us
            if not select.select([listener], [], [], _ASKED_SECONDS)[0]:
                raise OSError(1, f"{name} is answered by another filter first")
            # Only to see it arrive: the child is killed while its call is held.
            fcntl.ioctl(listener, constants.SECCOMP_IOCTL_NOTIF_RECV, bytearray(80))
        finally:
            _away(pid, listener)


def _held_child(name: str, act: Callable[[], object]) -> tuple[int, int]:
    """A child that makes one call, which is held, and the listener."""
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            bpf.install_and_send(_holding(name), theirs)
            act()
        finally:
            os._exit(0)
    theirs.close()
    # Blocks until the child has sent its listener, or has ended.
    _, descriptors, _, _ = socket.recv_fds(mine, 1, 1)
    mine.close()
    if not descriptors:
        os.waitpid(pid, 0)
        raise OSError(22, "no listener")
    return pid, descriptors[0]


def _away(pid: int, listener: int) -> None:
    # Held calls return ENOSYS once no listener is open (seccomp_unotify(2)).
    os.close(listener)
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def _holding(name: str) -> bytes:
    """A filter that holds one call."""
    asm = bpf.Assembler()
    asm.load(bpf.NR)
    asm.jump_if(constants.BPF_JEQ_K, number(name), "hold")
    asm.ret(constants.SECCOMP_RET_ALLOW)
    asm.label("hold")
    asm.ret(constants.SECCOMP_RET_USER_NOTIF)
    return asm.assemble()
