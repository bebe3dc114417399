"""What the supervisor knows of one service over all its lives,
and what it is told of one that another process holds.

No decisions.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio

from cleanroom.backends.base import Environment, ExecResult, Mount, PortForward
from cleanroom.core.bus import SpanContext
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Attached, Event, Subject
from cleanroom.services import Recipe

QUOTED_LINES = 12


class ServiceState(NamedTuple):
    """What changes in a service's life."""

    opened: bool = False  # its environment is there
    ready: bool = False
    failure: CleanroomError | None = None  # why it will not come back


class ServiceAccess(NamedTuple):
    """How a phase reaches the services that it names."""

    doorways: tuple[PortForward, ...]
    mounts: tuple[Mount, ...]  # the folders of their sockets
    variables: dict[str, str]


class SharedService(Protocol):
    """A service that a session or a pool holds: another process starts, watches and restarts it."""

    recipe: Recipe  # with the credentials that this run has there
    environment: str  # unique among those of this run
    folder: Path  # of its sockets, on the host
    attached: Attached  # the fact that this run uses it

    def admit(self, to: str, listening: int) -> None:
        """Lead whoever connects to this listening socket, a descriptor, to `to` inside it,
        in every life, until this run ends.
        """

    def states(self) -> AsyncIterator[ServiceState]:
        """Its state now and after every change.

        Ends with a failure where its holder ends.
        One consumer.
        """


class SharedServices(Protocol):
    """All that one holder has for this run."""

    @property
    def services(self) -> Mapping[str, SharedService]:
        """By the service's name."""

    def events(self) -> AsyncIterator[Event]:
        """What happens to them: recoveries, violations. Ends with the holder. One consumer."""


class Service:
    """One service over all its lives."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self.recipe = recipe
        self.environment_id = (
            # the same in every life: doorways lead to it
            f"service-{re.sub(r'[^A-Za-z0-9]+', '-', recipe.name)[:24]}-{number}"
        )
        self.subject = Subject("service", recipe.name)
        self.changed = anyio.Event()  # replaced at every change of the four below
        self.opened = False  # its environment is there
        self.ready = False
        self.idle = False  # the backend runs nothing, so nothing can be waited for
        self.failure: CleanroomError | None = None  # why it will not come back
        self.last_error: CleanroomError | None = None  # why its last life ended
        self.output = bytearray()
        self.has_data = False
        self.template = ""  # the cached folder that its data begins with
        self.environment: Environment | None = None  # of its last life that became ready
        self.listening: list[socket.socket] = []  # on the host
        self.scope = anyio.CancelScope()
        self.running = False
        self.ended = anyio.Event()
        self.begun = anyio.Event()  # its first life has a span
        self.span: SpanContext | None = None  # of its last life
        self.begun_unix_ns = 0  # its last life
        self.shared: SharedService | None = None  # where another process runs it

    def begin(self, span: SpanContext, at_unix_ns: int) -> None:
        """A life begins."""
        self.span, self.begun_unix_ns = span, at_unix_ns
        self.begun.set()

    def change(
        self,
        *,
        opened: bool | None = None,
        ready: bool = False,
        failure: CleanroomError | None = None,
    ) -> None:
        self.opened, self.ready, self.failure = (
            self.opened if opened is None else opened,
            ready,
            failure or self.failure,
        )
        self.changed.set()
        self.changed = anyio.Event()

    def tail(self) -> str:
        return "\n".join(self.output.decode(errors="replace").splitlines()[-QUOTED_LINES:])


class Main:
    """The main command of one life."""

    def __init__(self) -> None:
        self.started = False
        self.ended = anyio.Event()
        self.result: ExecResult | None = None

    @property
    def story(self) -> str:
        if self.result is None:
            return "ended with its environment"
        if self.result.killed_for:
            return f"was killed for its {self.result.killed_for} limit"
        return f"ended with exit status {self.result.exit_code}"
