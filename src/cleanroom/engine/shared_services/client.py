"""A run's side of a holder: it asks for its services, follows how they fare,
and hands over the listening sockets of its phases.

What travels is JSON, one message a datagram (`sandbox.channel`);
the request lies in a memory file beside its message, since init files may be large.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from cleanroom.engine.shared_services.discovery import ServerConfig, connect_or_start
from cleanroom.engine.supervision.service import ServiceState
from cleanroom.model import errors
from cleanroom.model.errors import CleanroomError, ServiceFailed
from cleanroom.model.events import AnyEvent, Attached, Event, Subject
from cleanroom.model.policy import Policy
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link
from cleanroom.services import Recipe

# starting an interpreter takes a fifth of a second; a hundred times that is a hang
ANSWER_SECONDS = 20.0
TRIES = 5  # a holder that is just ending is met once; its successor may be ending too
PAUSE_SECONDS = 0.05


class ServiceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A service as a run needs it."""

    configuration: str
    recipe: Recipe


class ServiceGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A service as its holder gives it to a run."""

    environment: str
    folder: str
    variables: dict[str, str]
    secrets: tuple[str, ...]
    attached: Attached
    resources: tuple[str, ...]


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder says to a run that joins: services by name, those of another configuration,
    and what is there besides.
    """

    services: dict[str, ServiceGrant]
    others: tuple[str, ...]
    resources: tuple[str, ...]


class WireError(msgspec.Struct, frozen=True):
    """An error that travels."""

    kind: str
    code: str
    message: str
    hint: str
    where: str

    @classmethod
    def of(cls, error: CleanroomError) -> WireError:
        return cls(type(error).__name__, error.code, error.message, error.hint, error.where)

    def error(self) -> CleanroomError:
        made = getattr(errors, self.kind, None)
        kind = (
            made if isinstance(made, type) and issubclass(made, CleanroomError) else ServiceFailed
        )
        return kind(self.code, self.message, hint=self.hint, where=self.where)


def configuration(recipe: Recipe, policy: Policy, seed: int) -> str:
    """Names everything that makes a service what it is, but for this run's secrets."""
    shared = msgspec.structs.replace(policy, egress=(), expected=())  # a service has neither
    text = msgspec.json.encode((recipe, shared, seed), order="sorted")
    for secret in recipe.secrets:
        text = text.replace(secret.encode(), b"SECRET")
    return hashlib.sha256(text).hexdigest()


class RemoteService:
    """One service that the holder has. See `service.SharedService`."""

    def __init__(
        self, name: str, recipe: Recipe, given: ServiceGrant, holder: ServerConnection
    ) -> None:
        self.recipe = msgspec.structs.replace(
            recipe, phase_variables=given.variables, secrets=given.secrets
        )
        self.environment = given.environment
        self.folder = Path(given.folder)
        self.attached = given.attached
        self.resources = given.resources
        self._name = name
        self._holder = holder
        self._state = ServiceState()
        self._changed = anyio.Event()

    def admit(self, to: str, listening: int) -> None:
        self._holder.send({"op": "door", "service": self._name}, [listening])

    async def states(self) -> AsyncIterator[ServiceState]:
        told: ServiceState | None = None
        while told is None or told.failure is None:
            if self._state is told:
                await self._changed.wait()
            told = self._state
            yield told

    def become(self, state: ServiceState) -> None:
        """Take note of a change; of several at once only the last is told."""
        if self._state.failure is None:
            self._state = state
            self._changed.set()
            self._changed = anyio.Event()


