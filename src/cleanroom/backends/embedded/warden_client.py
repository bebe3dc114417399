"""The channel to the warden of one environment: orders go out, its messages come in.

Answers are matched to orders by number.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from cleanroom.model.errors import EnvironmentFailed
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import (
        Answer,
        Dial,
        ListProcesses,
        Prove,
        Ready,
        WardenMessage,
        WardenOrder,
    )


class WardenListener(Protocol):
    """Takes the messages that answer no order."""

    def on_attempt(self, attempt: protocol.Attempt) -> None: ...

    def on_ready(self, message: Ready, descriptors: list[int]) -> None:
        """The environment is up; the descriptors are closed afterwards."""

    def on_lost(self) -> None:
        """The warden has ended; pending orders fail afterwards."""


class WardenClient:
    """A warden as the engine's event loop sees it."""

    def __init__(self, identity: str, listener: WardenListener) -> None:
        """`identity` is the environment's."""
        self._identity = identity
        self._listener = listener
        self._link: Link[WardenMessage] | None = None
        self._number = 0
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        # by the order's number
        self._answers: dict[int, asyncio.Future[tuple[Answer, list[int]]]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._pids: dict[int, int] = {}
        # those that came ahead of "ready"
        self._forward_ends: list[int] = []

    def open(self) -> socket.socket:
        """Open the channel; returns the warden's end, which the caller has to close."""
        ours, theirs = channel.pair()
        self._link = Link(ours, channel.WARDEN_MESSAGES.receive, self._on_message, self._on_end)
        return theirs

    def close(self) -> None:
        """Close the channel. Safe to call twice, and before `open`."""
        if self._link is not None:
            self._link.close()
        self._close_forward_ends()

    # --- orders

    def next_number(self) -> int:
        """A number for an order."""
        self._number += 1
        return self._number

    def send(self, order: WardenOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order.

        Raises:
            EnvironmentFailed: the warden has ended.
        """
        assert self._link is not None
        try:
            self._link.send(order, descriptors)
        except OSError:
            raise EnvironmentFailed(
                "CR-SANDBOX-006", f"environment {self._identity} has ended"
            ) from None

    async def ask(self, order: Prove | Dial | ListProcesses) -> tuple[Answer, list[int]]:
        """Send an order and wait for its answer, whose descriptors the caller owns.

        Raises:
            EnvironmentFailed: the warden has ended.
        """
        answer: asyncio.Future[tuple[Answer, list[int]]]
        answer = asyncio.get_running_loop().create_future()
        self._answers[order["n"]] = answer
        self.send(order)
        return await answer

    def expect_exit(self, number: int) -> asyncio.Future[int]:
        """The exit status of the command that is ordered with this number."""
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exits[number] = exited
        return exited

    def pid_of(self, number: int) -> int:
        """The command's pid on the host; 0 if it never started."""
        return self._pids.get(number, 0)

    def end_commands(self) -> None:
        """Give all running commands the exit status of SIGKILL."""
        for exited in self._exits.values():
            if not exited.done():
                exited.set_result(128 + signal.SIGKILL)
        self._exits.clear()

    # --- messages

    def _on_message(self, message: WardenMessage, descriptors: list[int]) -> None:
        match message["kind"]:
            case "attempt":
                self._listener.on_attempt(message["attempt"])
            case "failed":
                self._on_failed(message["why"])
            case "forward_ends":
                self._forward_ends += descriptors
                return
            case "ready":
                descriptors = [*self._forward_ends, *descriptors]
                self._forward_ends = []
                self._on_ready(message, descriptors)
            case "started":
                self._pids[message["n"]] = message["pid"]
            case "exited":
                exited = self._exits.pop(message["n"], None)
                if exited is not None and not exited.done():
                    exited.set_result(message["status"])
            case "proved" | "proof_failed" | "dialed" | "dial_failed" | "processes":
                answer = self._answers.pop(message["n"], None)
                if answer is not None and not answer.done():
                    # whoever asked owns the descriptors
                    answer.set_result((message, descriptors))
                    return
            case "ended":
                # the end of the channel follows
                pass
            case _:
                assert_never(message)
        for descriptor in descriptors:
            os.close(descriptor)

    def _on_ready(self, message: Ready, descriptors: list[int]) -> None:
        try:
            self._listener.on_ready(message, descriptors)
        except (EnvironmentFailed, OSError) as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            return
        if not self.ready.done():
            self.ready.set_result(message)

    def _on_failed(self, reason: str) -> None:
        text = f"environment {self._identity} could not be made: {reason}"
        _fail([self.ready], EnvironmentFailed("CR-SANDBOX-005", text))

    def _close_forward_ends(self) -> None:
        for descriptor in self._forward_ends:
            os.close(descriptor)
        self._forward_ends = []

    def _on_end(self) -> None:
        self._close_forward_ends()
        self.lost.set()
        self._listener.on_lost()
        failure = EnvironmentFailed("CR-SANDBOX-006", f"environment {self._identity} ended")
        _fail([self.ready, *self._answers.values(), *self._exits.values()], failure)
        self._answers.clear()
        self._exits.clear()


def _fail(pending: Iterable[asyncio.Future[Any]], failure: Exception) -> None:
    for future in pending:
        if not future.done():
            future.set_exception(failure)
            # its task may have been cancelled: mark the exception as retrieved
            future.exception()
