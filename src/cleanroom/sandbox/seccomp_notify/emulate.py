"""Network calls carried out on the caller's behalf, where an environment shares the host's network
and no namespace refuses for us.

A held connect, bind, listen or send is judged by the address that it named when it was looked at,
and is then *done* with that very address on a copy of the caller's socket.
None is ever let go on after a look, so what another thread writes meanwhile does not matter.
Nothing here waits: what would wait for the caller is tried again when its socket is ready,
and other held calls are answered meanwhile.
"""

from __future__ import annotations

import errno
import math
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller, shown
from cleanroom.sandbox.network import addresses, control_sockets, host_network
from cleanroom.sandbox.network.dns import Names, parse_question
from cleanroom.sandbox.seccomp_notify import network, sendmsg
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.rules import Response
from cleanroom.sandbox.seccomp_notify.sendmsg import Message
from cleanroom.sandbox.seccomp_notify.socket_calls import SocketCall, SocketExecutor, waits
from cleanroom.sandbox.seccomp_notify.sockets import OwnedSockets, Sockets, kind_of

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target

NAMES = frozenset(("connect", "bind", "listen", "sendto", "sendmsg", "sendmmsg"))

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)
# between looks whether who waits was killed or has a signal:
# a person's Ctrl-C, not a program's loop
_LOOK_SECONDS = 0.05
# between a question and what follows it; processes that are remembered
_ASKED_SECONDS, _ASKED_MOST = 1.0, 1024
_PROTOCOLS = {6: "tcp", 17: "udp", 136: "udplite", 262: "mptcp"}

Lead = Callable[[socket.socket, str], None]


class _Call(NamedTuple):
    """One held call, a copy of the socket that it is about,
    and copies of the descriptors that go with its message.
    """

    identifier: int
    caller: Caller
    end: socket.socket
    rights: list[int]

    def close(self) -> None:
        self.end.close()
        for descriptor in self.rights:
            os.close(descriptor)


class _Wait(NamedTuple):
    """A call whose caller waits."""

    call: _Call
    act: Callable[[], int]
    until: float  # monotonic: the socket's own time limit
    late: int  # the errno then


