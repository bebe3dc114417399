"""Where an environment on a shared network may go: each level contains the one before it."""

from __future__ import annotations

import errno
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox.network import host_network

STREAM, DATAGRAM = (
    host_network.SocketKind(socket.AF_INET, socket.SOCK_STREAM, 6),
    host_network.SocketKind(socket.AF_INET, socket.SOCK_DGRAM, 17),
)
RESOLVER = socket.inet_aton("127.0.0.53")
LOW = host_network.HostNetworkPolicy(internet=True, resolvers=frozenset((RESOLVER,)))
# Low, Medium, High
LEVELS = (
    LOW,
    host_network.HostNetworkPolicy(),
    host_network.HostNetworkPolicy(listen=False, ports=frozenset((8080,))),
)
addresses = st.one_of(
    st.ip_addresses(),
    st.sampled_from(
        [
            ipaddress.ip_address(text)
            for text in (
                "127.0.0.1",
                "0.0.0.0",
                "169.254.169.254",
                "::1",
                "::",
                "fe80::1",
                "::ffff:127.0.0.1",
                "64:ff9b::a9fe:a9fe",
                "127.0.0.53",
                "192.0.2.1",
            )
        ]
    ),
).map(lambda found: found.packed)
ports = st.one_of(st.integers(0, 65535), st.sampled_from([53, 80, 8080]))


@given(st.sampled_from([STREAM, DATAGRAM]), addresses, ports, st.booleans())
def test_what_a_level_refuses_every_higher_level_refuses(
    kind: host_network.SocketKind, address: bytes, port: int, own: bool
):
    """For every address, port and kind of socket, going out and waiting alike."""
    for decide in (
        lambda where: host_network.judge_outgoing(where, kind, address, port, own=own),
        lambda where: host_network.judge_bind(where, address, port),
        lambda where: host_network.judge_listen(where, address, port),
    ):
        refused = [bool(decide(where).errno) for where in LEVELS]
        assert refused == sorted(refused)


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_the_same_holds_for_unix_sockets(own: bool, control: bool, exists: bool, abstract: bool):
    """Whoever they belong to, and whether they are there or not."""
    refused = [
        bool(
            host_network.judge_unix(
                where, own=own, control=control, exists=exists, abstract=abstract
            ).errno
        )
        for where in LEVELS
    ]
    assert refused == sorted(refused)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "169.254.169.254",
        "::1",
        "::",
        "fe80::1",
        "febf::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.1.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "64:ff9b:1::a9fe:a9fe",
        "2001:0:7f00:1::",
        "::ffff:0:127.0.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:168.63.129.16",
    ],
)
def test_loopback_link_local_and_metadata_are_refused_in_every_dress(text: str):
    """NET-15 and NET-16 at Low, also where IPv6 carries the IPv4 address;
    the record names the rule.
    """
    found = host_network.judge_outgoing(
        LOW, STREAM, ipaddress.ip_address(text).packed, 80, own=False
    )
    assert (found.errno, found.rule) == (errno.ECONNREFUSED, "network.local")


@pytest.mark.parametrize(
    "text", ["192.0.2.1", "10.1.2.3", "2001:db8::1", "::ffff:192.0.2.1", "224.0.0.251"]
)
def test_what_is_outside_is_done_and_recorded_at_low(text: str):
    """NET-01, NET-02, NET-17, NET-34: the outcome is observed, not blocked."""
    assert host_network.judge_outgoing(
        LOW, STREAM, ipaddress.ip_address(text).packed, 80, own=False
    ) == host_network.Decision(0, "network.record")


def test_only_the_question_of_a_host_s_resolver_may_pass():
    """A resolver on the host's loopback is asked on its port and nowhere else."""
    assert not host_network.judge_outgoing(LOW, DATAGRAM, RESOLVER, 53, own=False).errno
    assert host_network.judge_outgoing(LOW, DATAGRAM, RESOLVER, 54, own=False).errno
    assert host_network.judge_outgoing(
        LOW, DATAGRAM, socket.inet_aton("127.0.0.54"), 53, own=False
    ).errno


@pytest.mark.parametrize("where", LEVELS)
def test_a_declared_door_leads_at_every_level(where: host_network.HostNetworkPolicy):
    """By address and port, for streams."""
    forwards = where._replace(forwards={(socket.inet_aton("127.0.0.1"), 5432): "db"})
    assert host_network.judge_outgoing(
        forwards, STREAM, socket.inet_aton("127.0.0.1"), 5432, own=False
    ) == host_network.Decision(forward="db")
    assert host_network.judge_outgoing(
        forwards, DATAGRAM, socket.inet_aton("127.0.0.1"), 5432, own=False
    ).errno
