"""The messages between a container's warden and its pid 1, and an adapter that gives their socket
the interface of init's channel.

A message is one datagram: a letter, then fields of a u32 length and bytes.
Strings end with a zero byte, so that C can use them where they are.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict, assert_never

from cleanroom.sandbox.channel import DESCRIPTORS_MAX, MESSAGE_MAX
from cleanroom.sandbox.shim.calls import Argument, Datagram, Step, Told

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol

_STATES_ENDED = "ZX"


class Listening(TypedDict):
    """Brings the listener of pid 1's filter."""

    kind: Literal["listening"]


class Tried(TypedDict):
    """The outcomes of the steps of one attempt."""

    kind: Literal["tried"]
    n: int
    told: list[Told]


if TYPE_CHECKING:
    ShimMessage = protocol.InitMessage | Listening | Tried
    # Orders that pid 1 carries out itself; it gets canaries as attempts.
    ShimOrder = protocol.Execute | protocol.Signal | protocol.ListProcesses


def _field(value: bytes) -> bytes:
    return struct.pack("=I", len(value)) + value


def _number(value: int) -> bytes:
    return _field(struct.pack("=Q", value & 0xFFFFFFFFFFFFFFFF))


def _text(value: str) -> bytes:
    return _field(os.fsencode(value) + b"\0")


def restrict(
    attributes: bytes, rules: Sequence[tuple[str, int]], program: bytes, *, hold: bool
) -> bytes:
    """Apply these Landlock rules (path, access) and install the filter; with `hold` pid 1 sends its
    listener back.
    """
    paths = b"".join(_number(access) + _text(path) for path, access in rules)
    return (
        b"R"
        + _field(attributes)
        + _number(len(rules))
        + paths
        + _field(program)
        + _number(int(hold))
    )


def execute(order: protocol.Execute) -> bytes:
    """Start a command."""
    words = b"".join(_text(word) for word in order["argv"])
    variables = b"".join(_text(f"{name}={value}") for name, value in order["env"].items())
    return (
        b"X"
        + _number(order["n"])
        + _text(order["cwd"])
        + _number(len(order["argv"]))
        + words
        + _number(len(order["env"]))
        + variables
    )


def attempt(number: int, steps: Sequence[Step]) -> bytes:
    """Try system calls in order in a child, until one fails."""
    return b"T" + _number(number) + _number(len(steps)) + b"".join(_step(step) for step in steps)


def _step(step: Step) -> bytes:
    words = [*step.arguments, *(0,) * (6 - len(step.arguments))]
    return _number(step.call) + b"".join(_argument(word) for word in words)


def _argument(word: Argument) -> bytes:
    if isinstance(word, bytes):
        return _text("b") + _field(word)
    if isinstance(word, int):
        return _text("n") + _number(word)
    if isinstance(word, Datagram):
        return _text("m") + _field(word.address) + _field(word.data)
    return _text(word.letter) + _number(word.value)


def told(payload: bytes) -> list[Told]:
    """The outcome of each step: its result (a negative errno) and the content of its buffer."""
    found, at = [], 0
    while at + 12 <= len(payload):
        result, size = struct.unpack_from("=qI", payload, at)
        found.append(Told(result, payload[at + 12 : at + 12 + size]))
        at += 12 + size
    return found


def left(payload: bytes) -> list[protocol.LivingProcess]:
    """The running processes but pid 1, in the form of init's message."""
    parts = payload.decode(errors="replace").split("\0")[:-1]
    found: list[protocol.LivingProcess] = []
    for pid, stat, words in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if stat.rpartition(")")[2].split()[:1] not in ([state] for state in _STATES_ENDED):
            found.append(
                {
                    "ns_pid": int(pid),
                    "comm": stat.partition("(")[2].rpartition(")")[0],
                    "argv": words.split(" "),
                }
            )
    return found


class ShimSocket:
    """The warden's end of a container's socket, with the orders and messages of init's channel."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        # EMSGSIZE for a message beyond the send buffer; net.core.wmem_max bounds it (socket(7)).
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)

    def fileno(self) -> int:
        return self.end.fileno()

    def close(self) -> None:
        self.end.close()

    def send(self, body: bytes, descriptors: Sequence[int] = ()) -> None:
        beside = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            if descriptors
            else []
        )
        # MSG_NOSIGNAL: EPIPE without SIGPIPE where the container has ended.
        self.end.sendmsg([body], beside, socket.MSG_NOSIGNAL)

    def order(self, order: ShimOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order."""
        match order["op"]:
            case "exec":
                self.send(execute(order), descriptors)
            case "signal":
                self.send(b"S" + _number(order["n"]) + _number(order["signal"]))
            case "left":
                self.send(b"L" + _number(order["n"]))
            case _:
                assert_never(order)

    def receive(self) -> tuple[ShimMessage, list[int]] | None:
        """The next message, in the form of init's messages, and its descriptors;
        None when the container has ended.
        """
        try:
            body, descriptors, _, _ = socket.recv_fds(self.end, MESSAGE_MAX, DESCRIPTORS_MAX)
        except ConnectionResetError:
            # ECONNRESET: the peer closed with messages that it had not read.
            return None
        if not body:
            return None
        for descriptor in descriptors:
            # socket.recv_fds() does not ask for MSG_CMSG_CLOEXEC (recvmsg(2)).
            os.set_inheritable(descriptor, False)
        return (decoded(body), list(descriptors))


def decoded(body: bytes) -> ShimMessage:
    """A message of pid 1, in the form of init's messages."""
    letter, payload = body[:1].decode(), body[5:]
    # A message is one letter, the number of its order, and the rest.
    number = struct.unpack_from("=I", body, 1)[0] if len(body) >= 5 else 0
    match letter:
        case "l":
            return {"kind": "listening"}
        case "r":
            return {"kind": "restricted"}
        case "f":
            return {"kind": "failed", "why": payload.decode(errors="replace")}
        case "s":
            return {"kind": "started", "n": number, "pid": int(payload)}
        case "x":
            return {"kind": "exited", "n": number, "status": int(payload)}
        case "L":
            return {"kind": "processes", "n": number, "processes": left(payload)}
        case "t":
            return {"kind": "tried", "n": number, "told": told(payload)}
    return {"kind": "failed", "why": f"pid 1 said {letter!r}"}
