"""The recorder of environments without namespaces: it decides and acts,
since nothing but Landlock refuses by itself.

Sockets are made here and bound to the loopback device, which the kernel holds for good;
what is done with them is done here, on copies.
Metadata is changed here.
Only what Landlock or a check of registers alone decides goes on to the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants, process_tree
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.network.dns import Answerer, Names
from cleanroom.sandbox.network.host_network import HostNetworkPolicy
from cleanroom.sandbox.seccomp.filters_hostns import PID_ARGUMENT
from cleanroom.sandbox.seccomp_notify import (
    emulate,
    metadata,
    modes,
    network,
    open_proxy,
    processes,
    recorder,
)
from cleanroom.sandbox.seccomp_notify.addfd import inject_fd
from cleanroom.sandbox.seccomp_notify.forward import Forwards, joined
from cleanroom.sandbox.seccomp_notify.rules import Response, Rules

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt

_LOOPBACK = b"lo\0"
_NAMES_DOOR = "names"
_RESOLVERS = ("127.0.0.1", "127.0.0.53", "127.0.0.11")


class Door(NamedTuple):
    """A declared service, or with a `host` a declared host,
    and our end of the channel to its relay.
    """

    address: str
    port: int
    host: str
    way: socket.socket


class HostnsRecorder(recorder.Recorder):
    def __init__(
        self,
        listener: int,
        rules: Rules,
        emit: Callable[[Attempt], None],
        *,
        names: Names,
        proc_fd: int,
        own: int,
        texts: Mapping[str, str],
        doors: Sequence[Door],
        answerer: Answerer,
    ) -> None:
        self._answerer = answerer
        self._ways = Forwards({_key(door): door.way for door in doors})
        shared = recorder.Shared(_reach(doors), self._lead, keep=True)
        super().__init__(
            listener, rules, emit, names=names, proc_fd=proc_fd, own=own, shared=shared
        )
        self._quick = None  # what goes on to the kernel is said by more than a path
        self._processes = processes.Processes(own, own)
        self._views = open_proxy.OpenProxy(self._files, listener, texts, self._belongs, proc_fd)
        self._metadata = metadata.Metadata(rules, self._files)

    def _judge(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        if modes.carries_bits(name, arguments):
            return self._modes.judge(caller, name, arguments)
        if name in open_proxy.NAMES:
            return self._open(identifier, caller, name, arguments)
        if name in metadata.NAMES:
            return self._metadata.judge(caller, name, arguments)
        if name in metadata.UNKNOWN:
            return Response(errno.ENOSYS)
        if name in emulate.NAMES:
            return self._network_call(identifier, caller, name, arguments)
        if name == "socket":
            return self._socket(identifier, arguments)
        if name == "socketpair" and arguments[0] & constants.UINT_MAX == socket.AF_UNIX:
            return Response(errno.EOPNOTSUPP)
        if name in PID_ARGUMENT and (others := self._on_other(caller, name, arguments)) is not None:
            return others
        if name == "kcmp":
            return self._compared(arguments)
        if name == "fcntl":
            return self._owner(arguments)
        if name == "kill" and _signed(arguments[0]) < 0:
            return self._kill_many(caller, arguments)
        if name == "ioctl":
            return Response(errno.ENOTTY)  # what a file system says that has no such flags
        if name == "clone" and not arguments[0] & constants.CLONE_NEW_ANY:
            return Response(errno.EINVAL)
        return super()._judge(identifier, caller, name, arguments)

    # --- files

    def _open(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        """What is read is answered here or left to Landlock;
        what is written is looked at as everywhere.
        """
        answer = self._views.judge(identifier, caller, name, arguments)
        if answer is not None:
            return answer
        flags = arguments[1] if name == "open" else arguments[2]
        return self._files.judge(caller, name, arguments) if flags & constants.O_WRITING else None

    # --- processes

    def _on_other(self, caller: Caller, name: str, arguments: tuple[int, ...]) -> Response | None:
        """A thread may change itself and its siblings; their numbers cannot be given to anybody
        else while it waits here.
        """
        number = arguments[PID_ARGUMENT[name]] & constants.UINT_MAX
        if number in (caller.pid, caller.group) or os.path.exists(
            f"/proc/{caller.group}/task/{number}"
        ):
            return None
        return Response(
            errno.EPERM, "process.visibility", {"signal_pid": number, "syscall": name}, alone=True
        )

    def _belongs(self, number: int) -> bool:
        """Whether a process is the environment's, other than init, which is ours."""
        return number != self._own and process_tree.within(number, self._own)

    def _compared(self, arguments: tuple[int, ...]) -> Response | None:
        both = [number & constants.UINT_MAX for number in arguments[:2]]
        return None if all(map(self._belongs, both)) else self._processes.refused("kcmp")

    def _owner(self, arguments: tuple[int, ...]) -> Response | None:
        """Who gets a file's signals: nobody by what lies in memory, and no group."""
        if arguments[1] & constants.UINT_MAX != constants.F_SETOWN:
            return Response(errno.EINVAL)
        number = _signed(arguments[2])
        if number == self._own or number < 0:
            return self._processes.refused("fcntl")
        return None

    def _kill_many(self, caller: Caller, arguments: tuple[int, ...]) -> Response | None:
        """A group but init's; all that there is, but for init and the caller."""
        number, signal = _signed(arguments[0]), arguments[1] & constants.UINT_MAX
        if number == -os.getpgid(self._own):
            return self._processes.refused("kill")
        if number != -1:
            return None
        for pid in process_tree.descendants(self._own):
            if pid != caller.group:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal)
        return Response(0)

    # --- network

    def _socket(self, identifier: int, arguments: tuple[int, ...]) -> Response:
        """Made here, and given to the caller."""
        family, kind, protocol = (argument & constants.UINT_MAX for argument in arguments[:3])
        if protocol == constants.IPPROTO_MPTCP:
            # servers of some languages ask for it first and do without
            return Response(errno.EPROTONOSUPPORT)
        if family == constants.AF_NETLINK or (
            family != socket.AF_UNIX and not network.usual(arguments)
        ):
            # a link to the kernel that is held here tells of other things than links
            return network.family(arguments)
        assert self._sockets is not None
        try:
            made = self._sockets.make(family, kind, protocol)
        except OSError as error:
            return Response(error.errno or errno.EINVAL)
        with made:
            if family != socket.AF_UNIX:
                try:
                    made.setsockopt(socket.SOL_SOCKET, constants.SO_BINDTODEVICE, _LOOPBACK)
                except OSError:
                    self._sockets.settled(made)
                    return Response(errno.EPROTONOSUPPORT)
            closing = bool(kind & socket.SOCK_CLOEXEC)
            return inject_fd(self._listener, identifier, made.fileno(), close_on_exec=closing)

    def _network_call(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        assert self._sockets is not None
        assert self._behalf is not None
        if not self._sockets.knows(caller, arguments[0]):
            return self._settled_call(caller, name, arguments)
        if name == "connect":
            self._names.asked_by(caller)
        answer = self._behalf.judge(identifier, caller, name, arguments)
        if name == "bind" and answer is not None and answer.errno == errno.EADDRINUSE:
            # it may be a copy of ours that kept the port, of a socket that was closed
            self._sockets.sweep()
            answer = self._behalf.judge(identifier, caller, name, arguments)
        return answer

    def _settled_call(
        self, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        """A socket of which there is no copy: connected, accepted,
        one of a pair or a link to the kernel.

        Its address counts no more.

        It may go on only where no datagram socket, whose address would count,
        can have been put in its place meanwhile.
        """
        assert self._sockets is not None
        if name == "listen":
            return None  # on the loopback device, as every socket here
        if name in ("connect", "bind"):
            return Response(errno.EISCONN if name == "connect" else errno.EINVAL)
        flags = arguments[2] if name == "sendmsg" else arguments[3]
        if flags & constants.MSG_FASTOPEN:
            return Response(errno.EOPNOTSUPP)
        if caller.status().get("Threads") == "1" or not self._sockets.datagrams():
            return None
        return Response(errno.EPERM, "network.egress", {"syscall": name}, alone=True)

    def _lead(self, end: socket.socket, to: str) -> None:
        """Connect to what stands behind a door: a relay's, or our own answerer's."""
        if to != _NAMES_DOOR:
            self._ways.lead(end, to)
            return
        self._answerer.adopt(joined(end))


def _signed(argument: int) -> int:
    """A number as the kernel takes it from the low half of an argument."""
    low = argument & constants.UINT_MAX
    return low - (1 << 32) if low >> 31 else low


def _key(door: Door) -> str:
    return f"{door.address}:{door.port}"


def _reach(doors: Sequence[Door]) -> HostNetworkPolicy:
    ways = {(socket.inet_aton(door.address), door.port): _key(door) for door in doors}
    ways |= {
        (socket.inet_aton(address), constants.NAMESERVER_PORT): _NAMES_DOOR
        for address in _RESOLVERS
    }
    ways |= {
        (constants.V4MAPPED_PREFIX + address, port): to for (address, port), to in ways.items()
    }
    hosts = {socket.inet_aton(door.address): door.host for door in doors if door.host}
    return HostNetworkPolicy(doors=ways, hosts=hosts, confined=True)
