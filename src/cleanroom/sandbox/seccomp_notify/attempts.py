"""Records of attempts, in the shape of capability.Attempt without the environment's name."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox.network import addresses
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.response import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt, Process, Target


def held_attempt(call: HeldCall, response: Response, tags: tuple[str, ...], gap: str) -> Attempt:
    """The record of a held call; `gap` says why nothing is known of its process."""
    process = call.caller.identity()
    unread = "" if process else "the caller's /proc folder could not be read"
    return _attempt(process, call.name, response, tags, gap or unread)


def sent_datagram(call: HeldCall, refusal: Response) -> Attempt:
    """The record of a datagram to a host that `call` connected a socket to."""
    attempt = held_attempt(call, refusal, refusal.tags, "")
    return {**attempt, "mechanism": "datagram_sink", "certainty": "packet"}


def stray_datagram(ip: str, port: int) -> Attempt:
    """The record of a datagram at the sink's own address, of an unknown sender."""
    target: Target = {"ip": ip, "port": port, "proto": "udp"}
    response = Response(errno.ENETUNREACH, "network.egress", target)
    gap = "which host its socket was connected to is not known"
    attempt = _attempt({}, "connect", response, (), gap)
    return {**attempt, "mechanism": "datagram_sink", "certainty": "packet"}


def relay_refusal(host: str, port: int, ip: str) -> Response:
    """What the relay of a declared host answered: `ip`, to which the name leads, is an address that
    no declaration opens.
    """
    target: Target = {"host": host, "port": port, "ip": ip, "proto": "tcp"}
    return Response(errno.ECONNRESET, "network.egress", target)


def relay_attempt(process: Process, response: Response) -> Attempt:
    """The record of a connection that a relay refused, with what the address is as tags."""
    gap = "" if process else "the relay knows its port only"
    tags = _address_kinds(response.target.get("ip", ""))
    attempt = _attempt(process, "connect", response, tags, gap)
    return {**attempt, "mechanism": "relay", "certainty": "packet"}


def _address_kinds(ip: str) -> tuple[str, ...]:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        packed = socket.inet_pton(family, ip.partition("%")[0])
    except OSError:
        return ()
    return tuple(sorted(addresses.kinds(packed)))


def _attempt(
    process: Process, name: str, response: Response, tags: tuple[str, ...], gap: str
) -> Attempt:
    target: Target = {**response.target}
    return {
        "dimension": response.rule.partition(".")[0],
        "rule": response.rule,
        "outcome": response.outcome,
        "mechanism": "seccomp_notify",
        "certainty": "held_syscall",
        "target": target,
        "process": process or None,
        "attribution_gap": gap,
        "syscall": name,
        "errno": response.error_name,
        "tags": list(tags),
        # `Aggregate` sets these
        "count": 1,
        "first_unix_ns": 0,
        "last_unix_ns": 0,
    }
