"""The policy of an environment on a network that it shares with the host: where it may connect, and
where it may listen.

Values and one decision each; no I/O.
No network namespace refuses by itself here, so `seccomp_notify.emulate` performs each call with the
address that was judged.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.network import addresses

LOCAL, EGRESS, RECORD, NAMES_RULE = (
    "network.local",
    "network.egress",
    "network.record",
    "network.names",
)
PUBLISH, LISTEN, SOCKETS, CONTROLS = (
    "network.publish",
    "network.listen",
    "network.sockets",
    "network.runtimes",
)

_OWN_KINDS = frozenset((addresses.LOOPBACK, addresses.THIS_NETWORK))


class SocketKind(NamedTuple):
    """Family, type and protocol of a socket."""

    family: int
    type: int
    protocol: int

    @property
    def stream(self) -> bool:
        return self.type == socket.SOCK_STREAM


class HostNetworkPolicy(NamedTuple):
    """Rules of one environment. Addresses are packed, 4 or 16 bytes."""

    # addresses that are neither the host's own nor link-local: done and recorded, else refused
    internet: bool = False
    # declared services and hosts: (address, port) -> where it leads
    forwards: Mapping[tuple[bytes, int], str] = {}
    # the address that stands for a declared host -> its name
    hosts: Mapping[bytes, str] = {}
    # the host's name servers, which may lie on its loopback
    resolvers: frozenset[bytes] = frozenset()
    # on loopback, on any port that nobody needs a privilege for
    listen: bool = True
    # declared ones
    ports: frozenset[int] = frozenset()
    # whatever a socket is bound to, it is reached over the loopback device only
    confined: bool = False
    # below it nobody without privileges may
    first_port: int = 1024


class Decision(NamedTuple):
    """Whether a call is refused with `errno`, or performed where that is 0.

    With a rule it is recorded: as blocked where it is refused, else as observed.
    """

    errno: int = 0
    rule: str = ""
    # the declared forward to which a connection is led instead
    forward: str = ""
    tags: tuple[str, ...] = ()


def judge_outgoing(
    policy: HostNetworkPolicy,
    kind: SocketKind,
    address: bytes,
    port: int,
    *,
    own: bool,
    vacant: bool = False,
) -> Decision:
    """Whether a stream may be connected, or a datagram sent, to an internet address.

    `own`: a socket of this environment receives there. `vacant`: no socket does.
    """
    # as where nobody listens, and as where no route leads
    refused = errno.ECONNREFUSED if kind.stream else errno.ENETUNREACH
    forward = policy.forwards.get((address, port), "") if kind.stream else ""
    if forward:
        return Decision(forward=forward)
    if address in policy.hosts:
        return Decision(refused, EGRESS)
    if own:
        return Decision()
    question = port == constants.NAMESERVER_PORT
    if question and address in policy.resolvers:
        if policy.internet:
            return Decision(0, RECORD, tags=("resolver",))
        return Decision(refused, NAMES_RULE, tags=("resolver",))
    if vacant and policy.confined and not question and addresses.kinds(address) <= _OWN_KINDS:
        # as on a loopback of its own: clients that wait for their server try often
        return Decision(refused)
    if addresses.local(address):
        return Decision(refused, LOCAL if policy.internet else EGRESS)
    if policy.internet:
        return Decision(0, RECORD)
    if question:
        return Decision(refused, NAMES_RULE, tags=("resolver",))
    return Decision(refused, EGRESS)


def judge_bind(policy: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    """Whether a socket may be bound.

    Port 0 is allowed anywhere: such a socket is a client's until it listens.
    """
    # bind(2) fails with EACCES below net.ipv4.ip_unprivileged_port_start
    if 0 < port < policy.first_port:
        return Decision(errno.EACCES)
    return _judge_listener(policy, address, port) if port else Decision()


def judge_listen(policy: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    """Whether a bound socket may listen: never where another machine could connect."""
    return _judge_listener(policy, address, port)


def _judge_listener(policy: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    if not policy.confined and (not port or not addresses.loopback(address)):
        return Decision(errno.EACCES, PUBLISH)
    return Decision() if policy.listen or port in policy.ports else Decision(errno.EACCES, LISTEN)


def judge_unix(
    policy: HostNetworkPolicy, *, own: bool, control: bool, exists: bool, abstract: bool
) -> Decision:
    """Whether a unix socket may be connected.

    `own`: it is this environment's, or a declared service's. `control`: it starts programs outside.
    """
    if own:
        return Decision()
    if abstract:
        return Decision(errno.ECONNREFUSED, LOCAL if policy.internet else SOCKETS)
    # as connect(2) does for a path; an abstract name nobody has is ECONNREFUSED (unix(7))
    refused = errno.EACCES if exists else errno.ENOENT
    if control or not policy.internet:
        # nothing is there to be reached
        tags = () if exists else ("probe",)
        return Decision(refused, CONTROLS if policy.internet else SOCKETS, tags=tags)
    return Decision(0, RECORD) if exists else Decision(errno.ENOENT)
