"""Targets of forwards and how to reach them: a service's sockets and ports, a declared host."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cleanroom.sandbox.network import addresses, peers, routes
from cleanroom.sandbox.network.egress_patterns import covers

# A server that does not answer by then is not there.
DIAL_SECONDS = 5.0
# Targets outside of every environment, which the keeper's own relay serves.
OUTWARD = ("out:", "host:")
# Kinds of addresses beside hosts of the internet that a declaration opens.
_REACH = {
    "public": frozenset[str](),
    "documentation": frozenset((addresses.EXAMPLE,)),
    "private": frozenset((addresses.EXAMPLE, addresses.PRIVATE, addresses.SHARED)),
}

# Connects to a target. Raises OSError where nobody listens.
Dial = Callable[[str], socket.socket]


class NotOpened(OSError):
    """A declared name led to an address that no declaration opens."""

    def __init__(self, ip: str) -> None:
        super().__init__(errno.ENETUNREACH, "no address that may be reached", ip)
        self.ip = ip


class Outside(NamedTuple):
    """A declared host, as the target of a forward: "out:HOST:PORT:REACH"."""

    host: str
    port: int
    # which addresses the name may lead to, a key of `_REACH`
    reach: str

    @classmethod
    def parsed(cls, to: str) -> Outside:
        """A host may be an IPv6 address, with colons in it."""
        host, port, reach = to.removeprefix("out:").rsplit(":", 2)
        return cls(host, int(port), reach)

    def named(self, name: str) -> Outside:
        """A host that this one, a pattern, covers.

        Raises:
            OSError: it does not.
        """
        if not covers(self.host, name):
            raise OSError(errno.ECONNREFUSED, "no name of the declared domain", name)
        return self._replace(host=name)

    def __str__(self) -> str:
        return f"out:{self.host}:{self.port}:{self.reach}"


class Service:
    """The one environment that a relay connects to."""

    def __init__(
        self,
        folders: Mapping[str, int],
        belongs: peers.Belongs = peers.in_our_namespace,
        owns_port: Callable[[int], bool] = lambda port: True,
    ) -> None:
        """`folders`: the folders of its sockets by their paths inside, each as a descriptor.

        `belongs` and `owns_port` decide whether a socket or a port is the service's. In a network
        namespace of its own every port is.
        """
        self._folders = folders
        self._belongs = belongs
        self._owns_port = owns_port

    def dial(self, to: str) -> socket.socket:
        """Connect to "unix:/path" or "tcp:PORT" as the environment sees it.

        Raises:
            OSError: nobody listens there, or somebody else.
        """
        kind, _, rest = to.partition(":")
        if kind == "unix":
            return peers.connect(*self._beneath(rest), self._belongs)
        return self._dial_port(int(rest))

    def _dial_port(self, port: int) -> socket.socket:
        # An address, since resolving a name would import modules: the environment's user may not
        # be able to read the folder of this Python.
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            end.settimeout(DIAL_SECONDS)
            end.connect(("127.0.0.1", port))
            if not self._owns_port(port):
                raise OSError(errno.ECONNREFUSED, "another program's port", str(port))
        except BaseException:
            end.close()
            raise
        return end

    def _beneath(self, path: str) -> tuple[int, str]:
        for target, folder in self._folders.items():
            if path.startswith(f"{target}/"):
                return folder, path[len(target) + 1 :]
        raise FileNotFoundError(errno.ENOENT, "not in a folder of the service's sockets", path)


def dial_out(to: str) -> socket.socket:
    """Connect to "out:HOST:PORT:REACH" on the host's network, or to "host:/path", a socket of the
    engine.

    Of a host the resolved address decides and not the name: what its declaration opens is connected
    to, and never an address of this machine, a link-local or a metadata server's one.

    Raises:
        NotOpened: its addresses are such that no declaration opens.
        OSError: it could not be resolved or reached.
    """
    if to.startswith("host:"):
        return peers.connect_at(to.removeprefix("host:"), peers.of_our_user)
    outside = Outside.parsed(to)
    found = socket.getaddrinfo(outside.host, outside.port, type=socket.SOCK_STREAM)
    return _first_public(outside.host, found, _REACH[outside.reach])


def _first_public(
    host: str, found: Sequence[tuple[Any, Any, Any, Any, Any]], allowed: frozenset[str]
) -> socket.socket:
    failure: OSError = NotOpened(next((str(address[0]) for *_, address in found), host))
    for family, kind, _, _, address in found:
        if not _is_elsewhere(socket.inet_pton(family, str(address[0]).partition("%")[0]), allowed):
            continue
        end = socket.socket(family, kind)
        try:
            end.settimeout(DIAL_SECONDS)
            end.connect(address)
        except OSError as error:
            end.close()
            failure = error
            continue
        return end
    raise failure


def _is_elsewhere(address: bytes, allowed: frozenset[str]) -> bool:
    """Whether an address is of an allowed kind, and none of this machine's own."""
    return addresses.kinds(address) <= allowed and all(
        map(routes.leads_out, addresses.judged(address))
    )
