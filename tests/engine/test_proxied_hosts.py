"""What is asked of a proxy, which stands in a network of its own."""

from __future__ import annotations

import pytest

from cleanroom.engine.fetch.proxied import hosts_inside


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."),
        *("10.0.0.7", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.100.100.200"),
        *("::1", "::ffff:10.0.0.7", "fe80::1", "fd00:ec2::254", "64:ff9b::a00:7"),
        *("localhost", "LOCALHOST.", "registry.localhost"),
    ],
)
def test_an_address_of_its_network_is_not_asked_for(host: str):
    """However it is written; a lock file comes with the project."""
    assert hosts_inside([f"{host}:443"], frozenset()) == [f"{host}:443"]


def test_hosts_of_the_internet_and_named_ones_are_asked_for():
    """What a name leads to only the proxy knows."""
    hosts = ["registry.example:443", "8.8.8.8:443", "2606:4700::1:443", "10.0.0.7:8443"]
    assert hosts_inside(hosts, frozenset(["10.0.0.7:8443"])) == []
