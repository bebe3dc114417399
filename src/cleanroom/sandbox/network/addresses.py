"""Internet addresses that are not simply a host somewhere else: one list of our own.

Python's `ipaddress.is_global` follows the registries of the day that a Python was released, so two
Pythons disagree. Here every entry is written out, after IANA's special-purpose registries, and what
clouds answer their metadata at. An address that carries an IPv4 address (mapped, compatible, 6to4,
Teredo, NAT64, ISATAP, translated) is judged as that one too. Values and pure functions; addresses
are packed, 4 or 16 bytes.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from cleanroom.sandbox.kernel import constants

THIS_NETWORK, LOOPBACK, LINK_LOCAL, METADATA = "this network", "loopback", "link-local", "metadata"
PRIVATE, SHARED, MULTICAST, RESERVED = "private", "shared", "multicast", "reserved"
EXAMPLE, BENCHMARK, PROTOCOL, DISCARD = "documentation", "benchmarking", "protocol", "discard"
TRANSLATION = "local translation"

# What Low keeps from its phases: the machine's own, and what a machine is told by its link.
LOCAL = frozenset((THIS_NETWORK, LOOPBACK, LINK_LOCAL, METADATA))

# The first entry that covers an address counts.
SPECIAL: tuple[tuple[str, str], ...] = (
    ("169.254.169.254/32", METADATA),  # AWS, Azure, Google, Oracle, DigitalOcean, OpenStack, ...
    ("169.254.170.2/32", METADATA),  # AWS, credentials of a container
    ("169.254.170.23/32", METADATA),  # AWS, credentials of a pod
    ("169.254.42.42/32", METADATA),  # Scaleway
    ("100.100.100.200/32", METADATA),  # Alibaba
    ("168.63.129.16/32", METADATA),  # Azure's wire server, an address like any other
    ("192.0.0.192/32", METADATA),  # Oracle, earlier
    ("fd00:ec2::254/128", METADATA),  # AWS
    ("fd00:ec2::23/128", METADATA),  # AWS, credentials of a pod
    ("fd20:ce::254/128", METADATA),  # Google
    ("fd00:42::42/128", METADATA),  # Scaleway
    ("fd00:c1::a9fe:a9fe/128", METADATA),  # Oracle
    ("0.0.0.0/8", THIS_NETWORK),
    ("10.0.0.0/8", PRIVATE),
    ("100.64.0.0/10", SHARED),
    ("127.0.0.0/8", LOOPBACK),
    ("169.254.0.0/16", LINK_LOCAL),
    ("172.16.0.0/12", PRIVATE),
    ("192.0.0.0/24", PROTOCOL),
    ("192.0.2.0/24", EXAMPLE),
    ("192.88.99.0/24", PROTOCOL),  # relays of 6to4, given up
    ("192.168.0.0/16", PRIVATE),
    ("198.18.0.0/15", BENCHMARK),
    ("198.51.100.0/24", EXAMPLE),
    ("203.0.113.0/24", EXAMPLE),
    ("224.0.0.0/4", MULTICAST),
    ("240.0.0.0/4", RESERVED),  # with the broadcast address
    ("::/128", THIS_NETWORK),
    ("::1/128", LOOPBACK),
    ("64:ff9b:1::/48", TRANSLATION),
    ("100::/64", DISCARD),
    ("100:0:0:1::/64", DISCARD),
    ("2001::/23", PROTOCOL),  # Teredo, ORCHID, benchmarking and others
    ("2001:db8::/32", EXAMPLE),
    ("3fff::/20", EXAMPLE),
    ("5f00::/16", PROTOCOL),  # segment routing
    ("fc00::/7", PRIVATE),  # unique local
    ("fe80::/10", LINK_LOCAL),
    ("fec0::/10", PRIVATE),  # site-local
    ("ff00::/8", MULTICAST),
)
_UNICAST = "2000::/3"  # all that is given out to hosts of the internet


class _Carrier(NamedTuple):
    """Addresses that carry IPv4 ones: the prefix, and which bytes of them make each one."""

    network: str
    places: tuple[tuple[int, int, int, int], ...]


_LAST = (12, 13, 14, 15)
CARRIERS = (
    _Carrier("::ffff:0:0/96", (_LAST,)),  # mapped
    _Carrier("::/96", (_LAST,)),  # compatible
    _Carrier("::ffff:0:0:0/96", (_LAST,)),  # translated
    _Carrier("64:ff9b::/96", (_LAST,)),  # NAT64
    # NAT64 of a network's own: it chooses the length, and with it the place
    _Carrier("64:ff9b:1::/48", ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), _LAST)),
    _Carrier("2002::/16", ((2, 3, 4, 5),)),  # 6to4
)
_TEREDO = "2001::/32"  # the server's address, and the client's with every bit turned
_ISATAP = (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe")


def packed(address: str) -> bytes:
    """The 4 or 16 bytes of a written address (inet_pton(3))."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def special(address: bytes) -> str:
    """What keeps an address, or one that it carries, from being a host of the internet; else "".

    Whether it is one of this machine's own the list cannot know: see `routes`.
    """
    return next((kind for one in judged(address) if (kind := _kind(one))), "")


def kinds(address: bytes) -> frozenset[str]:
    """What the address is and what those are that it carries, but for hosts of the internet."""
    return frozenset(filter(None, map(_kind, judged(address))))


def local(address: bytes) -> bool:
    """Whether it, or one that it carries, is this machine's own or comes by its link."""
    return not LOCAL.isdisjoint(kinds(address))


def loopback(address: bytes) -> bool:
    """Whether whoever listens there is reached by this machine alone."""
    mapped = address[12:] if address[:12] == constants.V4MAPPED_PREFIX else address
    return _kind(mapped) == LOOPBACK


def judged(address: bytes) -> list[bytes]:
    """The address and all IPv4 addresses that it may carry.

    The loopback and the unspecified address are what they are, and carry nothing.
    """
    if len(address) == 4 or (address[:15] == bytes(15) and address[15] < 2):
        return [address]
    return [address, *_carried(address)]


def _carried(address: bytes) -> list[bytes]:
    carriers = (carrier for carrier in CARRIERS if _within(address, carrier.network))
    places = (place for carrier in carriers for place in carrier.places)
    found = [bytes(address[at] for at in place) for place in places]
    if _within(address, _TEREDO):
        found += [address[4:8], bytes(byte ^ 0xFF for byte in address[12:])]
    if address[8:12] in _ISATAP:
        found.append(address[12:])
    return found


def _kind(address: bytes) -> str:
    for network, kind in SPECIAL:
        if _within(address, network):
            return kind
    if len(address) == 4 or _within(address, _UNICAST):
        return ""
    carries = any(_within(address, carrier.network) for carrier in CARRIERS)
    return "" if carries else RESERVED


def _within(address: bytes, network: str) -> bool:
    first, mask, length = _NETWORKS[network]
    return len(address) == length and int.from_bytes(address) & mask == first


def _parsed(network: str) -> tuple[int, int, int]:
    # Every keeper does this as it starts: inet_pton(3) is faster than `ipaddress` by far.
    prefix, _, bits = network.partition("/")
    first = packed(prefix)
    width = 8 * len(first)
    mask = (1 << width) - (1 << (width - int(bits)))
    return int.from_bytes(first), mask, len(first)


_WRITTEN = (*(network for network, _ in SPECIAL), *(carrier.network for carrier in CARRIERS))
_NETWORKS = {network: _parsed(network) for network in (*_WRITTEN, _UNICAST, _TEREDO)}
