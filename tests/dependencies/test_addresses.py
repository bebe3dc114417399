"""Addresses of files: those in which every reader sees the same host."""

from __future__ import annotations

import pytest
import urllib3.util
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.settings import host_of


@pytest.mark.parametrize(
    "address",
    [
        "https://registry.example/a/-/a-1.0.0.tgz",
        "http://registry.example:8080",
        "https://registry.example/a%2fb?x=@y#sha256=0",
        "https://[2001:db8::1]:8443/a",
        "https://under_score.example/",
    ],
)
def test_a_plain_address_is_one(address: str):
    """With a port, a question and a fragment too."""
    assert is_web_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example\\@good.example/a",
        "https://good.example@evil.example/a",
        "https://*.example/a",
        "https://good.example%2f@evil.example/",
        "https://a.example:99999/",
        "https://a.example:0/",
        "https://[/",
        "https://[::::]/",
        "https:///a",
        "file:///etc/passwd",
        "https://a.example/\x1b[31m",
        "https://a.example/\n",
        "https://a.example/ b",
        "https://a.example/" + "a" * 10_000,
        5,
    ],
)
def test_another_is_none(address: object):
    """Logins, backslashes, stars, control characters, ports that are none."""
    assert not is_web_address(address)


@given(st.text(alphabet="abc.:/\\@%[]?#*-1 \t", max_size=30))
def test_both_readers_see_the_same_host(rest: str):
    """Credentials are chosen by one, and the connection is made by the other."""
    address = f"https://{rest}"
    if is_web_address(address):
        parts = urllib3.util.parse_url(address)
        assert host_of(address) == f"{(parts.host or '').strip('[]')}:{parts.port or 443}"
