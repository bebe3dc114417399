"""Orders and messages between a run and the server of shared services, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from cleanroom.engine.shared_services import protocol
from cleanroom.engine.shared_services.protocol import (
    JoinAnswer,
    PooledService,
    PoolStatus,
    ProtocolError,
    ServiceGrant,
    ServiceRequest,
    WireError,
)
from cleanroom.model.errors import BackendUnavailable, ServiceFailed
from cleanroom.model.events import Attached, Recovery, Subject
from cleanroom.sandbox import channel
from cleanroom.services.base import Probe, Recipe

DB = Subject("service", "db")
GRANT = ServiceGrant(
    environment="session-1/service-db-1",
    folder="/cache/runs/session-1/data/services/service-db-1",
    variables={"DB_URL": "tcp://127.0.0.1:7000"},
    secrets=("word",),
    attached=Attached(subject=DB, holder="session", holder_id="session-1", port=7000),
    resources=("environment service-db-1",),
)
ERROR = WireError("ServiceFailed", "CR-SERVICE-021", "given up", "see its log", "make.toml")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = channel.pair()
    with one, other:
        yield one, other


@pytest.mark.parametrize(
    "order",
    [
        protocol.Join("run-1", lease=True),
        protocol.Leave(),
        protocol.ForwardPort("db"),
        protocol.QueryStatus(),
        protocol.EndServer(),
    ],
    ids=lambda order: type(order).__name__,
)
def test_an_order_arrives_as_it_was_sent(ends, order: protocol.Order):
    """Every kind of order is the same on the server's side."""
    channel.send(ends[0], protocol.encode(order))
    assert protocol.receive_order(ends[1]) == (order, [])


@pytest.mark.parametrize(
    "message",
    [
        protocol.Joined(JoinAnswer(services={"db": GRANT}, others=("cache",), resources=("x",))),
        protocol.Left(),
        protocol.StateChanged("db", opened=True, ready=False, failure=ERROR),
        protocol.StateChanged("db", opened=True, ready=True, failure=None),
        protocol.EventReported(Recovery(subject=DB, action="restarted", cause="it died")),
        protocol.StatusReported(
            PoolStatus(
                id="pool-1",
                pid=7,
                started_unix_ns=1,
                idle_seconds=2.5,
                leases=3,
                services=(PooledService(name="db", version="16", ready=True, configuration="ab"),),
            )
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(ends, message: protocol.Message):
    """Every kind of message is the same on the run's side."""
    channel.send(ends[0], protocol.encode(message))
    assert protocol.receive_message(ends[1]) == (message, [])


def test_a_message_of_an_older_server_is_understood(ends):
    """It has no tag; its first field tells what it is."""
    state = {"state": "db", "opened": True, "ready": True, "failure": None}
    channel.send(ends[0], state)
    channel.send(ends[0], {"status": {"id": "pool-1", "pid": 7}})
    channel.send(ends[0], {"left": True})
    assert [protocol.receive_message(ends[1]) for _ in range(3)] == [
        (protocol.StateChanged("db", opened=True, ready=True, failure=None), []),
        (protocol.StatusReported(PoolStatus(id="pool-1", pid=7)), []),
        (protocol.Left(), []),
    ]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (protocol.Join("run-1", lease=False), {"op": "join", "run": "run-1", "lease": False}),
        (protocol.ForwardPort("db"), {"op": "door", "service": "db"}),
        (protocol.Leave(), {"op": "leave"}),
        (protocol.QueryStatus(), {"op": "status"}),
        (protocol.EndServer(), {"op": "end"}),
        (protocol.Left(), {"kind": "left", "left": True}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_wire_form_is_the_one_that_older_versions_know(message, fields: dict):
    """A pool that an older version started takes these orders, and runs of one these messages."""
    assert protocol.encode(message) == fields


def test_a_grant_has_the_names_that_older_versions_know():
    """What a run adds to its ledger is called `things` on the wire."""
    fields = protocol.encode(
        protocol.Joined(JoinAnswer(services={"db": GRANT}, others=(), resources=("x",)))
    )
    joined = fields["joined"]
    assert isinstance(joined, dict)
    assert joined["things"] == ("x",)
    assert joined["services"]["db"]["things"] == ("environment service-db-1",)


@pytest.mark.parametrize("fields", [{}, {"op": "dance"}, {"op": "join"}, {"op": "door", "x": 1}])
def test_what_is_no_order_is_refused_and_its_descriptors_closed(ends, fields: dict):
    """The server keeps no descriptor of somebody who does not speak its protocol."""
    with socket.socket() as listening:
        channel.send(ends[0], fields, [listening.fileno()])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ProtocolError):
            protocol.receive_order(ends[1])
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize("fields", [{}, {"kind": "dance"}, {"kind": "state", "state": 3}])
def test_what_is_no_message_is_refused(ends, fields: dict):
    """A run takes it as the end of the connection."""
    channel.send(ends[0], fields)
    with pytest.raises(ConnectionError):
        protocol.receive_message(ends[1])


def test_requests_larger_than_a_datagram_arrive():
    """Init files are part of a recipe; the memory file has no limit."""
    recipe = Recipe(
        name="db",
        kind="postgres",
        version="16",
        probe=Probe(kind="exec"),
        files={"init.sql": "x" * (2 * channel.MESSAGE_MAX)},
    )
    requests = {"db": ServiceRequest(configuration="ab", recipe=recipe)}
    with protocol.requests_file(requests) as file:
        assert protocol.read_requests(os.dup(file)) == requests


def test_a_file_without_requests_is_refused():
    """Only the file of `requests_file` is read."""
    file = os.memfd_create("x")
    os.write(file, b"[1]")
    with pytest.raises(ProtocolError):
        protocol.read_requests(file)


def test_an_error_is_the_same_on_the_other_side():
    """Class, code, message, hint and place travel."""
    sent = BackendUnavailable("CR-BACKEND-003", "no daemon", hint="start it", where="make.toml")
    arrived = WireError.from_error(sent).to_error()
    assert type(arrived) is BackendUnavailable
    assert (arrived.code, arrived.message, arrived.hint, arrived.where) == (
        "CR-BACKEND-003",
        "no daemon",
        "start it",
        "make.toml",
    )


@pytest.mark.parametrize("kind", ["NotYetInvented", "annotations", "Exit"])
def test_an_error_of_an_unknown_class_is_a_failed_service(kind: str):
    """A newer server may have classes that this version has not."""
    arrived = WireError(kind, "CR-X-001", "m", "h", "").to_error()
    assert type(arrived) is ServiceFailed
    assert arrived.code == "CR-X-001"
