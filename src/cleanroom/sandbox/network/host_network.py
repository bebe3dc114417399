"""Where an environment on a network that it shares with the host may go,
and where it may be reached.

Values and one decision each; no I/O.

On a shared network no namespace refuses by itself: what is decided here is carried out by
`emulate`, with the very address that was judged.
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


class Kind(NamedTuple):
    """What a socket is, by its own word."""

    family: int
    type: int
    protocol: int

    @property
    def stream(self) -> bool:
        return self.type == socket.SOCK_STREAM


class HostNetworkPolicy(NamedTuple):
    """What one environment may do. Addresses are packed, 4 or 16 bytes."""

    # addresses that are neither the host's own nor link-local: done and recorded, else refused
    internet: bool = False
    # declared services and hosts: (address, port) -> where it leads
    doors: Mapping[tuple[bytes, int], str] = {}
    hosts: Mapping[bytes, str] = {}  # the address that stands for a declared host -> its name
    # the host's name servers, which may lie on its loopback
    resolvers: frozenset[bytes] = frozenset()
    listen: bool = True  # on loopback, on any port that nobody needs a privilege for
    ports: frozenset[int] = frozenset()  # declared ones
    # whatever a socket is bound to, it is reached over the loopback device only
    confined: bool = False
    first_port: int = 1024  # below it nobody without privileges may


class Decision(NamedTuple):
    """What to do: refuse with `errno`, or (0) do it.

    Recorded where there is a rule: as blocked where refused, else as observed.
    """

    errno: int = 0
    rule: str = ""
    lead: str = ""  # where a declared door leads: whoever connects is led there instead
    tags: tuple[str, ...] = ()


def outgoing(
    reach: HostNetworkPolicy,
    kind: Kind,
    address: bytes,
    port: int,
    *,
    own: bool,
    vacant: bool = False,
) -> Decision:
    """Whether a stream may be connected, or a datagram sent, to an internet address; `own`:
    a socket of this environment waits there; `vacant`: nobody's.
    """
    refused = errno.ECONNREFUSED if kind.stream else errno.ENETUNREACH
    lead = reach.doors.get((address, port), "") if kind.stream else ""
    if lead:
        return Decision(lead=lead)
    if address in reach.hosts:
        return Decision(refused, EGRESS)
    if own:
        return Decision()
    question = port == constants.NAMESERVER_PORT
    if question and address in reach.resolvers:
        return (
            Decision(0, RECORD, tags=("resolver",))
            if reach.internet
            else Decision(refused, NAMES_RULE, tags=("resolver",))
        )
    if vacant and reach.confined and not question and addresses.kinds(address) <= _OWN_KINDS:
        # as on a loopback of its own: whoever waits for a server to come asks often
        return Decision(refused)
    if addresses.local(address):
        return Decision(refused, LOCAL if reach.internet else EGRESS)
    if reach.internet:
        return Decision(0, RECORD)
    return Decision(refused, *((NAMES_RULE, "", ("resolver",)) if question else (EGRESS,)))


def bound(reach: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    """Whether a socket may be bound.

    One without a port may be bound anywhere: it is a client's, until it listens.
    """
    if 0 < port < reach.first_port:
        return Decision(errno.EACCES)
    return _waits(reach, address, port) if port else Decision()


def listened(reach: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    """Whether a bound socket may listen: never where others than this machine's own programs could
    come.
    """
    return _waits(reach, address, port)


def _waits(reach: HostNetworkPolicy, address: bytes, port: int) -> Decision:
    if not reach.confined and (not port or not addresses.loopback(address)):
        return Decision(errno.EACCES, PUBLISH)
    return Decision() if reach.listen or port in reach.ports else Decision(errno.EACCES, LISTEN)


def unix(
    reach: HostNetworkPolicy, *, own: bool, control: bool, exists: bool, abstract: bool
) -> Decision:
    """Whether a unix socket may be reached; `own`: it is this environment's,
    or a declared service's.

    `control`: programs are started by it.
    """
    if own:
        return Decision()
    if abstract:
        return Decision(errno.ECONNREFUSED, LOCAL if reach.internet else SOCKETS)
    refused = errno.EACCES if exists else errno.ENOENT
    if control or not reach.internet:
        return Decision(refused, CONTROLS if reach.internet else SOCKETS)
    return Decision(0, RECORD) if exists else Decision(errno.ENOENT)
