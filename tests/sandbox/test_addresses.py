"""Which addresses are no host of the internet, in every dress, and which are this machine's own."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.network import addresses, dial, dns, routes

PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::8a")
OWN_NAT64 = b"\0\x64\xff\x9b\0\1"
CLOUDS = [net for net, of in addresses.SPECIAL if of == addresses.METADATA]
METADATA = {ipaddress.ip_network(net).network_address for net in CLOUDS}
FOUR = [net for net, _ in addresses.SPECIAL if "." in net]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# How an IPv4 address of four bytes is written in sixteen.
DRESSES = {
    "mapped": lambda four: bytes(10) + b"\xff\xff" + four,
    "compatible": lambda four: bytes(12) + four,
    "translated": lambda four: bytes(8) + b"\xff\xff\0\0" + four,
    "NAT64": lambda four: b"\0\x64\xff\x9b" + bytes(8) + four,
    "NAT64 of a network, /48": lambda four: OWN_NAT64 + four[:2] + b"\0" + four[2:] + bytes(5),
    "NAT64 of a network, /96": lambda four: OWN_NAT64 + bytes(6) + four,
    "6to4": lambda four: b"\x20\2" + four + bytes(10),
    "Teredo, server": lambda four: b"\x20\1\0\0" + four + bytes(8),
    "Teredo, client": lambda four: b"\x20\1\0\0" + bytes(8) + bytes(byte ^ 255 for byte in four),
    "ISATAP": lambda four: b"\x20\1\x48\x60" + bytes(4) + b"\0\0\x5e\xfe" + four,
}
CARRIED = st.sampled_from(sorted(DRESSES))


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(("network", "kind"), addresses.SPECIAL)
def test_every_entry_covers_its_first_and_last_address(network: str, kind: str):
    """None is hidden behind a wider entry of another kind that stands before it."""
    found = ipaddress.ip_network(network)
    last = found.broadcast_address.packed
    for address in (found.network_address, ipaddress.ip_address(last)):
        assert addresses.special(address.packed) == ("metadata" if address in METADATA else kind)


@pytest.mark.parametrize("text", PUBLIC)
def test_hosts_of_the_internet_are_not_special(text: str):
    """What a project may declare can be reached."""
    assert addresses.special(packed(text)) == ""


@given(st.sampled_from(FOUR), st.integers(0), CARRIED)
def test_no_dress_hides_a_special_ipv4_address(network: str, number: int, dress: str):
    """What is refused as itself is refused wherever IPv6 carries it; what is local stays local."""
    found = ipaddress.ip_network(network)
    four = found[number % found.num_addresses].packed
    sixteen = DRESSES[dress](four)
    if sixteen in (bytes(16), bytes(15) + b"\1"):
        return  # the unspecified and the loopback address
    assert addresses.special(sixteen)
    assert addresses.kinds(four) <= addresses.kinds(sixteen)
    assert addresses.local(sixteen) or not addresses.local(four)


@given(st.ip_addresses(v=4).map(lambda found: found.packed))
def test_a_public_address_stays_public_where_hosts_are_reached_so(four: bytes):
    """Mapped, by NAT64 and by 6to4: the dress itself is nothing special."""
    for dress in ("mapped", "NAT64", "6to4"):
        assert bool(addresses.special(DRESSES[dress](four))) == bool(addresses.special(four))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_special(found: Address):
    """The list is no laxer than the library's, but where a carried address decides."""
    carried = len(addresses.judged(found.packed)) > 1
    assert found.is_global or carried or addresses.special(found.packed)


@given(st.ip_addresses(v=6).map(lambda found: found.packed))
def test_only_unicast_addresses_of_the_internet_are_not_special(sixteen: bytes):
    """Whatever has not been given out to hosts is refused, registered or not."""
    inside = sixteen[0] >> 5 == 1
    assert inside or len(addresses.judged(sixteen)) > 1 or addresses.special(sixteen)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "255.255.255.255"])
def test_what_the_kernel_does_not_send_out_is_not_elsewhere(text: str):
    """Loopback, broadcast and multicast, by the kernel's own word."""
    assert not routes.leads_out(packed(text))


def public_here(address: str) -> int:
    """In a network namespace of its own: is a public address that is ours connected to? 1: yes."""
    user = 0 if os.geteuid() == 0 else constants.CLONE_NEWUSER
    syscalls.unshare(constants.CLONE_NEWNET | user)
    dns.raise_link("lo")
    body = struct.pack("=BBBBI", 2, 32, 0, 0, 1) + struct.pack("=HH4s", 8, 2, packed(address))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.send(struct.pack("=IHHII", 16 + len(body), 20, 5, 1, 0) + body)
        if struct.unpack_from("=i", link.recv(4096), 16)[0]:
            return 2
    with socket.create_server((address, 0)) as listening:
        port = listening.getsockname()[1]
        try:
            dial.dial_out(f"out:{address}:{port}:private").close()
        except dial.NotOpened:
            return 0
    return 1


@pytest.mark.sandbox
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_declared_name_never_leads_to_an_address_of_this_machine():
    """Not even where the address is a public one: the kernel says that it stays here."""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = public_here("93.184.216.34")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