class NetworkEmulator:
    """Judges and does.

    `answer` takes a call's number, its value and its errno, later than `judge`;
    `still_held` says whether its caller lives.
    """

    def __init__(
        self,
        where: host_network.HostNetworkPolicy,
        files: Files,
        names: Names,
        sockets: Sockets,
        own: OwnedSockets,
        hand: SocketExecutor,
        *,
        answer: Callable[[int, int, int], None],
        still_held: Callable[[int], bool],
        lead: Lead,
        controls: tuple[str, ...] = (),
    ) -> None:
        """`lead` connects a socket to what a declared door leads to;
        `controls` are sockets that start programs outside, as `control_sockets` has them.
        """
        self._where, self._files, self._names = where, files, names
        self._sockets, self._own, self._hand, self._lead = sockets, own, hand, lead
        self._answer, self._still_held, self._controls = answer, still_held, controls
        self._waiting: dict[int, _Wait] = {}  # by the copy's descriptor
        # process -> the name that it asked for last, and when
        self._asked: dict[int, tuple[str, float]] = {}
        self._ready = select.epoll()
        self._next_look = 0.0

    # --- one call

    def judge(
        self, identifier: int, caller: Caller, name: str, arguments: tuple[int, ...]
    ) -> Response | None:
        """What to answer and to record.

        None lets the kernel go on: a unix socket is bound by path, which the kernel holds.
        """
        try:
            call = _Call(identifier, caller, self._sockets.of(caller, arguments[0]), [])
        except OSError as error:
            if (
                error.errno == errno.EPERM
                and name in ("sendmsg", "sendmmsg")
                and not _addressed(caller, name, arguments)
            ):
                # nobody has a copy of it: it was accepted, one of a pair, or is connected;
                # see `docs/limits.md`
                return None
            return Response(error.errno or errno.EBADF)
        answer: Response | None = None
        try:
            self._own.note(call.end)
            answer = self._judged(call, name, arguments)
        except OSError as error:
            answer = Response(error.errno or errno.EINVAL)
        finally:
            if answer is None or not answer.later:
                call.close()
        return answer

    def _judged(self, call: _Call, name: str, arguments: tuple[int, ...]) -> Response | None:
        match name:
            case "bind":
                return self._bind(call, sendmsg.address(call.caller, arguments[1], arguments[2]))
            case "listen":
                return self._listen(call, min(arguments[1] & constants.UINT_MAX, constants.INT_MAX))
            case "connect":
                return self._connect(call, sendmsg.address(call.caller, arguments[1], arguments[2]))
            case "sendto":
                return self._send(call, sendmsg.plain(call.caller, arguments), arguments[3])
            case "sendmsg":
                return self._send(call, sendmsg.message(call.caller, arguments[1]), arguments[2])
        return self._send_many(call, arguments)

    def _bind(self, call: _Call, raw: bytes) -> Response | None:
        if call.end.family == socket.AF_UNIX:
            return self._files.bound(call.caller, raw)
        named = _internet(raw)
        if named is not None:
            decision = host_network.bound(self._where, *named)
            if decision.errno:
                return self._said(decision, call, *named)
        self._hand.do(call.end, SocketCall("bind", raw))
        return Response(0)

    def _listen(self, call: _Call, backlog: int) -> Response:
        if call.end.family in _INTERNET:
            ip, port = call.end.getsockname()[:2]
            address = socket.inet_pton(call.end.family, ip.partition("%")[0])
            decision = host_network.listened(self._where, address, port)
            if decision.errno:
                return self._said(decision, call, address, port)
        self._hand.do(call.end, SocketCall("listen", backlog=backlog))
        self._sockets.settled(call.end)
        return Response(0)

    def _connect(self, call: _Call, raw: bytes) -> Response:
        goal = self._goal(call, raw, None)
        if goal.said.errno:
            return goal.said
        return self._do(call, lambda: self._open(call, goal), goal.said, late=errno.EINPROGRESS)

    def _send(
        self, call: _Call, message: Message, flags: int, finish: Callable[[int], int] = int
    ) -> Response:
        """A stream's address counts only where its first bytes open it:
        it is connected first then, as the kernel does for a server that it does not know.
        """
        stream = call.end.type == socket.SOCK_STREAM
        if message.cut and not stream:
            return Response(errno.EMSGSIZE)
        opening = stream and bool(flags & constants.MSG_FASTOPEN) and bool(message.address)
        goal = (
            self._goal(call, message.address, message.payload)
            if message.address and (opening or not stream)
            else _Goal()
        )
        if (
            not message.address
            and call.end.type == socket.SOCK_DGRAM
            and call.end.family in _INTERNET
        ):
            goal = _Goal(self._question(call, message.payload))
        if call.end.family == socket.AF_NETLINK:
            goal = goal._replace(said=network.netlink_change(message.payload) or goal.said)
        if goal.said.errno:
            return goal.said
        control, numbers = sendmsg.beside(message.control)
        for number in numbers:
            call.rights.append(call.caller.copy(number))
        deed = SocketCall(
            "send",
            b"" if opening else goal.address,
            -1 if opening else goal.root,
            "" if opening else goal.path,
            message.payload,
            flags & ~(constants.MSG_FASTOPEN | constants.MSG_ZEROCOPY | constants.MSG_DONTWAIT),
            control,
            tuple(call.rights),
        )
        opened = not opening

        def act() -> int:
            nonlocal opened
            if not opened:
                self._open(call, goal)
                opened = True
            return finish(self._sent(call, deed, flags))

        return self._do(
            call, act, goal.said, late=errno.EAGAIN, wait=not flags & constants.MSG_DONTWAIT
        )

    def _send_many(self, call: _Call, arguments: tuple[int, ...]) -> Response:
        """Message after message, as the kernel does: one that fails ends it,
        and is told only if none went before it.

        Only the first may wait.
        """
        said = Response(0)
        for number in range(min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV)):
            at = arguments[1] + number * (sendmsg.HEADER_BYTES + 8)

            def finish(length: int, at: int = at) -> int:
                call.caller.write(at + sendmsg.HEADER_BYTES, struct.pack("=I", length))
                return 1

            try:
                answer = self._send(
                    call,
                    sendmsg.message(call.caller, at),
                    arguments[3] | (constants.MSG_DONTWAIT if number else 0),
                    finish,
                )
            except OSError as error:
                answer = Response(error.errno or errno.EINVAL)
            if answer.later:
                return answer
            if answer.errno:
                return said if said.value else answer
            said = (answer if answer.rule else said)._replace(value=number + 1)
        return said

    def _open(self, call: _Call, goal: _Goal) -> int:
        if goal.lead:
            self._lead(call.end, goal.lead)
        else:
            self._hand.do(call.end, SocketCall("connect", goal.address, goal.root, goal.path))
        if call.end.type == socket.SOCK_STREAM:
            self._sockets.settled(call.end)
        return 0

    def _sent(self, call: _Call, deed: SocketCall, flags: int) -> int:
        try:
            return self._hand.do(call.end, deed)
        except BrokenPipeError:
            if not flags & constants.MSG_NOSIGNAL:
                call.caller.signal(signal.SIGPIPE)
            raise

    # --- what is meant

    def _goal(self, call: _Call, raw: bytes, payload: bytes | None) -> _Goal:
        """Where an address leads, and what is said of it.

        Nothing is sent on connecting: an unspecified address then ends a connection.
        """
        family = int.from_bytes(raw[:2], "little") if len(raw) >= 2 else -1
        if call.end.family == socket.AF_UNIX and family == socket.AF_UNIX:
            return self._unix(call, raw)
        named = _internet(raw)
        if (
            call.end.family not in _INTERNET
            or named is None
            or (family == socket.AF_UNSPEC and payload is None)
        ):
            # netlink, the end of a connection, or what the kernel refuses as malformed
            return _Goal(address=raw)
        kind, (address, port) = kind_of(call.end), named
        local = addresses.local(address)
        own = local and self._own.waits(kind, address, port)
        vacant = local and not own and self._own.vacant(kind, address, port)
        decision = host_network.outgoing(self._where, kind, address, port, own=own, vacant=vacant)
        return _Goal(
            self._said(decision, call, address, port, payload or b""), raw, lead=decision.lead
        )

    def _unix(self, call: _Call, raw: bytes) -> _Goal:
        if len(raw) == 2:
            return _Goal(address=raw)
        if raw[2] == 0:
            said, path, root = "@" + raw[3:].decode("utf-8", "backslashreplace"), "", -1
            decision = host_network.unix(
                self._where, own=self._own.named(raw[3:]), control=False, exists=True, abstract=True
            )
        else:
            said = raw[2:].split(b"\0")[0].decode("utf-8", "surrogateescape")
            own, path, exists = self._files.may_reach(call.caller, said)
            root = self._files.root(call.caller)
            decision = host_network.unix(
                self._where, own=own, control=self._is_control(path), exists=exists, abstract=False
            )
        if not decision.rule:
            return _Goal(Response(decision.errno), raw, root, path)
        tags = network.habits(said, path)
        return _Goal(_refusal(decision, {"sun_path": shown(said)}, tags), raw, root, path)

    def _is_control(self, path: str) -> bool:
        """Whether programs are started by it, under whatever name."""
        if control_sockets.covers(self._controls, path):
            return True
        place = self._files.identity(path)
        return any(place) and any(_identity(known) == place for known in self._controls)

    def _said(
        self,
        decision: host_network.Decision,
        call: _Call,
        address: bytes,
        port: int,
        payload: bytes = b"",
    ) -> Response:
        if not decision.rule:
            return Response(decision.errno)
        ip = socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
        kind = kind_of(call.end)
        target: Target = {
            "ip": ip,
            "proto": _PROTOCOLS.get(kind.protocol, "tcp" if kind.stream else "udp"),
        }
        if port:
            target["port"] = port
        host = (
            self._names.followed(ip)
            or self._where.hosts.get(address, "")
            or self._asked_for(call.caller.group, port, payload)
        )
        if host:
            target["host"] = shown(host)
        return _refusal(decision, target)

    def _question(self, call: _Call, payload: bytes) -> Response:
        """What a datagram on a connected socket asks of a name server;
        nothing is said of any other.
        """
        try:
            ip, port = call.end.getpeername()[:2]
        except OSError:
            return Response(0)
        if port != constants.NAMESERVER_PORT or not self._where.internet:
            return Response(0)
        decision = host_network.Decision(0, host_network.RECORD, tags=("resolver",))
        return self._said(
            decision, call, socket.inet_pton(call.end.family, ip.partition("%")[0]), port, payload
        )

    def _asked_for(self, who: int, port: int, payload: bytes) -> str:
        """The name in a question; for anything else the one that the same process asked for just
        before, which is what it goes to as a rule.
        """
        if port == constants.NAMESERVER_PORT:
            parsed = parse_question(payload) if payload else None
            if parsed is None:
                return ""
            if len(self._asked) >= _ASKED_MOST:
                self._asked.clear()
            self._asked[who] = parsed[0], time.monotonic()
            return parsed[0]
        name, then = self._asked.get(who, ("", 0.0))
        return name if time.monotonic() - then < _ASKED_SECONDS else ""

    # --- waiting for the caller

    def _do(
        self, call: _Call, act: Callable[[], int], said: Response, *, late: int, wait: bool = True
    ) -> Response:
        """Try; where the caller would wait, it does, and is answered later."""
        try:
            return said._replace(value=act())
        except OSError as error:
            if error.errno not in _UNDER_WAY or not wait or not waits(call.end):
                return said._replace(errno=error.errno or errno.EIO)
        seconds = _time_limit(call.end)
        self._waiting[call.end.fileno()] = _Wait(
            call, act, time.monotonic() + seconds if seconds else math.inf, late
        )
        self._ready.register(call.end.fileno(), select.EPOLLOUT)
        return said._replace(later=True)

    def fileno(self) -> int:
        """Readable when `ready` has something to do."""
        return self._ready.fileno()

    def ready(self) -> None:
        """Try again for those whose socket is ready."""
        for descriptor, _ in self._ready.poll(0):
            self._again(self._waiting[descriptor])

    def _again(self, wait: _Wait) -> None:
        try:
            self._finish(wait, wait.act(), 0)
        except OSError as error:
            if error.errno not in _UNDER_WAY:
                self._finish(wait, 0, error.errno or errno.EIO)

    def wait_seconds(self) -> float | None:
        """How long until `tick` has something to do; None while nobody waits."""
        return max(0.0, self._next_look - time.monotonic()) if self._waiting else None

    def tick(self) -> None:
        """See who waits no longer: killed, called away by a signal, or out of time."""
        now = time.monotonic()
        if not self._waiting or now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        for wait in list(self._waiting.values()):
            if not self._still_held(wait.call.identifier):
                self._finish(wait, 0, errno.EINTR)
            elif now >= wait.until:
                self._finish(wait, 0, wait.late)
            elif interruption := wait.call.caller.interrupted():
                self._finish(wait, 0, interruption)
            # whose other side says nothing when it has room again
            elif wait.call.end.family == socket.AF_UNIX:
                self._again(wait)

    def _finish(self, wait: _Wait, value: int, code: int) -> None:
        descriptor = wait.call.end.fileno()
        del self._waiting[descriptor]
        self._ready.unregister(descriptor)
        wait.call.close()
        self._answer(wait.call.identifier, value, code)

    def close(self) -> None:
        for wait in self._waiting.values():
            wait.call.close()
        self._waiting.clear()
        self._ready.close()
        self._hand.close()


