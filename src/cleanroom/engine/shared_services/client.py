"""A run's side of the server of shared services: it requests services, follows their states,
and hands over the listening sockets of its phases.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from cleanroom.engine.shared_services import protocol
from cleanroom.engine.shared_services.discovery import ServerConfig, connect_or_start
from cleanroom.engine.shared_services.protocol import JoinAnswer, ServiceGrant, ServiceRequest
from cleanroom.engine.supervision.service import ServiceState
from cleanroom.model.errors import ServiceFailed
from cleanroom.model.events import Event
from cleanroom.model.policy import Policy
from cleanroom.sandbox.async_channel import Link
from cleanroom.services import Recipe

# starting an interpreter takes a fifth of a second; a hundred times that is a hang
ANSWER_SECONDS = 20.0
TRIES = 5  # a server that is just ending is met once; its successor may be ending too
PAUSE_SECONDS = 0.05


def configuration_digest(recipe: Recipe, policy: Policy, seed: int) -> str:
    """SHA-256 in hex of all that makes a service what it is, except for this run's secrets."""
    # a service reaches no hosts, and nothing is expected of it
    shared = msgspec.structs.replace(policy, egress=(), private_egress=msgspec.UNSET, expected=())
    text = msgspec.json.encode((recipe, shared, seed), order="sorted")
    for secret in recipe.secrets:
        text = text.replace(secret.encode(), b"SECRET")
    return hashlib.sha256(text).hexdigest()


class RemoteService:
    """One service that the server has. See `service.SharedService`."""

    def __init__(
        self, name: str, recipe: Recipe, grant: ServiceGrant, server: ServerConnection
    ) -> None:
        self.recipe = msgspec.structs.replace(
            recipe, phase_variables=grant.variables, secrets=grant.secrets
        )
        self.environment = grant.environment
        self.folder = Path(grant.folder)
        self.attached = grant.attached
        self.resources = grant.resources
        self._name = name
        self._server = server
        self._state = ServiceState()
        self._changed = anyio.Event()

    def forward(self, to: str, listening: int) -> None:
        self._server.send(protocol.ForwardPort(self._name), [listening])

    async def states(self) -> AsyncIterator[ServiceState]:
        yielded: ServiceState | None = None
        while yielded is None or yielded.failure is None:
            if self._state is yielded:
                await self._changed.wait()
            yielded = self._state
            yield yielded

    def set_state(self, state: ServiceState) -> None:
        """Change the state; of several changes at once `states` yields only the last.

        A failure is the last state.
        """
        if self._state.failure is None:
            self._state = state
            self._changed.set()
            self._changed = anyio.Event()


class ServerConnection:
    """A connection to a server. See `service.SharedServices`."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.services: dict[str, RemoteService] = {}
        # requested services that run there with another configuration
        self.others: tuple[str, ...] = ()
        self._resources: tuple[str, ...] = ()
        # whether the server has answered the join; False: it ended before
        self._answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._left = anyio.Event()
        self._requests: Mapping[str, ServiceRequest] = {}
        self._link: Link[protocol.Message] | None = None
        streams: tuple[MemoryObjectSendStream[Event], MemoryObjectReceiveStream[Event]] = (
            anyio.create_memory_object_stream(math.inf)
        )
        self._send_event, self._events = streams

    @property
    def resources(self) -> tuple[str, ...]:
        """What the server keeps for this run, as lines of the ledger."""
        if not self.services:
            return ()
        of_services = (line for service in self.services.values() for line in service.resources)
        return (*self._resources, *of_services)

    async def join(
        self,
        link: Link[protocol.Message],
        run_id: str,
        requests: Mapping[str, ServiceRequest],
        *,
        lease: bool,
    ) -> bool:
        """Request services. False where the server ended before it answered.

        Raises:
            ServiceFailed: it does not answer.
        """
        self._link, self._requests = link, requests
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                with protocol.requests_file(requests) as file:
                    link.send(protocol.encode(protocol.Join(run_id, lease)), [file])
            except OSError:
                return False
            return await self._answered
        raise ServiceFailed(
            "CR-SESSION-003",
            f"{self.id}: the process that holds the services did not answer within "
            f"{ANSWER_SECONDS:g} s",
        )

    def send(self, order: protocol.Order, descriptors: Sequence[int] = ()) -> None:
        """Send an order; where the server is gone, the services' states become failures."""
        assert self._link is not None, "nothing was requested yet"
        try:
            self._link.send(protocol.encode(order), descriptors)
        except OSError:
            self.server_ended()

    def receive(self, message: protocol.Message, descriptors: Sequence[int]) -> None:
        """Take one message from the server."""
        for descriptor in descriptors:
            os.close(descriptor)
        match message:
            case protocol.Joined(answer):
                self._take_answer(answer)
            case protocol.Left():
                self._left.set()
            case protocol.StateChanged(name, opened, ready, failure) if name in self.services:
                error = failure.to_error() if failure is not None else None
                self.services[name].set_state(ServiceState(opened, ready, error))
            case protocol.EventReported(event):
                self._send_event.send_nowait(event)

    def _take_answer(self, answer: JoinAnswer) -> None:
        self.others, self._resources = answer.others, answer.resources
        self.services = {
            name: RemoteService(name, self._requests[name].recipe, grant, self)
            for name, grant in answer.services.items()
        }
        if not self._answered.done():
            self._answered.set_result(True)

    def server_ended(self) -> None:
        """End every wait for the server, and fail its services."""
        self._left.set()
        if not self._answered.done():
            self._answered.set_result(False)
        failure = ServiceFailed(
            "CR-SESSION-004",
            f"{self.id} has ended, and with it the services that it held",
            hint="run it again: a new one is started",
        )
        for service in self.services.values():
            service.set_state(ServiceState(failure=failure))
        self._send_event.close()

    async def leave(self) -> None:
        """End this run's leases, and wait until the server has removed what they held."""
        with anyio.move_on_after(ANSWER_SECONDS, shield=True):
            self.send(protocol.Leave())
            await self._left.wait()

    async def events(self) -> AsyncIterator[Event]:
        async with self._events:
            async for event in self._events:
                yield event

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._send_event.close()
        self._events.close()


@asynccontextmanager
async def connect(
    config: ServerConfig,
    run_id: str,
    recipes: Sequence[Recipe],
    *,
    start: bool = True,
    lease: bool = True,
) -> AsyncIterator[ServerConnection | None]:
    """Connect to the server of this configuration and request these services.

    Leaving ends the run's leases; the services go on.

    Without a server one is started; without `start`, None is given instead.
    With `lease` the run gets state of its own, where the server is a pool's.

    Raises:
        ServiceFailed: the server cannot be started, or does not answer.
    """
    requests = {
        recipe.name: ServiceRequest(
            configuration=configuration_digest(recipe, config.policy, config.seed), recipe=recipe
        )
        for recipe in recipes
    }
    for _ in range(TRIES):
        found = await anyio.to_thread.run_sync(partial(connect_or_start, config, start=start))
        if found is None:
            yield None
            return
        identity, end = found
        server = ServerConnection(identity)
        link = Link(end, protocol.receive_message, server.receive, server.server_ended)
        try:
            if await server.join(link, run_id, requests, lease=lease):
                try:
                    yield server
                finally:
                    await server.leave()
                return
        finally:
            server.close()
        await anyio.sleep(PAUSE_SECONDS)
    raise ServiceFailed(
        "CR-SESSION-002",
        f"{identity}: the process that holds the services ended {TRIES} times before it answered",
        hint="--fresh runs without it",
    )
