"""Names below declared domains (`*.example.org`): which are covered, and their addresses inside.

No hosts file can hold them, so each gets its address when its name is asked for.
Nothing listens there: a connection to it is made by the recorder, which hands it to the relay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Above those of literal names, which begin at 127.77.0.1.
_FIRST_BLOCK = 128
# Names that get an address in one environment.
ALLOTTED_MOST = 4096
# What the host's resolver is asked for: nothing that it could take for an option or an address.
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAME_MOST = 253


def covers(pattern: str, name: str) -> bool:
    """Whether a name in lower case lies below the domain of a pattern such as `*.example.org`."""
    domain = pattern.lower()
    return (
        domain.startswith("*.")
        and name.endswith(domain[1:])
        and len(name) <= _NAME_MOST
        and _NAME.fullmatch(name) is not None
    )


class Pattern(NamedTuple):
    """A declared domain at one port."""

    host: str
    port: int
    # the target of its forward
    to: str


class EgressPatterns:
    """The declared domains of one environment, and the names that were asked for."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        # the most particular domain first: its declaration counts
        self._patterns = sorted(patterns, key=lambda pattern: -len(pattern.host))
        self._addresses: dict[str, str] = {}

    def targets(self, name: str) -> Mapping[int, str]:
        """Port -> target of the forward, of the patterns that cover a name."""
        found: dict[int, str] = {}
        for pattern in self._patterns:
            if covers(pattern.host, name):
                found.setdefault(pattern.port, pattern.to)
        return found

    def allot(self, name: str) -> str:
        """The address that stands for a covered name from now on; empty for one too many."""
        if name not in self._addresses:
            serial = len(self._addresses)
            if serial >= ALLOTTED_MOST:
                return ""
            block, last = divmod(serial, 254)
            self._addresses[name] = f"127.77.{_FIRST_BLOCK + block}.{last + 1}"
        return self._addresses[name]
