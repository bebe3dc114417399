"""Performs network calls for their callers, where an environment shares the host's network and no
namespace refuses.

A held connect, bind, listen or send is judged by its address as it was copied from the caller, and
is then performed with that very copy on a duplicate of the caller's socket.
None continues after it was judged: another thread may have changed its arguments meanwhile
(seccomp_unotify(2), NOTES).
Nothing here blocks: a call that would is left to `pending`.
"""

from __future__ import annotations

import errno
import signal
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.network.dns import NameTable
from cleanroom.sandbox.network.host_network import HostNetworkPolicy
from cleanroom.sandbox.seccomp_notify import network, sendmsg
from cleanroom.sandbox.seccomp_notify.destination import INTERNET, Destination, Destinations
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall, SocketOperation
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.seccomp_notify.pending import PendingCalls
from cleanroom.sandbox.seccomp_notify.response import Response
from cleanroom.sandbox.seccomp_notify.sendmsg import Message
from cleanroom.sandbox.seccomp_notify.socket_calls import (
    DirectExecutor,
    SocketCall,
    SocketExecutor,
)
from cleanroom.sandbox.seccomp_notify.sockets import OwnedSockets, Sockets

NAMES = frozenset(("connect", "bind", "listen", "sendto", "sendmsg", "sendmmsg"))

# struct mmsghdr: a message header, how many bytes were sent, padding
_MMSGHDR_BYTES = sendmsg.HEADER_BYTES + 8
# flags that are emulated, and not passed on
# MSG_ZEROCOPY would report when our copy is free again, not the caller's buffer
_EMULATED_FLAGS = constants.MSG_FASTOPEN | constants.MSG_ZEROCOPY | constants.MSG_DONTWAIT


class HostNetworkAccess(NamedTuple):
    """Where an environment may go on a network that it shares with the host, and with which means
    its calls are performed.
    """

    policy: HostNetworkPolicy
    # connects a socket to a forward
    connect_forward: Callable[[socket.socket, str], None]
    executor: SocketExecutor = DirectExecutor()
    # unix sockets that start programs outside, as `control_sockets` has them
    controls: tuple[str, ...] = ()
    # where pidfd_getfd(2) is refused: the recorder makes the sockets, and keeps duplicates
    track_sockets: bool = False


