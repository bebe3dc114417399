"""Port forwards from environments to services, declared hosts and other processes.

The listening socket of a forward is made inside the environment that connects through it.
It is passed to the relay beside the service, which accepts its connections.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cleanroom.backends.embedded.keeper_client import KeeperClient
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.sandbox.network import dial

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Forward, WardenOrder


class OrderReceiver(Protocol):
    """An environment, as its warden's orders reach it."""

    id: str

    def order(self, message: WardenOrder, descriptors: Sequence[int] = ()) -> None: ...


class Forwards:
    """The listening sockets of a run's environments, and the relays that accept on them."""

    def __init__(self, keeper: KeeperClient, environments: Mapping[str, OrderReceiver]) -> None:
        self._keeper = keeper
        self._environments = environments
        # environment that connects -> its forwards, each with its listening socket
        self._sockets: dict[str, list[tuple[Forward, int]]] = {}
        # environment of another process -> the function that takes its sockets
        self._elsewhere: dict[str, Callable[[str, int], None]] = {}

    def connect(
        self, owner: str, forward: Forward, listening: int, reports: Sequence[int] = ()
    ) -> None:
        """Pass the listening socket of the environment `owner` to the relay behind it.

        `reports` is the channel on which the egress relay reports refused connections.
        The caller keeps `listening`.
        """
        if forward["to"].startswith(dial.OUTWARD):
            self._keeper.send({"op": "relay", "to": forward["to"]}, [listening, *reports])
            return
        target = forward["environment"]
        if target in self._elsewhere:
            self._elsewhere[target](forward["to"], listening)
            return
        self._sockets.setdefault(owner, []).append((forward, os.dup(listening)))
        service = self._environments.get(target)
        # else the service is being restarted: `reconnect` passes the socket to its next relay
        if service is not None:
            with contextlib.suppress(EnvironmentFailed):
                service.order({"op": "relay", "to": forward["to"]}, [listening])

    def forward_elsewhere(self, environment: str, forward: Callable[[str, int], None]) -> None:
        """Pass sockets that lead to `environment`, which another process made, to `forward`."""
        self._elsewhere[environment] = forward

    def reconnect(self, service: OrderReceiver) -> None:
        """Pass the sockets that lead to a service to its relay, which is new after a restart."""
        for sockets in self._sockets.values():
            for forward, listening in sockets:
                if forward["environment"] == service.id:
                    service.order({"op": "relay", "to": forward["to"]}, [listening])

    def close(self, owner: str) -> None:
        """Close the sockets of the environment `owner`, which has ended."""
        for _, listening in self._sockets.pop(owner, ()):
            os.close(listening)
