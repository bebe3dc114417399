"""The side of `up` and `down`: a connection to the server of services for programs on the host.

Blocks.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cleanroom.backends.base import Leftover
from cleanroom.backends.cleanup import left_of
from cleanroom.engine.shared_services import protocol
from cleanroom.engine.shared_services.discovery import (
    OWNER_FILE,
    ServerConfig,
    connect_or_start,
    discovery_key,
    find_server,
)
from cleanroom.engine.shared_services.protocol import (
    Publication,
    PublishedService,
    StateChanged,
)
from cleanroom.model.errors import ServiceFailed
from cleanroom.sandbox import channel, journal

ANSWER_SECONDS = 20.0
# Stopping one service takes 5 s at most, and there may be dozens.
STOP_SECONDS = 120.0
END_SECONDS = 60.0
PAUSE_SECONDS = 0.02


def up_key(root: str, backend: str) -> str:
    """The discovery key of the project's server for programs on the host, on this backend."""
    return discovery_key(root, "up", backend)


class UpServer:
    """A connection to the server."""

    def __init__(self, identity: str, end: socket.socket, folder: Path, *, started: bool) -> None:
        self.id = identity
        # this process has started it
        self.started = started
        self._end = end
        self._folder = folder
        self._states: list[StateChanged] = []

    def published(self) -> tuple[PublishedService, ...]:
        """The services as they are now.

        Raises:
            ServiceFailed: the server has ended, or does not answer.
        """
        self._send(protocol.QueryPublished())
        while True:
            message, descriptors = self._receive(ANSWER_SECONDS)
            if isinstance(message, protocol.PublishedReported):
                return protocol.read_values(descriptors[0], tuple[PublishedService, ...])
            self._keep(message)

    def publish(
        self, name: str, publication: Publication, sockets: Sequence[socket.socket]
    ) -> None:
        """Start a service with these listening sockets, of which the server has its own then.

        Raises:
            ServiceFailed: the server has ended.
        """
        with protocol.values_file(publication) as file:
            self._send(
                protocol.Publish(name), [file, *(listening.fileno() for listening in sockets)]
            )

    def keep(self) -> None:
        """Let the server outlive the process that has started it.

        Raises:
            ServiceFailed: the server has ended.
        """
        self._send(protocol.Keep())

    def unpublish(self, names: Iterable[str]) -> None:
        """End these services, and wait until their data is removed.

        Raises:
            ServiceFailed: the server has ended, or does not answer.
        """
        self._send(protocol.Unpublish(tuple(names)))
        while not isinstance((message := self._receive(STOP_SECONDS)[0]), protocol.Left):
            self._keep(message)

    def states(self) -> Iterator[StateChanged]:
        """The states of services that this connection has published, as they change.

        Raises:
            ServiceFailed: the server has ended.
        """
        while True:
            while self._states:
                yield self._states.pop(0)
            self._keep(self._receive(None)[0])

    def end(self) -> tuple[Leftover, ...]:
        """End the server with all services. Returns what is left, which should be nothing.

        Raises:
            ServiceFailed: it does not end.
        """
        try:
            process = (self._folder / OWNER_FILE).read_text()
        except OSError:  # it is just ending
            process = ""
        with suppress(OSError):
            channel.send(self._end, protocol.encode(protocol.EndServer()))
        until = time.monotonic() + END_SECONDS
        while self._folder.exists() or (process and journal.alive(process)):
            if time.monotonic() > until:
                pid = process.partition(":")[0]
                raise ServiceFailed(
                    "CR-SESSION-006",
                    f"{self.id} did not end within {END_SECONDS:g} s",
                    hint=f"kill {pid}, then `cleanroom-engine sweep`",
                )
            time.sleep(PAUSE_SECONDS)
        return left_of(self.id)

    def _keep(self, message: protocol.Message) -> None:
        if isinstance(message, StateChanged):
            self._states.append(message)

    def _send(self, order: protocol.Order, descriptors: Sequence[int] = ()) -> None:
        try:
            channel.send(self._end, protocol.encode(order), descriptors)
        except OSError:
            raise self._ended() from None

    def _receive(self, seconds: float | None) -> tuple[protocol.Message, list[int]]:
        self._end.settimeout(seconds)
        try:
            arrived = protocol.receive_message(self._end)
        except TimeoutError:
            raise ServiceFailed(
                "CR-SESSION-003",
                f"{self.id}: the process that holds the services did not answer within "
                f"{seconds:g} s",
            ) from None
        except OSError:
            arrived = None
        if arrived is None:
            raise self._ended()
        if not isinstance(arrived[0], protocol.PublishedReported):
            for descriptor in arrived[1]:
                os.close(descriptor)
        return arrived

    def _ended(self) -> ServiceFailed:
        return ServiceFailed(
            "CR-SESSION-004",
            f"{self.id} has ended, and with it the services that it held",
            hint="`cleanroom-engine up` starts them anew, without their data",
        )


@contextmanager
def found_server(runs: str, root: str, backend: str) -> Iterator[UpServer | None]:
    """A connection to the project's server; None where there is none."""
    found = find_server(runs, "up", up_key(root, backend))
    if found is None:
        yield None
        return
    identity, end = found
    with end:
        yield UpServer(identity, end, Path(runs, identity), started=False)


@contextmanager
def started_server(config: ServerConfig) -> Iterator[UpServer]:
    """A connection to the server of this configuration, which is started where there is none.

    Raises:
        ServiceFailed: it cannot be started.
    """
    found = connect_or_start(config, start=False)
    started = found is None
    if found is None:
        found = connect_or_start(config)
    assert found is not None, "it was started"
    identity, end = found
    with end:
        yield UpServer(identity, end, Path(config.runs, identity), started=started)
