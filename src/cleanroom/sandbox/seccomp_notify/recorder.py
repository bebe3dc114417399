"""The recorder: answers the calls that an environment's filter holds,
and names every attempt among them.

The kernel enforces (empty network, read-only mounts, Landlock);
a held call is where an attempt is *seen*, with process and target.
What is allowed goes on, what is not is answered with the errno that a machine without the thing
would give.
It never decides safety by letting a call go on: another thread of the caller could change the
arguments meanwhile, and would meet the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel.caller import BadAddress, Caller
from cleanroom.sandbox.kernel.constants import (
    SECCOMP_IOCTL_NOTIF_ID_VALID,
    SECCOMP_IOCTL_NOTIF_RECV,
    SECCOMP_IOCTL_NOTIF_SEND,
    SECCOMP_IOCTL_NOTIF_SET_FLAGS,
    SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
    SECCOMP_USER_NOTIF_FLAG_CONTINUE,
    UINT_MAX,
    X32_SYSCALL_BIT,
)
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, NAMES, machine
from cleanroom.sandbox.network.dns import Names
from cleanroom.sandbox.network.host_network import HostNetworkPolicy
from cleanroom.sandbox.seccomp.filters import FIRST_NETLINK
from cleanroom.sandbox.seccomp_notify import (
    emulate,
    files,
    listen,
    modes,
    network,
    processes,
    programs,
)
from cleanroom.sandbox.seccomp_notify.addfd import inject_fd
from cleanroom.sandbox.seccomp_notify.aggregate import Aggregate
from cleanroom.sandbox.seccomp_notify.fast_path import FastPath
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules
from cleanroom.sandbox.seccomp_notify.socket_calls import DirectExecutor, SocketExecutor
from cleanroom.sandbox.seccomp_notify.sockets import (
    DuplicatedSockets,
    OwnedSockets,
    TrackedSockets,
    new_socket,
)

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt, Process, Target

# id, pid, flags, number, architecture, instruction pointer, arguments
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags
_NOTHING = (None, None, None)
_EMPTY = bytes(_NOTIFICATION.size)
_BATCH = 64  # calls answered before the warden looks at its other descriptors again

__all__ = ["Recorder", "Rules", "Shared", "wake_in_step"]


class Shared(NamedTuple):
    """Where an environment may go on a network that it shares with the host,
    and with which means its calls are carried out.

    `lead` connects a socket to what a declared door leads to.
    `keep` where copies of sockets cannot be borrowed: they are made on the caller's behalf.
    """

    where: HostNetworkPolicy
    lead: emulate.Lead
    hand: SocketExecutor = DirectExecutor()
    controls: tuple[str, ...] = ()
    keep: bool = False


def wake_in_step(listener: int) -> bool:
    """Ask for direct hand-over between caller and recorder;
    False where the kernel does not know it.
    """
    try:
        fcntl.ioctl(
            listener,
            SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        )
    except OSError:
        return False
    return True


class Recorder:
    """Serves one listener.

    `emit` gets dicts in the shape of capability.Attempt, without the environment's name.
    """

    def __init__(
        self,
        listener: int,
        rules: Rules,
        emit: Callable[[Attempt], None],
        *,
        names: Names,
        proc_fd: int,
        own: int = 0,
        host_sockets: int = -1,
        shared: Shared | None = None,
    ) -> None:
        """`own` is init, which is ours: its memory is closed to its children and so to an ordinary
        user's recorder, and the kernel holds it too.

        `host_sockets` is the host's /proc/net/unix; `shared` says where the environment may go on a
        network that it shares with the host; without it, its network is its own and empty.
        """
        self._own = own
        self._listener = listener
        self._names = names
        self._proc = proc_fd
        self._paths = Paths()
        self._files = files.Files(rules, self._paths)
        self._modes = modes.Modes(rules, self._files)
        self._quick: FastPath | None = FastPath(rules, proc_fd, self._paths)
        self._network = network.Network(names, self._files, host_sockets, shared=shared is not None)
        self._programs = programs.Programs(rules, self._paths)
        self._listed = bool(rules.programs)
        self._listening = listen.Listening(rules)
        self._processes = processes.Processes(1, own)
        self._sockets: TrackedSockets | None = None
        self._behalf = self._on_behalf(shared) if shared is not None else None
        self._fold = Aggregate(emit)
        self._native = AUDIT_ARCH.get(machine(), 0)
        self._buffer = bytearray(_NOTIFICATION.size)
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self.in_step = wake_in_step(listener)
        # set while canaries run: what the kernel has to refuse by itself goes on to it,
        # recorded and tagged
        self.proving = False

    def _on_behalf(self, shared: Shared) -> emulate.NetworkEmulator:
        self._sockets = TrackedSockets(self._proc) if shared.keep else None
        return emulate.NetworkEmulator(
            shared.where,
            self._files,
            self._names,
            self._sockets or DuplicatedSockets(),
            OwnedSockets(self._proc),
            shared.hand,
            answer=lambda identifier, value, code: self._send(
                _RESPONSE.pack(identifier, value, -code, 0)
            ),
            still_held=self._still_held,
            lead=shared.lead,
            controls=shared.controls,
        )

    def fileno(self) -> int:
        return self._listener

    def filenos(self) -> list[int]:
        """What to poll: held calls, and the sockets of calls that wait."""
        return [self._listener, *([self._behalf.fileno()] if self._behalf is not None else [])]

    @property
    def completeness(self) -> str:
        """`lossy` once a record had to be dropped."""
        return "lossy" if self._fold.dropped or self._names.dropped else "exact"

    @property
    def dropped(self) -> int:
        return self._fold.dropped + self._names.dropped

    def ready(self) -> bool:
        """Answer what waits; False once nobody is left who could call."""
        if self._behalf is not None:
            self._behalf.ready()
        for _ in range(_BATCH):
            events = self._poll.poll(0)
            if not events:
                return True
            if not events[0][1] & select.POLLIN:
                return False
            self.answer()
        return True

    def patience(self) -> int | None:
        """Milliseconds until `tick` has something to say; None while nothing waits."""
        waits = (
            self._fold.wait_seconds(),
            self._names.wait_seconds(),
            self._behalf.wait_seconds() if self._behalf is not None else None,
        )
        if waits == _NOTHING:
            return None
        return int(min(seconds for seconds in waits if seconds is not None) * 1000) + 1

    def tick(self) -> None:
        """Say what has waited long enough."""
        self._fold.tick()
        self._names.tick()
        if self._behalf is not None:
            self._behalf.tick()

    def flush(self) -> None:
        """Say all that waits, at the end of a command or of the environment."""
        self._fold.flush()
        self._names.flush()

    def refused_outside(self, host: str, port: int, ip: str, source: int) -> None:
        """Record what the relay of a declared host refused:
        `ip`, to which its name led, is none that a declaration opens.

        `source` is the caller's port.
        """
        process = self._names.who_left(source)
        refusal = Response(
            errno.ECONNRESET,
            "network.egress",
            {"host": host, "port": port, "ip": ip, "proto": "tcp"},
        )
        gap = "" if process else "the relay knows its port only"
        self._fold.add(
            (host, port, ip, str(process.get("pid"))),
            lambda: _relayed(_attempt(process, "connect", refusal, (), gap)),
            refusal.rule,
        )

    def close(self) -> None:
        self._paths.close()
        if self._behalf is not None:
            self._behalf.close()
        os.close(self._listener)

    def answer(self) -> None:
        """Answer one call; the listener has said that one waits."""
        buffer = self._buffer
        buffer[:] = _EMPTY  # the kernel refuses one that is not
        try:
            fcntl.ioctl(self._listener, SECCOMP_IOCTL_NOTIF_RECV, buffer)
        except OSError:
            return  # the caller died before we came to it
        identifier, pid, _, number, architecture, _, *arguments = _NOTIFICATION.unpack(buffer)
        ours = architecture == self._native and 0 <= number < X32_SYSCALL_BIT
        if pid == self._own or (
            ours and self._quick is not None and self._quick.stays_inside(pid, number, arguments)
        ):
            self._send(_RESPONSE.pack(identifier, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE))
            return
        caller = Caller(pid, self._proc)
        name = NAMES.get(number, "") if ours else "foreign ABI"
        gap = ""
        try:
            refusal = self._judge(identifier, caller, name, tuple(arguments))
        except BadAddress:
            refusal = Response(errno.EFAULT)
        # nothing that a caller prepares may end the loop; it is refused and said
        except Exception as error:
            gap = f"{type(error).__name__}: {error}"
            refusal = Response(errno.EPERM, "process.syscalls", {"syscall": name})
        if refusal is None:
            self._send(_RESPONSE.pack(identifier, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE))
            return
        if refusal.rule and self._still_held(identifier):
            self._record(caller, name, refusal, gap)
        if refusal.later:
            return
        to_kernel = self.proving and refusal.to_kernel
        self._send(
            _RESPONSE.pack(
                identifier,
                refusal.value,
                0 if to_kernel else -refusal.errno,
                SECCOMP_USER_NOTIF_FLAG_CONTINUE if to_kernel else 0,
            )
        )

    def _judge(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        if modes.carries_bits(name, arguments):
            return self._modes.judge(caller, name, arguments)
        if self._behalf is not None and name in emulate.NAMES:
            return self._behalf.judge(identifier, caller, name, arguments)
        if self._sockets is not None and name == "socket" and network.usual(arguments):
            return self._put_socket(identifier, arguments, self._sockets.make)
        if name == "socket" and arguments[0] & UINT_MAX == socket.AF_NETLINK:
            return self._netlink(identifier, caller, arguments)
        if name in files.NAMES:
            return self._files.judge(caller, name, arguments)
        if name in network.NAMES:
            return self._network.judge(caller, name, arguments)
        if name in programs.NAMES:
            return self._programs.judge(caller, name, arguments)
        if name in processes.NAMES:
            return self._processes.judge(caller, name, arguments)
        if name == "bind":
            return self._bind(caller, arguments)
        if name in listen.NAMES:
            return self._listening.judge(caller, name, arguments)
        if name == "foreign ABI":
            return Response(errno.ENOSYS, "process.syscalls", {"syscall": name})
        return Response(errno.EPERM, "process.syscalls", {"syscall": name})

    def _bind(self, caller: Caller, arguments: tuple[int, ...]) -> Response | None:
        """A unix socket by its path, as any other file; from level High on others by their port."""
        refusal = self._network.bound(caller, arguments)
        if refusal is None and self._listed:
            return self._listening.judge(caller, "bind", arguments)
        return refusal

    def _netlink(
        self, identifier: int, caller: Caller, arguments: tuple[int, ...]
    ) -> Response | None:
        """Put it among the high numbers, by which the filter holds what is sent on it without an
        address.

        Without room there it is made as any other.
        """
        taken, limit = caller.open_files()
        place = next(
            (number for number in range(limit - 1, FIRST_NETLINK - 1, -1) if number not in taken), 0
        )
        return self._put_socket(identifier, arguments, new_socket, place) if place else None

    def _put_socket(
        self,
        identifier: int,
        arguments: tuple[int, ...],
        make: Callable[[int, int, int], socket.socket],
        place: int = 0,
    ) -> Response:
        """Make it on the caller's behalf and put it into the caller's descriptors,
        at `place` if that is not 0; its number is the answer.
        """
        family, kind, protocol = (argument & UINT_MAX for argument in arguments[:3])
        try:
            made = make(family, kind, protocol)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        with made:
            closing, ours = bool(kind & socket.SOCK_CLOEXEC), made.fileno()
            return inject_fd(self._listener, identifier, ours, close_on_exec=closing, place=place)

    def _still_held(self, identifier: int) -> bool:
        """Whether what was read belonged to this caller: a number could have been given to another
        process meanwhile.
        """
        try:
            fcntl.ioctl(
                self._listener,
                SECCOMP_IOCTL_NOTIF_ID_VALID,
                identifier.to_bytes(8, "little"),
            )
        except OSError:
            return False
        return True

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self._listener, SECCOMP_IOCTL_NOTIF_SEND, response)
        except OSError:
            pass  # the caller was killed while it waited

    def _record(self, caller: Caller, name: str, refusal: Response, gap: str) -> None:
        tags = (*refusal.tags, "canary") if self.proving else refusal.tags
        # what every program tries is one record for all that run it
        who = 0 if refusal.tags else caller.group
        key = (refusal.rule, who, caller.link("exe"), tuple(refusal.target.items()), tags)
        self._fold.add(key, lambda: _record(caller, name, refusal, tags, gap), refusal.rule)


def _relayed(attempt: Attempt) -> Attempt:
    """The same, as the relay of a declared host saw it."""
    return {**attempt, "mechanism": "relay", "certainty": "packet"}


def _record(
    caller: Caller, name: str, refusal: Response, tags: tuple[str, ...], gap: str
) -> Attempt:
    process = caller.identity()
    unread = "" if process else "the caller's /proc folder could not be read"
    return _attempt(process, name, refusal, tags, gap or unread)


def _attempt(
    process: Process, name: str, refusal: Response, tags: tuple[str, ...], gap: str
) -> Attempt:
    target: Target = {**refusal.target}
    return {
        "dimension": refusal.rule.partition(".")[0],
        "rule": refusal.rule,
        "outcome": refusal.outcome,
        "mechanism": "seccomp_notify",
        "certainty": "held_syscall",
        "target": target,
        "process": process or None,
        "attribution_gap": gap,
        "syscall": name,
        "errno": refusal.error_name,
        "tags": list(tags),
        # Set by whoever folds them.
        "count": 1,
        "first_unix_ns": 0,
        "last_unix_ns": 0,
    }
