"""The messages between a run and the server of shared services.

A run sends orders, tagged by `op`; the server sends messages, tagged by `kind`.
Each is one JSON object a datagram, with descriptors beside it (`sandbox.channel`).

The server of a pool may be older or newer than a run that joins it.
So a field keeps its name and its meaning on the wire, and a new one needs a default;
where Python has a better name than the wire, `msgspec.field` has both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from cleanroom.model import errors
from cleanroom.model.errors import CleanroomError, ServiceFailed
from cleanroom.model.events import AnyEvent, Attached
from cleanroom.sandbox import channel
from cleanroom.services import Recipe


class ProtocolError(ConnectionError):
    """The other side sent no message of this protocol: for the caller, the connection has ended."""


# --- values inside messages


class ServiceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A service as a run needs it."""

    # digest of all that makes the service what it is, see `client.configuration_digest`
    configuration: str
    recipe: Recipe


class ServiceGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the server gives it to one run."""

    # id of the service's environment, unique among those that a run can reach
    environment: str
    # the service's folder on the host, which holds its sockets
    folder: str
    # what phases get in their environment, with the credentials of this run
    variables: dict[str, str]
    secrets: tuple[str, ...]
    attached: Attached
    # lines for the run's ledger
    resources: tuple[str, ...] = msgspec.field(name="things")


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server gives to a run that joins."""

    services: dict[str, ServiceGrant]
    # requested services that run here with another configuration
    others: tuple[str, ...]
    # lines for the run's ledger: the server itself
    resources: tuple[str, ...] = msgspec.field(name="things")


class WireError(msgspec.Struct, frozen=True):
    """A `CleanroomError` as values."""

    # name of the exception's class in `model.errors`
    kind: str
    code: str
    message: str
    hint: str
    where: str

    @classmethod
    def from_error(cls, error: CleanroomError) -> WireError:
        return cls(type(error).__name__, error.code, error.message, error.hint, error.where)

    def to_error(self) -> CleanroomError:
        """The exception; a `ServiceFailed` where this version knows no such class."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, CleanroomError)):
            kind = ServiceFailed
        return kind(self.code, self.message, hint=self.hint, where=self.where)


class PooledService(msgspec.Struct, frozen=True, kw_only=True):
    """One service of a pool."""

    name: str
    version: str
    ready: bool
    # runs with another one do not use it
    configuration: str


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as it is now; without `id` there is none."""

    id: str = ""
    pid: int = 0
    started_unix_ns: int = 0
    # it ends when no run has used it for so long; 0: never
    idle_seconds: float = 0.0
    # runs that use it, and ended ones whose databases and servers still have to be removed
    leases: int = 0
    services: tuple[PooledService, ...] = ()


# --- orders: from a run, or from `pool`


class Join(msgspec.Struct, frozen=True, tag_field="op", tag="join"):
    """Start or give these services.

    The requests may be larger than a datagram:
    the one descriptor is a file that `requests_file` has made.
    """

    run: str
    # whether the run gets state of its own, where the server is a pool's
    lease: bool


class Leave(msgspec.Struct, frozen=True, tag_field="op", tag="leave"):
    """End all leases of this run; `Left` answers."""


class ForwardPort(msgspec.Struct, frozen=True, tag_field="op", tag="door"):
    """Forward connections on the one descriptor, a listening socket, to this service."""

    service: str


class QueryStatus(msgspec.Struct, frozen=True, tag_field="op", tag="status"):
    """`StatusReported` answers."""


class EndServer(msgspec.Struct, frozen=True, tag_field="op", tag="end"):
    """End all services and the server; the connection closes, then the server's folder goes."""


Order = Join | Leave | ForwardPort | QueryStatus | EndServer


# --- messages: from the server


class Joined(msgspec.Struct, frozen=True, tag_field="kind", tag="joined"):
    """Answers `Join`."""

    answer: JoinAnswer = msgspec.field(name="joined")


class Left(msgspec.Struct, frozen=True, tag_field="kind", tag="left"):
    """Answers `Leave`: nothing of this run is left."""

    left: bool = True


class StateChanged(msgspec.Struct, frozen=True, tag_field="kind", tag="state"):
    """The state of one service as it is for this run."""

    service: str = msgspec.field(name="state")
    opened: bool
    ready: bool
    failure: WireError | None


class EventReported(msgspec.Struct, frozen=True, tag_field="kind", tag="event"):
    """An event about one of the run's services, for the run's own log."""

    event: AnyEvent


class StatusReported(msgspec.Struct, frozen=True, tag_field="kind", tag="status"):
    """Answers `QueryStatus`."""

    status: PoolStatus


Message = Joined | Left | StateChanged | EventReported | StatusReported


# --- to and from the wire


def encode(sent: Order | Message) -> Mapping[str, object]:
    """The JSON object to send."""
    fields: Mapping[str, object] = msgspec.to_builtins(sent)
    return fields


def receive_order(end: socket.socket) -> tuple[Order, list[int]] | None:
    """The next order and its descriptors, which the caller owns; None when the run is gone.

    Raises:
        BlockingIOError: nothing is waiting on a non-blocking socket.
        ProtocolError: it is no order.
    """
    arrived = channel.receive(end)
    if arrived is None:
        return None
    with _translated(arrived[1]):
        return msgspec.convert(arrived[0], Order), arrived[1]


def receive_message(end: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, which the caller owns; None when the server is gone.

    Raises:
        BlockingIOError: nothing is waiting on a non-blocking socket.
        ProtocolError: it is no message.
    """
    arrived = channel.receive(end)
    if arrived is None:
        return None
    fields, descriptors = arrived
    # Servers older than the tag begin each message with the field that is called like its tag.
    fields.setdefault("kind", next(iter(fields), ""))
    with _translated(descriptors):
        return msgspec.convert(fields, Message), descriptors


@contextmanager
def _translated(descriptors: list[int]) -> Iterator[None]:
    """What cannot be converted is a `ProtocolError`, and its descriptors are closed."""
    try:
        yield
    except msgspec.ValidationError as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProtocolError(str(error)) from error


@contextmanager
def requests_file(requests: Mapping[str, ServiceRequest]) -> Iterator[int]:
    """A memory file with the requests by the services' names, as a descriptor."""
    descriptor = os.memfd_create("cleanroom", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(requests))
        yield descriptor
    finally:
        os.close(descriptor)


def read_requests(descriptor: int) -> dict[str, ServiceRequest]:
    """The inverse of `requests_file`. Closes the descriptor.

    Raises:
        ProtocolError: the file holds no requests.
    """
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        try:
            return msgspec.json.decode(file.read(), type=dict[str, ServiceRequest])
        except msgspec.MsgspecError as error:
            raise ProtocolError(str(error)) from error