class ServerConnection:
    """A connection to a holder. See `service.SharedServices`."""

    def __init__(self, identity: str) -> None:
        self.id = identity
        self.services: dict[str, RemoteService] = {}
        self.others: tuple[str, ...] = ()
        self._things: tuple[str, ...] = ()
        self._answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._left = anyio.Event()
        self._wanted: dict[str, ServiceRequest] = {}
        self._link: Link[channel.Message] | None = None
        streams: tuple[MemoryObjectSendStream[Event], MemoryObjectReceiveStream[Event]] = (
            anyio.create_memory_object_stream(math.inf)
        )
        self._tell, self._events = streams

    @property
    def resources(self) -> tuple[str, ...]:
        """What it holds for this run, for the ledger."""
        return (
            (
                *self._things,
                *(thing for service in self.services.values() for thing in service.resources),
            )
            if self.services
            else ()
        )

    async def ask(
        self,
        link: Link[channel.Message],
        run_id: str,
        wanted: dict[str, ServiceRequest],
        *,
        lease: bool,
    ) -> bool:
        """Say which services this run needs. False where the holder ended before it answered.

        Raises:
            ServiceFailed: it does not answer.
        """
        self._link, self._wanted = link, wanted
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                with _in_memory(msgspec.json.encode(wanted)) as file:
                    link.send({"op": "join", "run": run_id, "lease": lease}, [file])
            except OSError:
                return False
            return await self._answered
        raise ServiceFailed(
            "CR-SESSION-003",
            (
                f"{self.id}: the process that holds the services did not answer within "
                f"{ANSWER_SECONDS:g} s"
            ),
        )

    def send(self, message: channel.Message, descriptors: Sequence[int] = ()) -> None:
        assert self._link is not None, "nothing was asked yet"
        try:
            self._link.send(message, descriptors)
        except OSError:
            self.ended()  # the services' states say so

    def heard(self, message: channel.Message, descriptors: list[int]) -> None:
        """One message from the holder."""
        for descriptor in descriptors:
            os.close(descriptor)
        if "joined" in message:
            self._take(msgspec.convert(message["joined"], JoinAnswer))
        elif "left" in message:
            self._left.set()
        elif "state" in message and message["state"] in self.services:
            failure = msgspec.convert(message["failure"], WireError | None)
            state = ServiceState(
                message["opened"], message["ready"], failure.error() if failure else None
            )
            self.services[message["state"]].become(state)
        elif "event" in message:
            self._tell.send_nowait(msgspec.convert(message["event"], AnyEvent))

    def _take(self, answer: JoinAnswer) -> None:
        self.others, self._things = answer.others, answer.resources
        self.services = {
            name: RemoteService(name, self._wanted[name].recipe, given, self)
            for name, given in answer.services.items()
        }
        if not self._answered.done():
            self._answered.set_result(True)

    def ended(self) -> None:
        """It is gone: whoever waits for it learns so."""
        self._left.set()
        if not self._answered.done():
            self._answered.set_result(False)
        failure = ServiceFailed(
            "CR-SESSION-004",
            f"{self.id} has ended, and with it the services that it held",
            hint="run it again: a new one is started",
        )
        for service in self.services.values():
            service.become(ServiceState(failure=failure))
        self._tell.close()

    async def leave(self) -> None:
        """Give back what was leased to this run, and wait until it is gone."""
        with anyio.move_on_after(ANSWER_SECONDS, shield=True):
            self.send({"op": "leave"})
            await self._left.wait()

    async def events(self) -> AsyncIterator[Event]:
        async with self._events:
            async for event in self._events:
                yield event

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        self._tell.close()
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
    """Join the holder of this charge with these services.

    Leaving it gives up what was asked for; the services stay.

    If there is none it is started, or None given where that was not asked for.
    `lease`: for a run, which has its own state in a pool.

    Raises:
        ServiceFailed: it cannot be started, or does not answer.
    """
    wanted = {
        recipe.name: ServiceRequest(
            configuration=configuration(recipe, config.policy, config.seed), recipe=recipe
        )
        for recipe in recipes
    }
    for _ in range(TRIES):
        met = await anyio.to_thread.run_sync(partial(connect_or_start, config, start=start))
        if met is None:
            yield None
            return
        identity, end = met
        holder = ServerConnection(identity)
        link = Link(end, channel.receive, holder.heard, holder.ended)
        try:
            if await holder.ask(link, run_id, wanted, lease=lease):
                try:
                    yield holder
                finally:
                    await holder.leave()
                return
        finally:
            holder.close()
        await anyio.sleep(PAUSE_SECONDS)
    raise ServiceFailed(
        "CR-SESSION-002",
        f"{identity}: the process that holds the services ended {TRIES} times before it answered",
        hint="--fresh runs without it",
    )


class _in_memory:
    """A memory file with these bytes, as a descriptor."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> int:
        self._file = os.memfd_create("cleanroom", os.MFD_CLOEXEC)
        with open(self._file, "wb", closefd=False) as file:
            file.write(self._data)
        return self._file

    def __exit__(self, *exc: Any) -> None:
        os.close(self._file)


def attached(kind: Any, identity: str, name: str, **facts: Any) -> Attached:
    """The fact that a run uses a holder's service."""
    return Attached(subject=Subject("service", name), holder=kind, holder_id=identity, **facts)
