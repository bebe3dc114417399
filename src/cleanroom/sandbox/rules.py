"""What held calls are judged by, and what a judgement says. Values only."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple

from cleanroom.sandbox.landlock import DEVICES


class Rules:
    """What one environment may write and reach. Paths are those of its own view, canonical, without a slash at the end."""

    def __init__(
        self, *, writable: Iterable[str], read_only: Iterable[str] = (), services: Iterable[str] = (), level: str = "Medium"
    ) -> None:
        self.writable = tuple(path.rstrip("/") + "/" for path in (*writable, *DEVICES))
        self.read_only = tuple(path.rstrip("/") + "/" for path in read_only)  # mounted tools, whose byte code cannot be cached
        self.sockets = self.writable + tuple(path.rstrip("/") + "/" for path in services)  # where unix sockets may be reached
        self.level = level


# Their refusals only attribute: the empty network, the mounts and Landlock say no as well, which canaries have to prove.
KERNEL_HELD = frozenset(("network.egress", "network.names", "network.sockets", "filesystem.write", "filesystem.metadata"))


class Refusal(NamedTuple):
    """An answer other than "go on": the errno for the caller and, unless `rule` is empty, what is recorded."""

    errno: int
    rule: str = ""
    target: dict[str, str | int] = {}  # noqa: RUF012
    tags: tuple[str, ...] = ()

    @property
    def error_name(self) -> str:
        return errno.errorcode.get(self.errno, str(self.errno))
