"""What every server can be asked, whoever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from anyio.abc import ByteStream

from cleanroom.servers.addresses import ExecResult


class Host(Protocol):
    """A server that can be asked. Its methods run in the loop that the server runs in."""

    version: str

    async def dial(self) -> ByteStream:
        """A connection to it, once it is ready.

        Raises:
            OSError: nobody listens there.
        """

    async def exec(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout_seconds: float
    ) -> ExecResult:
        """Run a command beside the server."""

    async def logs(self) -> str:
        """What the server has written so far."""
