"""The state of one service over all its runs, and the protocol of services that another process
runs.

A run of a service is one environment with the service's main command.
Nothing here decides what happens next.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import anyio

from cleanroom.backends.base import Environment, ExecResult, Mount, PortForward
from cleanroom.core.bus import SpanContext
from cleanroom.model.errors import CleanroomError, EnvironmentFailed
from cleanroom.model.events import Attached, Event, Subject
from cleanroom.services import Recipe

OUTPUT_BYTES = 64 << 10  # of a service's output: a log probe searches it, an error quotes its end
QUOTED_LINES = 12


class ServiceState(NamedTuple):
    """The state of a service that those who wait for it see."""

    opened: bool = False  # its environment exists
    ready: bool = False
    failure: CleanroomError | None = None  # why it will not come back


class ServiceAccess(NamedTuple):
    """How a phase reaches the services that it names."""

    port_forwards: tuple[PortForward, ...]
    mounts: tuple[Mount, ...]  # the folders of their sockets and of their client programs
    variables: dict[str, str]
    path: tuple[str, ...] = ()  # folders that go before PATH


class SharedService(Protocol):
    """A service of a session or a pool: another process starts, monitors and restarts it."""

    recipe: Recipe  # with the credentials that this run has there
    environment: str  # unique among those of this run
    folder: Path  # of its sockets, on the host
    attached: Attached  # the fact that this run uses it

    def forward(self, to: str, listening: int) -> None:
        """Forward connections on `listening` (a descriptor) to `to` inside the service, across
        restarts, until this run ends.
        """

    def states(self) -> AsyncIterator[ServiceState]:
        """Its state now and after every change, for one consumer.

        Ends with a failure where the process that runs it ends.
        """


class SharedServices(Protocol):
    """All services that one other process runs for this run."""

    @property
    def services(self) -> Mapping[str, SharedService]:
        """By the service's name."""

    def events(self) -> AsyncIterator[Event]:
        """Recoveries and violations of these services, for one consumer.

        Ends with the process that runs them.
        """


class Service:
    """One service over all its runs."""

    def __init__(self, recipe: Recipe, number: int) -> None:
        self.recipe = recipe
        # the same in every run: port forwards lead to it
        name = re.sub(r"[^A-Za-z0-9]+", "-", recipe.name)[:24]
        self.environment_id = f"service-{name}-{number}"
        self.subject = Subject("service", recipe.name)
        # how it reaches the services that it depends on
        self.access = ServiceAccess((), (), {})
        self.shared: SharedService | None = None  # where another process runs it
        self.changed = anyio.Event()  # replaced at every change of the four below
        self.opened = False  # its environment exists
        self.ready = False
        self.idle = False  # the backend runs nothing, so there is nothing to wait for
        self.failure: CleanroomError | None = None  # why it will not come back
        # of the current run, or of the last one
        self.scope = anyio.CancelScope()
        self.running = False
        self.ended = anyio.Event()
        self.runs = 0  # begun so far
        self.last_error: CleanroomError | None = None
        self.output = bytearray()  # the end of it
        self.span: SpanContext | None = None
        self.begun_unix_ns = 0
        self.environment: Environment | None = None  # of the last run that became ready
        # of all runs
        self.begun = anyio.Event()  # the first run has a span
        self.has_data = False
        self.template = ""  # the cached folder that its data begins with
        # sockets on the host that are forwarded to the service, each with where to inside it
        self.listening: list[tuple[socket.socket, str]] = []

    @property
    def log(self) -> str:
        """The name of its log."""
        return f"service-{self.recipe.name}"

    def begin_run(self, span: SpanContext, at_unix_ns: int) -> None:
        """Note the span of a new run."""
        self.span, self.begun_unix_ns = span, at_unix_ns
        self.runs += 1
        self.begun.set()

    def successor(self) -> Service:
        """A service with the same environment, data and listening sockets, and a state that is new:
        a failure stays for good.
        """
        service = Service(self.recipe, 0)
        service.environment_id = self.environment_id
        service.access = self.access
        service.has_data, service.template = self.has_data, self.template
        service.listening, service.runs = self.listening, self.runs
        service.environment, service.last_error = self.environment, self.last_error
        return service

    def change(
        self,
        *,
        opened: bool | None = None,
        ready: bool = False,
        failure: CleanroomError | None = None,
    ) -> None:
        """Set the state and wake everyone who waits for a change of it.

        `opened` stays as it is unless given; a failure stays for good.
        """
        if opened is not None:
            self.opened = opened
        self.ready = ready
        self.failure = failure or self.failure
        self.changed.set()
        self.changed = anyio.Event()

    def set_idle(self) -> None:
        """Set the state of a service on a backend that runs nothing."""
        self.idle = True
        self.change()

    def set_state(self, state: ServiceState) -> None:
        """Take over the state that another process reports."""
        self.change(opened=state.opened, ready=state.ready, failure=state.failure)

    async def wait_opened(self) -> None:
        """Wait until its environment exists.

        Raises:
            CleanroomError: it will not, for this reason.
        """
        while not self.opened and not self.idle:
            await self._wait_change()

    async def wait_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            CleanroomError: it will not be, for this reason.
        """
        while not self.ready and not self.idle:
            await self._wait_change()

    async def _wait_change(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self.changed.wait()

    def forward(self, listening: socket.socket, to: str = "") -> None:
        """Forward connections on `listening` to the service, across restarts.

        `to` is written as the recipe's own, which it is where none is given.
        """
        to = to or self.recipe.to
        self.listening.append((listening, to))
        if self.ready and self.environment is not None:
            with suppress(EnvironmentFailed):  # the next run forwards them
                self.environment.forward(listening, to)

    def stop_forwarding(self, listening: socket.socket) -> None:
        """Stop forwarding connections on `listening`."""
        self.listening = [entry for entry in self.listening if entry[0] is not listening]
        if self.environment is not None:
            self.environment.stop_forwarding(listening)

    def take_output(self, data: bytes) -> None:
        """Append to the output, of which only the end is kept."""
        self.output += data
        del self.output[:-OUTPUT_BYTES]

    def last_lines(self) -> str:
        """The last lines of its output, for an error."""
        return last_lines(self.output)


class MainCommand:
    """The main command of one run of a service."""

    def __init__(self) -> None:
        self.started = False
        self.ended = anyio.Event()
        self.result: ExecResult | None = None

    @property
    def ran_nothing(self) -> bool:
        """True where the backend has nothing that could run a command."""
        return self.result is not None and not self.result.ran

    @property
    def end_text(self) -> str:
        """How it ended, for a sentence about the service."""
        if self.result is None:
            return "ended with its environment"
        if self.result.killed_for:
            return f"was killed for its {self.result.killed_for} limit"
        return f"ended with exit status {self.result.exit_code}"


def last_lines(output: bytearray) -> str:
    """The last lines of an output, as an error quotes them."""
    return "\n".join(output.decode(errors="replace").splitlines()[-QUOTED_LINES:])
