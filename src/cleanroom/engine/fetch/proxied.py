"""Hosts that a proxy is asked for. Pure.

Elsewhere the address that a name leads to decides. A proxy resolves names by itself, and stands
where it may reach more than the internet, so what is written as an address of its network or of
the proxy itself is not asked of it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from cleanroom.sandbox.network import addresses


def hosts_inside(hosts: Iterable[str], named: frozenset[str]) -> list[str]:
    """Those of these HOST:PORT that are no hosts of the internet, and that nobody named."""
    return [one for one in hosts if one not in named and _is_inside(one.rpartition(":")[0])]


def _is_inside(host: str) -> bool:
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    packed = _packed(plain)
    return packed is not None and not addresses.kinds(packed) <= {addresses.EXAMPLE}


def _packed(host: str) -> bytes | None:
    """The address that a host is, in any way to write one: `127.1` and `0x7f000001` too."""
    try:
        return socket.inet_aton(host)
    except OSError:
        pass
    try:
        return socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return None
