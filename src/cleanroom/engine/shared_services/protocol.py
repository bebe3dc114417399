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
from typing import TypeVar

import msgspec

from cleanroom.model import errors
from cleanroom.model.errors import CleanroomError, ServiceFailed
from cleanroom.model.events import AnyEvent, Attached
from cleanroom.sandbox import channel
from cleanroom.services import Recipe

T = TypeVar("T")


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


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A service as `up` wants it for programs on the host."""

    request: ServiceRequest
    # for programs on the host: with the ports of the sockets that come with it
    variables: dict[str, str]
    # where inside the service each of these sockets leads
    targets: tuple[str, ...]


class PublishedService(msgspec.Struct, frozen=True, kw_only=True):
    """One service on ports of the host, as it is now."""

    name: str
    version: str
    configuration: str
    variables: dict[str, str]
    ports: tuple[int, ...]
    depends_on: tuple[str, ...]
    replica_of: str
    log: str  # below the project's folder
    ready: bool
    # it has been ready, so that it has data
    has_data: bool
    # how often it was started again, and what ended it last
    restarts: int
    last_error: str
    # why it does not come back by itself
    failure: WireError | None


# --- orders: from a run, from `pool`, or from `up`


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


class Publish(msgspec.Struct, frozen=True, tag_field="op", tag="publish"):
    """Start this service for programs on the host; one that has failed is started again.

    The first descriptor is a file with a `Publication`, the others its listening sockets.
    A service that is there keeps its own, and these are closed.
    """

    service: str


class Keep(msgspec.Struct, frozen=True, tag_field="op", tag="keep"):
    """Stay when the `up` that has started this server ends, unless that is in the foreground."""


class Unpublish(msgspec.Struct, frozen=True, tag_field="op", tag="unpublish"):
    """End these services and remove their data; `Left` answers."""

    services: tuple[str, ...]


class QueryPublished(msgspec.Struct, frozen=True, tag_field="op", tag="published"):
    """`PublishedReported` answers."""


class EndServer(msgspec.Struct, frozen=True, tag_field="op", tag="end"):
    """End all services and the server; the connection closes, then the server's folder goes."""


Order = (
    Join
    | Leave
    | ForwardPort
    | QueryStatus
    | Publish
    | Keep
    | Unpublish
    | QueryPublished
    | EndServer
)


# --- messages: from the server


class Joined(msgspec.Struct, frozen=True, tag_field="kind", tag="joined"):
    """Answers `Join`."""

    answer: JoinAnswer = msgspec.field(name="joined")


class Left(msgspec.Struct, frozen=True, tag_field="kind", tag="left"):
    """Answers `Leave`, and `Unpublish`: nothing of the run, or of the services, is left."""

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


class PublishedReported(msgspec.Struct, frozen=True, tag_field="kind", tag="published"):
    """Answers `QueryPublished`. The services may be more than a datagram holds:
    the one descriptor is a file with them.
    """


Message = Joined | Left | StateChanged | EventReported | StatusReported | PublishedReported


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
    with values_file(requests) as descriptor:
        yield descriptor


@contextmanager
def values_file(values: object) -> Iterator[int]:
    """A memory file with these values, which may be larger than a datagram, as a descriptor."""
    descriptor = os.memfd_create("cleanroom", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(values))
        yield descriptor
    finally:
        os.close(descriptor)


def read_requests(descriptor: int) -> dict[str, ServiceRequest]:
    """The inverse of `requests_file`. Closes the descriptor.

    Raises:
        ProtocolError: the file holds no requests.
    """
    return read_values(descriptor, dict[str, ServiceRequest])


def read_values(descriptor: int, of: type[T]) -> T:
    """The inverse of `values_file`. Closes the descriptor.

    Raises:
        ProtocolError: the file holds no such values.
    """
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        try:
            return msgspec.json.decode(file.read(), type=of)
        except msgspec.MsgspecError as error:
            raise ProtocolError(str(error)) from error