class _Goal(NamedTuple):
    """Where a call leads, in the words of the kernel, and what is answered and recorded of it."""

    said: Response = Response(0)
    address: bytes = b""
    root: int = -1
    path: str = ""
    lead: str = ""


def _internet(raw: bytes) -> tuple[bytes, int] | None:
    """Address and port of an internet socket's address; an unspecified family names an IPv4 one.

    None for what is malformed.
    """
    family = int.from_bytes(raw[:2], "little") if len(raw) >= 8 else -1
    if family == socket.AF_INET6 and len(raw) >= 24:
        return raw[20:24] if raw[8:20] == constants.V4MAPPED_PREFIX else raw[8:24], int.from_bytes(
            raw[2:4], "big"
        )
    return (
        (raw[4:8], int.from_bytes(raw[2:4], "big"))
        if family in (socket.AF_INET, socket.AF_UNSPEC)
        else None
    )


def _addressed(caller: Caller, name: str, arguments: tuple[int, ...]) -> bool:
    """Whether any of the messages names an address."""
    count = 1 if name == "sendmsg" else min(arguments[2] & constants.UINT_MAX, constants.UIO_MAXIOV)
    step = sendmsg.HEADER_BYTES + (0 if name == "sendmsg" else 8)
    return any(
        sendmsg.message(caller, arguments[1] + number * step).address for number in range(count)
    )


def _refusal(
    decision: host_network.Decision, target: Target, tags: tuple[str, ...] = ()
) -> Response:
    outcome = "blocked" if decision.errno else "observed"
    return Response(
        decision.errno, decision.rule, target, (*decision.tags, *tags), alone=True, outcome=outcome
    )


def _time_limit(end: socket.socket) -> float:
    """SO_SNDTIMEO in seconds; 0 is none."""
    seconds, micro = struct.unpack("=qq", end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
    return float(seconds + micro / 1e6)


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
