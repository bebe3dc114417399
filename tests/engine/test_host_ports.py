"""Ports of the host for services, and the variables that name them."""

from __future__ import annotations

import socket

import msgspec
import pytest

from cleanroom.engine import host_ports
from cleanroom.engine.host_ports import HOST, listening, published
from cleanroom.model.errors import ServiceFailed, UsageError
from cleanroom.model.plan import ServiceSpec
from cleanroom.services import Recipe
from cleanroom.services.base import Probe, clients_folder

SPEC = ServiceSpec(name="web", kind="generic", ports={"admin": 9000})


def recipe(spec: ServiceSpec, secret: str = "first") -> Recipe:
    further = spec.ports["admin"]
    return Recipe(
        name="web",
        kind="generic",
        version="1",
        probe=Probe(kind="tcp", to="tcp:8000"),
        port=spec.port,
        ports=tuple(spec.ports.values()),
        to="tcp:8000",
        phase_variables={
            "URL": f"http://user:{secret}@127.0.0.1:{spec.port}/{further}",
            "CERTIFICATE": f"{clients_folder('web')}/root.crt",
        },
        clients="/cache/clients",
        secrets=(secret,),
    )


def test_variables_have_the_ports_of_the_host_and_the_secrets_of_the_service():
    """The service itself keeps the ports that it has in a run."""
    own = recipe(SPEC)
    with published(SPEC, own, "digest", lambda spec: recipe(spec, "second")) as (made, sockets):
        port, further = (each.getsockname()[1] for each in sockets)

    assert made.variables == {
        "URL": f"http://user:first@127.0.0.1:{port}/{further}",
        "CERTIFICATE": "/cache/clients/root.crt",
    }
    assert made.targets == ("tcp:8000", "tcp:9000")
    assert made.request.recipe == own


def test_a_port_that_is_taken_is_another_one():
    """Whoever has it keeps it."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with listening(port, "web") as other:
            assert other.getsockname()[1] != port
    with listening(port, "web") as free:
        assert free.getsockname()[1] == port


def test_a_machine_without_ports_is_an_error(monkeypatch: pytest.MonkeyPatch):
    """It has the kernel's reason."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(host_ports.socket, "create_server", refuse)
    with pytest.raises(ServiceFailed, match="Address already in use") as raised:
        listening(8000, "web")

    assert raised.value.code == "CR-SESSION-012"


def test_more_ports_than_travel_at_once_are_refused():
    """Before any of them is taken."""
    many = msgspec.structs.replace(recipe(SPEC), ports=tuple(range(9000, 9100)))
    with (
        pytest.raises(UsageError, match="found 101") as raised,
        published(SPEC, many, "digest", recipe),
    ):
        pass

    assert raised.value.code == "CR-SESSION-011"
