"""Programs of scripted environments, and what they see and can do inside."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Leftover, OnOutput, Stream
from cleanroom.backends.memory.workspace import MemoryWorkspace
from cleanroom.model.capability import Attempt

# returns its exit status; killed by cancellation
Program = Callable[["Inside"], Awaitable[int]]


class EnvironmentState:
    """What programs read and change in one environment."""

    def __init__(self, spec: EnvironmentSpec, workspace: MemoryWorkspace | None) -> None:
        self.id = spec.id
        self.spec = spec
        self.workspace = workspace
        # files outside the workspace
        self.private: dict[str, bytes] = {}
        # attempts that nobody has read yet, and the event that is set with each
        self.attempts: deque[Attempt] = deque()
        self.attempted = anyio.Event()
        # processes that outlive their commands, and the time at which each ends by itself
        self.leftovers: list[tuple[Leftover, float]] = []


class Inside:
    """What a program sees of its environment, and what it can do there."""

    def __init__(
        self, environment: EnvironmentState, argv: Sequence[str], on_output: OnOutput
    ) -> None:
        self.environment = environment
        self.argv = tuple(argv)
        self.variables = dict(environment.spec.variables)
        self.working_directory = environment.spec.working_directory
        self.killed_for = ""  # what limit ended it, as the result will say
        self._on_output = on_output

    def write(self, data: bytes, stream: Stream = "stdout") -> None:
        self._on_output(stream, data)

    def attempt(self, attempt: Attempt) -> None:
        """Try what the policy forbids; it is blocked and seen."""
        self.environment.attempts.append(
            msgspec.structs.replace(attempt, environment=self.environment.id)
        )
        self.environment.attempted.set()

    def leave(self, name: str, seconds: float = math.inf) -> None:
        """Leave a process running that ends by itself after so long."""
        ends = anyio.current_time() + seconds
        self.environment.leftovers.append((Leftover(kind="process", name=name), ends))

    def read_file(self, path: str) -> bytes | None:
        return self._layers().read(path)

    def write_file(self, path: str, data: bytes) -> None:
        self._layers().upper[path] = data

    def delete_file(self, path: str) -> None:
        self._layers().upper[path] = None

    def _layers(self) -> MemoryWorkspace:
        workspace = self.environment.workspace
        assert workspace is not None, "the environment has no workspace"
        return workspace


def succeed(
    output: bytes = b"",
    *,
    seconds: float = 0.0,
    exit_code: int = 0,
    files: Mapping[str, bytes] | None = None,
) -> Program:
    """A program that takes its time, says something, writes files and ends."""

    async def program(inside: Inside) -> int:
        if output:
            inside.write(output)
        for path, data in (files or {}).items():
            inside.write_file(path, data)
        await anyio.sleep(seconds)
        return exit_code

    return program


async def forever(inside: Inside) -> int:
    """A server: runs until it is killed."""
    await anyio.sleep_forever()
    return 0
