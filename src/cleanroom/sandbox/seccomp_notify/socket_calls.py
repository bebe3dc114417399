"""The hand that does what a held call asked for: on a copy of the caller's socket,
without waiting, and with no more rights than the caller has.

Where the warden is root and its environment is not, a process with the environment's own user does
it: a unix socket's peer and its file modes, and the ports that need a privilege,
are then judged by the kernel as they would be for the caller.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, Protocol

from cleanroom.core.beneath import unix_address
from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import constants, privileges, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import SocketCallOrder, SocketCallResult


class SocketCall(NamedTuple):
    """What to do.

    `path` from `root` on (a descriptor): the unix socket that is meant, instead of an address.
    `rights`: descriptors that go with a message.
    """

    name: Literal["connect", "bind", "listen", "send"]
    address: bytes = b""
    root: int = -1
    path: str = ""
    payload: bytes = b""
    flags: int = 0
    control: bytes = b""
    rights: tuple[int, ...] = ()
    backlog: int = 0


class SocketExecutor(Protocol):
    def do(self, end: socket.socket, deed: SocketCall) -> int:
        """Do it without waiting; how many bytes went, else 0.

        Raises:
            OSError: as the kernel says, EINPROGRESS or EAGAIN where the caller would wait.
        """

    def close(self) -> None: ...


class DirectExecutor:
    """This process's own."""

    def do(self, end: socket.socket, deed: SocketCall) -> int:
        with _address(deed) as address:
            match deed.name:
                case "connect":
                    with _not_waiting(end):
                        syscalls.connect(end.fileno(), address)
                case "bind":
                    syscalls.bind(end.fileno(), address)
                case "listen":
                    end.listen(deed.backlog)
                case "send":
                    flags = deed.flags | constants.MSG_NOSIGNAL | constants.MSG_DONTWAIT
                    return syscalls.sendmsg(
                        end.fileno(), deed.payload, flags, address, _with_rights(deed)
                    )
        return 0

    def close(self) -> None: ...


class UnprivilegedExecutor:
    """A process of the environment's user.

    Made before the environment's pid namespace, so that nobody inside sees it.
    """

    def __init__(self, user: int, group: int) -> None:
        self._own = DirectExecutor()
        self._channel, theirs = channel.pair()
        if os.fork() == 0:
            self._channel.close()
            _lend(theirs, user, group)
        theirs.close()

    def do(self, end: socket.socket, deed: SocketCall) -> int:
        if end.family != socket.AF_UNIX and deed.name != "bind":
            return self._own.do(end, deed)  # the kernel asks the socket and not who acts
        call: SocketCallOrder = {
            "op": deed.name,
            "address": deed.address.hex(),
            "payload": deed.payload.hex(),
            "control": deed.control.hex(),
            "flags": deed.flags,
            "rights": len(deed.rights),
            "backlog": deed.backlog,
            "path": deed.path,
        }
        beside = [end.fileno(), *deed.rights, *([deed.root] if deed.path else [])]
        channel.SOCKET_CALLS.send(self._channel, call, beside)
        answer = channel.SOCKET_RESULTS.receive(self._channel)
        if answer is None:
            raise OSError(5, "the process that acts for the environment is gone")
        if answer[0]["errno"]:
            raise OSError(answer[0]["errno"], os.strerror(answer[0]["errno"]))
        return answer[0]["value"]

    def close(self) -> None:
        """It ends when it sees this."""
        self._channel.close()


def _lend(orders: socket.socket, user: int, group: int) -> NoReturn:
    """Be the environment's user and do what is asked, until the channel ends."""
    try:
        os.dup2(orders.fileno(), 0, inheritable=False)
        syscalls.close_range(1)
        orders.detach()
        mine = socket.socket(fileno=0)
        privileges.drop_root(user, group)
        syscalls.set_parent_death_signal(signal.SIGKILL)
        hand = DirectExecutor()
        while (arrived := channel.SOCKET_CALLS.receive(mine)) is not None:
            channel.SOCKET_RESULTS.send(mine, _lent(hand, *arrived))
    finally:
        os._exit(0)


def _lent(hand: DirectExecutor, call: SocketCallOrder, descriptors: list[int]) -> SocketCallResult:
    rights = tuple(descriptors[1 : 1 + call["rights"]])
    rest = descriptors[1 + call["rights"] :]
    deed = SocketCall(
        call["op"],
        bytes.fromhex(call["address"]),
        rest[0] if rest else -1,
        call["path"],
        bytes.fromhex(call["payload"]),
        call["flags"],
        bytes.fromhex(call["control"]),
        rights,
        call["backlog"],
    )
    try:
        with socket.socket(fileno=descriptors[0]) as end:
            return {"kind": "done", "errno": 0, "value": hand.do(end, deed)}
    except OSError as error:
        return {"kind": "done", "errno": error.errno or 5, "value": 0}
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)


def _with_rights(deed: SocketCall) -> bytes:
    """The ancillary data, with the descriptors in a message of their own."""
    if not deed.rights:
        return deed.control
    body = struct.pack(f"={len(deed.rights)}i", *deed.rights)
    return (
        deed.control
        + struct.pack("=Qii", 16 + len(body), socket.SOL_SOCKET, socket.SCM_RIGHTS)
        + body
        + bytes(-len(body) % 8)
    )


@contextlib.contextmanager
def _address(deed: SocketCall) -> Iterator[bytes]:
    """The address as the kernel takes it.

    A path is opened first and then gone through, so that what is reached is what was opened,
    without links.
    """
    if not deed.path:
        yield deed.address
        return
    handle = syscalls.openat2(
        deed.root,
        deed.path,
        constants.O_PATH,
        constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS,
    )
    try:
        yield struct.pack("=H", socket.AF_UNIX) + unix_address(handle).encode() + b"\0"
    finally:
        os.close(handle)


@contextlib.contextmanager
def _not_waiting(end: socket.socket) -> Iterator[None]:
    """For one call.

    The flag is the caller's too, so it is put back at once;
    on a socket that is not connected there is nothing else to wait for.
    """
    flags = fcntl.fcntl(end.fileno(), fcntl.F_GETFL)
    if flags & os.O_NONBLOCK:
        yield
        return
    fcntl.fcntl(end.fileno(), fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl.fcntl(end.fileno(), fcntl.F_SETFL, flags)


def waits(end: socket.socket) -> bool:
    """Whether the caller would wait on this socket."""
    return not fcntl.fcntl(end.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
