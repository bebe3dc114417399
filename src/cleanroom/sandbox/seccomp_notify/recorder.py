"""The recorder: answers the calls that an environment's filter holds, and records the attempts.

The kernel enforces (empty network namespace, read-only mounts, Landlock); a held call is where an
attempt is seen, with process and target.
A call that is allowed continues, any other is answered with the errno that a machine without its
target would give.
Nothing is safe because a call was judged before it continued: another thread of the caller may
change its arguments meanwhile, and then meets the kernel (seccomp_unotify(2), NOTES).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import BadAddress, Caller
from cleanroom.sandbox.kernel.constants import UINT_MAX, X32_SYSCALL_BIT
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, NAMES, machine
from cleanroom.sandbox.network.dns import NameTable
from cleanroom.sandbox.seccomp.filters import FIRST_NETLINK
from cleanroom.sandbox.seccomp_notify import (
    attempts,
    emulate,
    files,
    listen,
    memory_size,
    modes,
    network,
    processes,
    programs,
)
from cleanroom.sandbox.seccomp_notify.addfd import inject_socket
from cleanroom.sandbox.seccomp_notify.aggregate import Aggregate
from cleanroom.sandbox.seccomp_notify.copy_ups import CopyUps
from cleanroom.sandbox.seccomp_notify.datagram_sink import DatagramSink
from cleanroom.sandbox.seccomp_notify.fast_path import FastPath
from cleanroom.sandbox.seccomp_notify.forward import Forwards
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall, Judge
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.seccomp_notify.paths import Paths
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.rules import Rules
from cleanroom.sandbox.seccomp_notify.sockets import (
    DuplicatedSockets,
    OwnedSockets,
    TrackedSockets,
    new_socket,
)

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt

_FOREIGN_ABI = "foreign ABI"
# calls that are answered before the warden serves its other descriptors again
_BATCH = 64
# A call ahead of which a large folder is looked through takes a second.
_BATCH_SECONDS = 0.2


class Environment(NamedTuple):
    """The environment whose calls are judged."""

    rules: Rules
    names: NameTable
    # descriptor of /proc
    proc_fd: int
    # descriptor of the host's /proc/net/unix, opened outside of the network namespace; -1: none
    host_unix_fd: int = -1
    # Number of init, which is ours, so its calls continue: its memory is closed to an ordinary
    # user's recorder, and the kernel holds it too.
    init_pid: int = 0
    # to declared domains, in a network namespace of its own
    patterns: Forwards | None = None
    # the memory that it is told of
    memory_bytes: int = sys.maxsize
    # what is copied up ahead of calls, where the environment has overlays
    copy_ups: CopyUps | None = None


class Recorder:
    """Answers the notifications of one listener.

    `emit` receives records in the shape of capability.Attempt, without the environment's name.
    """

    def __init__(
        self,
        listener: int,
        environment: Environment,
        emit: Callable[[Attempt], None],
        access: emulate.HostNetworkAccess | None = None,
    ) -> None:
        """`access`: where the environment may go on a network that it shares with the host; without
        it the network is a namespace of its own, and empty.
        """
        rules, names, proc_fd = environment.rules, environment.names, environment.proc_fd
        self._listener = Listener(listener)
        self._names = names
        self._proc_fd = proc_fd
        self._init_pid = environment.init_pid
        self._has_allowlist = bool(rules.programs)
        self._copy_ups = environment.copy_ups
        self._paths = Paths()
        self._fast_path: FastPath | None = FastPath(rules, proc_fd, self._paths)
        self._files = files.Files(rules, self._paths)
        self._modes = modes.Modes(rules, self._files)
        self._network = network.Network(
            names,
            self._files,
            environment.host_unix_fd,
            host_network=access is not None,
            forwards=environment.patterns,
        )
        self._programs = programs.Programs(rules, self._paths)
        self._listening = listen.Listening(rules)
        self._tracked: TrackedSockets | None = None
        self._emulator: emulate.NetworkEmulator | None = None
        if access is not None:
            self._tracked = TrackedSockets(proc_fd) if access.track_sockets else None
            sockets = self._tracked or DuplicatedSockets()
            self._emulator = emulate.NetworkEmulator(
                access, self._files, names, sockets, OwnedSockets(proc_fd), self._listener
            )
        self._sink = self._datagram_sink()
        self._judges = self._judges_by_name(environment)
        self._aggregate = Aggregate(emit)
        self._native = AUDIT_ARCH.get(machine(), 0)
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        # Set while canaries run: a call that the kernel has to refuse by itself continues, and is
        # recorded and tagged.
        self.proving = False

    def _datagram_sink(self) -> DatagramSink:
        return DatagramSink()

    def _judges_by_name(self, environment: Environment) -> dict[str, Judge]:
        """Name of a call -> who judges it; later entries replace earlier ones."""
        judges: dict[str, Judge] = {}
        for judged, judge in (
            (listen.NAMES, self._listening.judge),
            (memory_size.NAMES, memory_size.MemorySize(environment.memory_bytes).judge),
            (processes.NAMES, processes.Processes(1, self._init_pid).judge),
            (programs.NAMES, self._programs.judge),
            (network.NAMES, self._network.judge),
            (files.NAMES, self._files.judge),
        ):
            judges |= dict.fromkeys(judged, judge)
        judges |= {
            "bind": self._judge_bind,
            "connect": self._judge_connect,
            "socket": self._judge_socket,
        }
        if self._emulator is not None:
            judges |= dict.fromkeys(emulate.NAMES, self._emulator.judge)
        return judges

    def fileno(self) -> int:
        """The listener."""
        return self._listener.fileno()

    def filenos(self) -> list[int]:
        """Descriptors to poll: the listener, and the sockets of pending calls."""
        found = [self._listener.fileno(), self._sink.fileno()]
        return found if self._emulator is None else [*found, self._emulator.pending.fileno()]

    @property
    def completeness(self) -> str:
        """`lossy` once a record had to be dropped."""
        return "lossy" if self.dropped else "exact"

    @property
    def dropped(self) -> int:
        return self._aggregate.dropped + self._names.dropped

    def ready(self) -> bool:
        """Answer what waits; False once no process is left that could call."""
        self._record_sent()
        if self._emulator is not None:
            self._emulator.pending.ready()
        until = time.monotonic() + _BATCH_SECONDS
        for _ in range(_BATCH):
            events = self._poll.poll(0)
            if not events or time.monotonic() > until:
                return True
            # POLLHUP: the last process with the filter has ended (seccomp_unotify(2))
            if not events[0][1] & select.POLLIN:
                return False
            self.answer()
        return True

    def timeout_ms(self) -> int | None:
        """Milliseconds until `tick` has something to do; None while nothing waits."""
        waits = [self._aggregate.wait_seconds(), self._names.wait_seconds()]
        if self._emulator is not None:
            waits.append(self._emulator.pending.wait_seconds())
        seconds = [wait for wait in waits if wait is not None]
        return int(min(seconds) * 1000) + 1 if seconds else None

    def tick(self) -> None:
        """Emit the records, and answer the calls, whose time has come."""
        self._aggregate.tick()
        self._names.tick()
        if self._emulator is not None:
            self._emulator.pending.tick()

    def flush(self) -> None:
        """Emit all records that wait, at the end of a command or of the environment."""
        self._record_sent()
        self._aggregate.flush()
        self._names.flush()

    def record_relay_refusal(self, host: str, port: int, ip: str, source: int) -> None:
        """Record a connection that the relay of a declared host refused.

        `ip` is the address to which the host's name leads, `source` the caller's port.
        """
        process = self._names.connected_by(source)
        response = attempts.relay_refusal(host, port, ip)
        self._aggregate.add(
            (host, port, ip, str(process.get("pid"))),
            lambda: attempts.relay_attempt(process, response),
            response.rule,
        )

    def close(self) -> None:
        self._paths.close()
        self._sink.close()
        if self._copy_ups is not None:
            self._copy_ups.close()
        if self._emulator is not None:
            self._emulator.close()
        self._listener.close()

    def answer(self) -> None:
        """Answer one call; the listener is readable."""
        notification = self._listener.receive()
        if notification is None:
            return
        identifier, pid, _, number, architecture, _, *arguments = notification
        # x32 has the architecture of x86-64, and a bit in its numbers (seccomp(2), NOTES)
        native = architecture == self._native and 0 <= number < X32_SYSCALL_BIT
        if pid == self._init_pid:
            self._listener.let_continue(identifier)
            return
        inside: list[bytes] | None = None
        if native and self._fast_path is not None:
            inside = self._fast_path.inside_paths(pid, number, arguments)
        if inside is not None and not self._may_copy_up(number, arguments, inside):
            self._listener.let_continue(identifier)
            return
        name = NAMES.get(number, "") if native else _FOREIGN_ABI
        is_held = functools.partial(self._listener.is_valid, identifier)
        caller = Caller(pid, self._proc_fd, is_held)
        call = HeldCall(identifier, caller, name, tuple(arguments))
        if inside is not None:
            self._continue(call, inside)
            return
        gap = ""
        try:
            response = self._judge(call)
        except BadAddress:
            response = Response(errno.EFAULT)
        # Nothing that a caller prepares may end the loop: the call is refused, and the error is
        # recorded.
        except Exception as error:
            gap = f"{type(error).__name__}: {error}"
            response = Response(errno.EPERM, "process.syscalls", {"syscall": name})
        if response is None:
            self._continue(call, None)
            return
        # a pid may have been reused while /proc was read; the notification's id is not
        if response.rule and self._listener.is_valid(identifier):
            self._record(call, response, gap)
        if response.pending:
            return
        if self.proving and response.kernel_enforced:
            self._listener.let_continue(identifier)
        else:
            self._listener.respond(identifier, response.value, response.errno)

    def _may_copy_up(self, number: int, arguments: list[int], inside: list[bytes]) -> bool:
        copy_ups = self._copy_ups
        return copy_ups is not None and copy_ups.concerns(number, arguments, inside, self._paths)

    def copied_up(self) -> None:
        """Init has carried out the order to copy up: the call that waited for it continues."""
        assert self._copy_ups is not None, "it was ordered by them"
        for identifier in self._copy_ups.end():
            self._listener.let_continue(identifier)

    def pause_copy_ups(self) -> bool:
        """Let calls continue without; whether init is still at one that it was told of before."""
        if self._copy_ups is None:
            return False
        for identifier in self._copy_ups.pause():
            self._listener.let_continue(identifier)
        return self._copy_ups.busy

    def resume_copy_ups(self) -> None:
        if self._copy_ups is not None:
            self._copy_ups.resume()

    def _continue(self, call: HeldCall, inside: list[bytes] | None) -> None:
        """Let the kernel carry the call out, after what has to be copied up first.

        `inside`: the paths that it changes, where they are known.
        """
        waits = False
        if self._copy_ups is not None:
            # Nothing that a caller prepares may end the loop: the kernel answers as it would.
            with contextlib.suppress(Exception):
                waits = self._copy_ups.begin(call, inside, self._files, self._paths)
        if not waits:
            self._listener.let_continue(call.identifier)

    def _judge(self, call: HeldCall) -> Response | None:
        """None lets the kernel carry the call out."""
        if modes.carries_bits(call.name, call.arguments):
            return self._modes.judge(call)
        judge = self._judges.get(call.name)
        if judge is not None:
            return judge(call)
        # as a kernel that lacks the call
        code = errno.ENOSYS if call.name == _FOREIGN_ABI else errno.EPERM
        return Response(code, "process.syscalls", {"syscall": call.name})

    def _judge_bind(self, call: HeldCall) -> Response | None:
        """A unix socket by its path, as any other file; from level High on others by their port."""
        refusal = self._network.judge_bind(call)
        if refusal is None and self._has_allowlist:
            return self._listening.judge(call)
        return refusal

    def _judge_connect(self, call: HeldCall) -> Response | None:
        return self._or_sink(call, self._network.judge(call))

    def _or_sink(self, call: HeldCall, response: Response | None) -> Response | None:
        """Connecting a datagram socket sends nothing; while canaries run, the kernel refuses it."""
        if response is None or response.rule != "network.egress" or self.proving:
            return response
        return self._sink.connect(call, response)

    def _record_sent(self) -> None:
        for sent in self._sink.take():
            self._aggregate.add(sent.key, sent.copy_record, sent.rule)

    def _judge_socket(self, call: HeldCall) -> Response | None:
        """Make the sockets that have to be tracked, or told from others by their number."""
        if self._tracked is not None and network.is_usual(call.arguments):
            return self._make_socket(call, self._tracked.make)
        if call.arguments[0] & UINT_MAX == socket.AF_NETLINK:
            return self._make_netlink_socket(call)
        return self._network.judge(call)

    def _make_netlink_socket(self, call: HeldCall) -> Response | None:
        """Give it a number by which the filter holds what is sent on it without an address.

        None where no such number is free: the kernel makes the socket then.
        """
        taken, limit = call.caller.open_files()
        # RLIMIT_NOFILE is one above the highest number that a descriptor may have (getrlimit(2)).
        # select(2) takes none from FD_SETSIZE on.
        low = range(min(limit, constants.FD_SETSIZE) - 1, FIRST_NETLINK - 1, -1)
        for number in itertools.chain(low, range(constants.FD_SETSIZE, limit)):
            if number not in taken:
                return self._make_socket(call, new_socket, newfd=number)
        return None

    def _make_socket(
        self, call: HeldCall, make: Callable[[int, int, int], socket.socket], *, newfd: int = 0
    ) -> Response:
        """Make the socket and inject it into the caller, with number `newfd` unless that is 0."""
        family, kind, protocol = (argument & UINT_MAX for argument in call.arguments[:3])
        try:
            made = make(family, kind, protocol)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        with made:
            return inject_socket(self._listener.fileno(), call, made, newfd=newfd)

    def _record(self, call: HeldCall, response: Response, gap: str) -> None:
        tags = (*response.tags, "canary") if self.proving else response.tags
        # what programs try by habit is one record for all processes of a program
        process = 0 if response.tags else call.caller.group
        target = tuple(response.target.items())
        key = (response.rule, process, call.caller.link("exe"), target, tags)
        self._aggregate.add(
            key, lambda: attempts.held_attempt(call, response, tags, gap), response.rule
        )