class NetworkEmulator:
    """Judges and performs the network calls of one environment."""

    def __init__(
        self,
        access: HostNetworkAccess,
        files: Files,
        names: NameTable,
        sockets: Sockets,
        owned: OwnedSockets,
        listener: Listener,
    ) -> None:
        self._files = files
        self._sockets = sockets
        self._owned = owned
        self._executor = access.executor
        self._connect_forward = access.connect_forward
        self._destinations = Destinations(access.policy, files, names, owned, access.controls)
        self.pending = PendingCalls(listener)

    def judge(self, call: HeldCall) -> Response | None:
        """Perform the call, or refuse it.

        None lets the kernel carry it out: a unix socket is bound by path, which mounts and Landlock
        judge.
        """
        try:
            sock = self._sockets.duplicate(call.caller, call.arguments[0])
        except OSError as error:
            # no duplicate is kept of a socket that was accepted, is one of a pair, or is connected
            # (docs/limits.md)
            unaddressed = call.name in ("sendmsg", "sendmmsg") and not _has_address(call)
            if error.errno == errno.EPERM and unaddressed:
                return None
            return Response(error.errno or errno.EBADF)
        operation = SocketOperation(call.identifier, call.caller, sock, [])
        response: Response | None = None
        try:
            self._owned.add(sock)
            response = self._judge(operation, call.name, call.arguments)
        except OSError as error:
            response = Response(error.errno or errno.EINVAL)
        finally:
            if response is None or not response.pending:
                operation.close()
        return response

    def close(self) -> None:
        self.pending.close()
        self._executor.close()

    def _judge(
        self, operation: SocketOperation, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        caller = operation.caller
        match name:
            case "bind":
                return self._bind(operation, sendmsg.address(caller, arguments[1], arguments[2]))
            case "listen":
                backlog = min(arguments[1] & constants.UINT_MAX, constants.INT_MAX)
                return self._listen(operation, backlog)
            case "connect":
                return self._connect(operation, sendmsg.address(caller, arguments[1], arguments[2]))
            case "sendto":
                return self._send(operation, sendmsg.read_sendto(caller, arguments), arguments[3])
            case "sendmsg":
                message = sendmsg.read_message(caller, arguments[1])
                return self._send(operation, message, arguments[2])
        return self._send_many(operation, arguments)

    def _bind(self, operation: SocketOperation, raw: bytes) -> Response | None:
        if operation.sock.family == socket.AF_UNIX:
            return self._files.judge_bind(operation.caller, raw)
        response = self._destinations.judge_bind(operation, raw)
        if response.errno:
            return response
        self._executor.execute(operation.sock, SocketCall("bind", raw))
        return Response(0)

    def _listen(self, operation: SocketOperation, backlog: int) -> Response:
        response = self._destinations.judge_listen(operation)
        if response.errno:
            return response
        self._executor.execute(operation.sock, SocketCall("listen", backlog=backlog))
        # accept(2) is not held, and a duplicate would keep the port after its process has ended
        self._sockets.stop_tracking(operation.sock)
        return Response(0)

    def _connect(self, operation: SocketOperation, raw: bytes) -> Response:
        destination = self._destinations.judge(operation, raw, None)
        response = destination.response
        if response.errno:
            return response
        return self.pending.perform(
            operation,
            lambda: self._open(operation, destination),
            response,
            # after SO_SNDTIMEO; send(2) fails with EAGAIN then (socket(7))
            timeout_errno=errno.EINPROGRESS,
        )

    def _send(
        self,
        operation: SocketOperation,
        message: Message,
        flags: int,
        finish: Callable[[int], int] = int,
    ) -> Response:
        """Send one message; `finish` makes the call's value of the number of bytes.

        The address of a stream counts only with MSG_FASTOPEN, where the first send connects.
        It is connected first here, as the kernel does for a server whose cookie it does not have.
        """
        sock = operation.sock
        stream = sock.type == socket.SOCK_STREAM
        # a datagram goes whole or not at all; of a stream send(2) may send a part
        if message.cut and not stream:
            return Response(errno.EMSGSIZE)
        opens = stream and bool(flags & constants.MSG_FASTOPEN) and bool(message.address)
        destination = self._destination(operation, message, opens=opens)
        if destination.response.errno:
            return destination.response
        control, numbers = sendmsg.read_control(message.control)
        # the executor passes duplicates, since SCM_RIGHTS takes descriptors of the sender (unix(7))
        for number in numbers:
            operation.rights.append(operation.caller.copy(number))
        socket_call = SocketCall(
            "send",
            b"" if opens else destination.address,
            -1 if opens else destination.root,
            "" if opens else destination.path,
            message.payload,
            flags & ~_EMULATED_FLAGS,
            control,
            tuple(operation.rights),
        )
        opened = not opens

        def attempt() -> int:
            nonlocal opened
            if not opened:
                self._open(operation, destination)
                opened = True
            return finish(self._execute_send(operation, socket_call, flags))

        return self.pending.perform(
            operation,
            attempt,
            destination.response,
            timeout_errno=errno.EAGAIN,
            may_block=not flags & constants.MSG_DONTWAIT,
        )

    def _destination(
        self, operation: SocketOperation, message: Message, *, opens: bool
    ) -> Destination:
        """The destination of a message, and the record of it."""
        sock = operation.sock
        datagram = sock.type == socket.SOCK_DGRAM
        destination = Destination()
        if message.address and (opens or sock.type != socket.SOCK_STREAM):
            destination = self._destinations.judge(operation, message.address, message.payload)
        elif not message.address and datagram and sock.family in INTERNET:
            response = self._destinations.judge_connected(operation, message.payload)
            destination = Destination(response)
        if sock.family == socket.AF_NETLINK:
            refusal = network.judge_netlink(message.payload)
            destination = destination._replace(response=refusal or destination.response)
        return destination

    def _send_many(self, operation: SocketOperation, arguments: tuple[int, ...]) -> Response:
        """Send message after message, as sendmmsg(2) does.

        One that fails ends the call, and its errno is returned only if no message went before.
        Only the first message may block.
        """
        caller = operation.caller
        total = Response(0)
        # sendmmsg(2) caps the number of messages at UIO_MAXIOV
        for index in range(min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV)):
            at = arguments[1] + index * _MMSGHDR_BYTES

            def write_length(length: int, at: int = at) -> int:
                # msg_len follows the header: the bytes that were sent
                caller.write(at + sendmsg.HEADER_BYTES, struct.pack("=I", length))
                return 1

            flags = arguments[3] | (constants.MSG_DONTWAIT if index else 0)
            try:
                message = sendmsg.read_message(caller, at)
                response = self._send(operation, message, flags, write_length)
            except OSError as error:
                response = Response(error.errno or errno.EINVAL)
            if response.pending:
                return response
            if response.errno:
                return total if total.value else response
            total = (response if response.rule else total)._replace(value=index + 1)
        return total

    def _open(self, operation: SocketOperation, destination: Destination) -> int:
        """Connect the socket."""
        sock = operation.sock
        if destination.forward:
            self._connect_forward(sock, destination.forward)
        else:
            address, root, path = destination.address, destination.root, destination.path
            self._executor.execute(sock, SocketCall("connect", address, root, path))
        # the peer sees the end of a stream only when its last descriptor is closed
        if sock.type == socket.SOCK_STREAM:
            self._sockets.stop_tracking(sock)
        return 0

    def _execute_send(self, operation: SocketOperation, call: SocketCall, flags: int) -> int:
        try:
            return self._executor.execute(operation.sock, call)
        except BrokenPipeError:
            # the executor sends with MSG_NOSIGNAL, so the caller's signal is sent here (send(2))
            if not flags & constants.MSG_NOSIGNAL:
                operation.caller.signal(signal.SIGPIPE)
            raise


def _has_address(call: HeldCall) -> bool:
    """Whether any message of a sendmsg or sendmmsg names an address."""
    caller, arguments = call.caller, call.arguments
    if call.name == "sendmsg":
        return bool(sendmsg.read_message(caller, arguments[1]).address)
    count = min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV)
    places = (arguments[1] + index * _MMSGHDR_BYTES for index in range(count))
    return any(sendmsg.read_message(caller, at).address for at in places)
