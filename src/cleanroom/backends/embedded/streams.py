"""The three streams of a command: pipes that the engine reads, or a terminal that it was given."""

from __future__ import annotations

import os
from typing import Protocol

from cleanroom.backends.base import OnOutput
from cleanroom.backends.embedded.pipes import OutputPipe


class CommandStreams(Protocol):
    """Standard input, output and error of one command."""

    def open(self) -> tuple[int, int, int]:
        """Open them; the descriptors stay ours."""

    def passed(self) -> None:
        """The command has its own descriptors by now, or will never have any."""

    async def wait_ended(self) -> None:
        """Wait until nobody writes any more."""

    def close(self) -> None:
        """Stop reading. Safe to call twice, and before `open`."""


class PipedStreams:
    """No input, and output that is passed to `on_output`."""

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output
        self._pipes: list[OutputPipe] = []
        self._input: int | None = None

    def open(self) -> tuple[int, int, int]:
        """Open the null device and two pipes."""
        out = OutputPipe(lambda chunk: self._on_output("stdout", chunk))
        self._pipes.append(out)
        err = OutputPipe(lambda chunk: self._on_output("stderr", chunk))
        self._pipes.append(err)
        self._input = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._input, out.write_end, err.write_end

    def passed(self) -> None:
        """Close our copies: the end of the last holder is the end of the output."""
        if self._input is not None:
            os.close(self._input)
            self._input = None
        for pipe in self._pipes:
            pipe.close_write_end()

    async def wait_ended(self) -> None:
        """Wait until the last process with a pipe has ended or closed it."""
        for pipe in self._pipes:
            await pipe.ended.wait()

    def close(self) -> None:
        """Close what is open."""
        self.passed()
        for pipe in self._pipes:
            pipe.close()


class TerminalStreams:
    """A pseudo-terminal of the caller's, who reads its other end."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal

    def open(self) -> tuple[int, int, int]:
        """Three times the same."""
        return self._terminal, self._terminal, self._terminal

    def passed(self) -> None:
        """Nothing: the descriptor is the caller's."""

    async def wait_ended(self) -> None:
        """Nothing: what else holds the terminal is the caller's to decide."""

    def close(self) -> None:
        """Nothing: the descriptor is the caller's."""
