"""Performs a held socket call on a duplicate of the caller's socket, without blocking and with no
more privileges than the caller has.

Where the warden is root and its environment is not, a process with the environment's user performs
the call: the kernel then judges a unix socket's peer credentials and file mode, and ports that need
a privilege, as it would for the caller.
"""

from __future__ import annotations

import contextlib
import errno
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

# struct cmsghdr: length, level, type
_CMSGHDR = struct.Struct("=Qii")


class SocketCall(NamedTuple):
    """One call and its arguments, copied from the caller's memory."""

    name: Literal["connect", "bind", "listen", "send"]
    address: bytes = b""
    # with a `path`: the unix socket at that path below descriptor `root` is meant, not `address`
    root: int = -1
    path: str = ""
    payload: bytes = b""
    flags: int = 0
    control: bytes = b""
    # descriptors that the message passes
    rights: tuple[int, ...] = ()
    backlog: int = 0


class SocketExecutor(Protocol):
    """Performs socket calls."""

    def execute(self, sock: socket.socket, call: SocketCall) -> int:
        """Perform it without blocking; returns how many bytes were sent, else 0.

        Raises:
            OSError: as the kernel says; EINPROGRESS or EAGAIN where the caller would block.
        """

    def close(self) -> None: ...


class DirectExecutor:
    """Performs them in this process."""

    def execute(self, sock: socket.socket, call: SocketCall) -> int:
        # each call is made once: one that would block is made again by `pending`
        with _kernel_address(call) as address:
            match call.name:
                # connect(2) has no flag for one call, send(2) has MSG_DONTWAIT
                case "connect":
                    with _nonblocking(sock):
                        syscalls.connect(sock.fileno(), address)
                case "bind":
                    syscalls.bind(sock.fileno(), address)
                case "listen":
                    sock.listen(call.backlog)
                case "send":
                    flags = call.flags | constants.MSG_NOSIGNAL | constants.MSG_DONTWAIT
                    control = _ancillary_data(call)
                    return syscalls.sendmsg(sock.fileno(), call.payload, flags, address, control)
        return 0

    def close(self) -> None: ...


class UnprivilegedExecutor:
    """Performs them in a child process with the environment's user.

    It is made before the environment's pid namespace, so that no process inside sees the child.
    """

    def __init__(self, user: int, group: int) -> None:
        self._direct = DirectExecutor()
        self._channel, theirs = channel.pair()
        if os.fork() == 0:
            self._channel.close()
            _serve(theirs, user, group)
        theirs.close()

    def execute(self, sock: socket.socket, call: SocketCall) -> int:
        # of all other calls the kernel takes the credentials of the socket, not of the process
        if sock.family != socket.AF_UNIX and call.name != "bind":
            return self._direct.execute(sock, call)
        order: SocketCallOrder = {
            "op": call.name,
            "address": call.address.hex(),
            "payload": call.payload.hex(),
            "control": call.control.hex(),
            "flags": call.flags,
            "rights": len(call.rights),
            "backlog": call.backlog,
            "path": call.path,
        }
        root = [call.root] if call.path else []
        descriptors = [sock.fileno(), *call.rights, *root]
        channel.SOCKET_CALLS.send(self._channel, order, descriptors)
        arrived = channel.SOCKET_RESULTS.receive(self._channel)
        if arrived is None:
            raise OSError(errno.EIO, "the process that acts for the environment is gone")
        result, _ = arrived
        if result["errno"]:
            raise OSError(result["errno"], os.strerror(result["errno"]))
        return result["value"]

    def close(self) -> None:
        """Close the channel; the child ends when it reads that."""
        self._channel.close()


def _serve(orders: socket.socket, user: int, group: int) -> NoReturn:
    """In the child: take on the environment's user and perform calls until the channel ends."""
    try:
        # as descriptor 0, so that all others can be closed at once (close_range(2))
        os.dup2(orders.fileno(), 0, inheritable=False)
        # the child keeps no descriptor of the warden but the channel
        # close_range(2), since 5.9
        syscalls.close_range(1)
        orders.detach()
        engine = socket.socket(fileno=0)
        privileges.drop_root(user, group)
        # the change of credentials has cleared it (prctl(2), PR_SET_PDEATHSIG)
        syscalls.set_parent_death_signal(signal.SIGKILL)
        executor = DirectExecutor()
        while (arrived := channel.SOCKET_CALLS.receive(engine)) is not None:
            channel.SOCKET_RESULTS.send(engine, _execute_order(executor, *arrived))
    finally:
        os._exit(0)


def _execute_order(
    executor: DirectExecutor, order: SocketCallOrder, descriptors: list[int]
) -> SocketCallResult:
    rights = tuple(descriptors[1 : 1 + order["rights"]])
    root = descriptors[1 + order["rights"] :]
    call = SocketCall(
        order["op"],
        bytes.fromhex(order["address"]),
        root[0] if root else -1,
        order["path"],
        bytes.fromhex(order["payload"]),
        order["flags"],
        bytes.fromhex(order["control"]),
        rights,
        order["backlog"],
    )
    try:
        with socket.socket(fileno=descriptors[0]) as sock:
            return {"kind": "done", "errno": 0, "value": executor.execute(sock, call)}
    except OSError as error:
        return {"kind": "done", "errno": error.errno or errno.EIO, "value": 0}
    finally:
        for descriptor in descriptors[1:]:
            os.close(descriptor)


def _ancillary_data(call: SocketCall) -> bytes:
    """The message's control data, with an SCM_RIGHTS message for the descriptors it passes."""
    if not call.rights:
        return call.control
    # a multiple of 8 bytes, as CMSG_ALIGN asks for (cmsg(3))
    body = struct.pack(f"={len(call.rights)}i", *call.rights)
    header = _CMSGHDR.pack(_CMSGHDR.size + len(body), socket.SOL_SOCKET, socket.SCM_RIGHTS)
    return call.control + header + body + bytes(-len(body) % 8)


@contextlib.contextmanager
def _kernel_address(call: SocketCall) -> Iterator[bytes]:
    """The address as the kernel takes it.

    A path is opened first, without following links, and then named as /proc/self/fd/N: the socket
    that is connected is the one that was opened, and no path is longer than sun_path.
    """
    if not call.path:
        yield call.address
        return
    resolve = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
    handle = syscalls.openat2(call.root, call.path, constants.O_PATH, resolve)
    try:
        yield struct.pack("=H", socket.AF_UNIX) + unix_address(handle).encode() + b"\0"
    finally:
        os.close(handle)


@contextlib.contextmanager
def _nonblocking(sock: socket.socket) -> Iterator[None]:
    """Set O_NONBLOCK for one call.

    The flag belongs to the open file, which is the caller's too, so it is restored at once.
    A socket that is not connected has no other call that could block meanwhile.
    """
    flags = fcntl.fcntl(sock.fileno(), fcntl.F_GETFL)
    if flags & os.O_NONBLOCK:
        yield
        return
    fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        yield
    finally:
        fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, flags)


def is_blocking(sock: socket.socket) -> bool:
    """Whether calls of the caller block on this socket."""
    return not fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
