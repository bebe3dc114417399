"""Sockets through which an environment reaches its declared services, hosts and names."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.network.addresses import packed
from cleanroom.sandbox.network.egress_patterns import Pattern
from cleanroom.sandbox.network.host_network import HostNetworkPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanroom.sandbox.protocol import Forward, HostNetwork

# Addresses at which programs ask for names: of our resolv.conf, of systemd-resolved, of Docker.
RESOLVERS = ("127.0.0.1", "127.0.0.53", "127.0.0.11")
_BACKLOG = 512
_RESOLVER_BACKLOG = 64


def addresses(forwards: Sequence[Forward]) -> dict[str, str]:
    """The IPv4 address inside of each declared name; patterns have none."""
    return {
        forward["service"]: forward["address"]
        for forward in forwards
        if forward["address"] and ":" not in forward["address"]
    }


def egress(forwards: Sequence[Forward]) -> list[Forward]:
    """The forwards to declared hosts, as opposed to services and patterns of hosts."""
    return [
        forward
        for forward in forwards
        if forward["to"].startswith("out:") and not is_pattern(forward)
    ]


def is_pattern(forward: Forward) -> bool:
    """Whether it leads to all names below a domain, which get their addresses later."""
    return not forward["address"]


def patterns(forwards: Sequence[Forward]) -> list[Pattern]:
    """The declared domains."""
    return [
        Pattern(forward["service"], forward["port"], forward["to"])
        for forward in forwards
        if is_pattern(forward)
    ]


def open_ends(
    forwards: Sequence[Forward],
) -> tuple[dict[str, socket.socket], list[socket.socket]]:
    """One end for each forward's relay, in the forwards' order: listening sockets on the
    environment's own loopback, and channels for patterns.

    Our ends of the channels come first, by the forwards' targets.
    """
    ours, ends = open_channels([forward for forward in forwards if is_pattern(forward)])
    channels = iter(ends)
    listening = iter(listen([forward for forward in forwards if not is_pattern(forward)]))
    return ours, [
        next(channels) if is_pattern(forward) else next(listening) for forward in forwards
    ]


def listen(forwards: Sequence[Forward]) -> list[socket.socket]:
    """Listening sockets on the environment's own loopback, one per forward.

    Where the kernel has no IPv6, one of its forwards is a socket whose other end is closed.
    """
    opened = []
    for forward in forwards:
        try:
            opened.append(_listen(forward["address"], forward["port"]))
        except OSError:
            if ":" not in forward["address"]:
                raise
            ended, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            other.close()
            opened.append(ended)
    return opened


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # ip(7): all of 127.0.0.0/8 is local without being configured, once "lo" is up.
        listening.bind((address, port))
        # listen(2): at most net.core.somaxconn, which is 4096 since 5.4.
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def open_channels(
    forwards: Sequence[Forward],
) -> tuple[dict[str, socket.socket], list[socket.socket]]:
    """Channels over which connected sockets are forwarded to the relays of services.

    Our ends by the forwards' targets, and the relays' ends in the forwards' order.
    """
    ours, theirs = {}, []
    for forward in forwards:
        ours[forward["to"]], relay_end = channel.pair()
        theirs.append(relay_end)
    return ours, theirs


def resolver_sockets(address: str) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets on the port for names of one of the environment's own addresses."""
    # RFC 1035: names are asked over UDP, and over TCP where an answer was truncated.
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for end in (udp, tcp):
        # A port below 1024: needs CAP_NET_BIND_SERVICE in the owning user namespace.
        end.bind((address, constants.NAMESERVER_PORT))
        end.setblocking(False)
    tcp.listen(_RESOLVER_BACKLOG)
    return udp, tcp


def host_network_policy(spec: HostNetwork, forwards: Sequence[Forward]) -> HostNetworkPolicy:
    """The policy of an environment on the host's network."""
    targets = {(packed(forward["address"]), forward["port"]): forward["to"] for forward in forwards}
    hosts = {
        socket.inet_aton(forward["address"]): forward["service"] for forward in egress(forwards)
    }
    resolvers = frozenset(packed(address) for address in spec["resolvers"])
    return HostNetworkPolicy(
        internet=True,
        forwards=targets,
        hosts=hosts,
        resolvers=resolvers,
        first_port=spec["first_port"],
    )
