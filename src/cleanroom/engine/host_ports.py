"""Ports of the host for services, and the variables that name them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from cleanroom.engine.shared_services.protocol import Publication, ServiceRequest
from cleanroom.engine.supervision.service_spec import forwarded_ports
from cleanroom.model.errors import ServiceFailed, UsageError
from cleanroom.model.plan import ServiceSpec
from cleanroom.sandbox.channel import DESCRIPTORS_MAX
from cleanroom.services import Recipe
from cleanroom.services.base import clients_folder

HOST = "127.0.0.1"
BACKLOG = 128  # connections that wait to be accepted
PORTS_MAX = DESCRIPTORS_MAX - 1  # beside them travels the file with the request

Resolve = Callable[[ServiceSpec], Recipe]


@contextmanager
def published(
    spec: ServiceSpec, recipe: Recipe, configuration: str, resolve: Resolve
) -> Iterator[tuple[Publication, list[socket.socket]]]:
    """How the service is published, and its listening sockets for as long as the block.

    `recipe` is that of `spec` in runs; `resolve` makes one of another specification.

    Raises:
        UsageError: it has more ports than can be published.
        ServiceFailed: this machine gives no port.
        CleanroomError: as `resolve`.
    """
    forwards = forwarded_ports(recipe)
    if len(forwards) > PORTS_MAX:
        raise UsageError(
            "CR-SESSION-011",
            f"service {recipe.name!r}: expected at most {PORTS_MAX} ports, found {len(forwards)}",
            hint="name in `ports` those that programs on the host need",
        )
    with ExitStack() as stack:
        sockets = [stack.enter_context(listening(port, recipe.name)) for port, _ in forwards]
        publication = Publication(
            request=ServiceRequest(configuration=configuration, recipe=recipe),
            variables=_variables(spec, recipe, sockets, resolve),
            targets=tuple(to for _, to in forwards),
        )
        yield publication, sockets


def listening(port: int, name: str) -> socket.socket:
    """A socket that listens on this port of the loopback, or on any where it is taken.

    Raises:
        ServiceFailed: this machine gives no port.
    """
    for tried in (port, 0):
        try:
            return socket.create_server((HOST, tried), backlog=BACKLOG)
        except OSError as error:
            failure = error
            # taken, or below 1024 and not for this user
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
    raise ServiceFailed(
        "CR-SESSION-012", f"service {name!r}: no port of {HOST} can be had: {failure.strerror}"
    )


def _variables(
    spec: ServiceSpec, recipe: Recipe, sockets: Sequence[socket.socket], resolve: Resolve
) -> dict[str, str]:
    """The variables of a phase that names the service, with these ports, and with the folder of its
    client programs where it lies on the host.
    """
    if not sockets:
        return recipe.phase_variables
    port, *further = (each.getsockname()[1] for each in sockets)
    ports = dict(zip(spec.ports, further, strict=True))
    there = resolve(msgspec.structs.replace(spec, port=port, ports=ports, depends_on=(), after=""))
    # it was resolved with secrets of its own
    exchanged = dict(zip(there.secrets, recipe.secrets, strict=True))
    if recipe.clients:
        exchanged[clients_folder(recipe.name)] = recipe.clients
    return {name: _exchanged(value, exchanged) for name, value in there.phase_variables.items()}


def _exchanged(value: str, exchanged: dict[str, str]) -> str:
    for old, new in exchanged.items():
        value = value.replace(old, new)
    return value
