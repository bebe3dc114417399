"""Environments of the memory backend: their processes are tasks of whoever calls `exec`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence

import anyio
from anyio.abc import ByteStream

from cleanroom.backends.base import EnvironmentSpec, ExecResult, Leftover, OnOutput
from cleanroom.backends.memory.calls import Calls
from cleanroom.backends.memory.programs import EnvironmentState, Inside, Program, succeed
from cleanroom.backends.memory.workspace import MemoryWorkspace
from cleanroom.model.capability import Attempt, Canary, Sample
from cleanroom.model.errors import EnvironmentFailed

SIGTERMED, NOT_FOUND = 143, 127


class MemoryEnvironment:
    """One environment; its processes are tasks of whoever calls `exec`."""

    def __init__(
        self, calls: Calls, spec: EnvironmentSpec, workspace: MemoryWorkspace | None
    ) -> None:
        self._calls = calls
        self.id = spec.id
        self._state = EnvironmentState(spec, workspace)
        self._running: set[anyio.CancelScope] = set()
        self._ended = False

    async def prove(self) -> tuple[Canary, ...]:
        await self._calls.call("prove")
        return self._calls.script.canaries if self._calls.script else ()

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: OnOutput,
        timeout_seconds: float | None = None,
        terminal: int | None = None,
    ) -> ExecResult:
        await self._calls.call("exec")
        self._calls.executed.append((self.id, tuple(argv)))
        if self._ended:
            raise EnvironmentFailed("CR-ENV-001", f"environment {self.id!r} has ended")
        if self._calls.script is None:
            return ExecResult(exit_code=NOT_FOUND, duration_seconds=0.0, ran=False)
        began = anyio.current_time()
        status, inside = NOT_FOUND, Inside(self._state, argv, on_output)
        with anyio.move_on_after(timeout_seconds) as scope:
            self._running.add(scope)
            try:
                status = await self._program(argv)(inside)
            finally:
                self._running.discard(scope)
        if self._ended:
            raise EnvironmentFailed(
                "CR-ENV-001", f"environment {self.id!r} ended while {argv[-1]!r} ran"
            )
        timed_out = scope.cancelled_caught
        return ExecResult(
            exit_code=SIGTERMED if timed_out else status,
            duration_seconds=anyio.current_time() - began,
            timed_out=timed_out,
            killed_for=inside.killed_for,
        )

    def _program(self, argv: Sequence[str]) -> Program:
        assert self._calls.script is not None
        known = self._calls.script.programs
        text = argv[2] if tuple(argv[:2]) == ("sh", "-c") else " ".join(argv)
        return known.get(text) or self._calls.script.otherwise or succeed(exit_code=NOT_FOUND)

    async def attempts(self) -> AsyncIterator[Attempt]:
        await self._calls.call("attempts")
        state = self._state
        while state.attempts or not self._ended:
            if state.attempts:
                yield state.attempts.popleft()
            else:
                state.attempted = anyio.Event()
                await state.attempted.wait()

    async def dial(self, to: str) -> ByteStream:
        await self._calls.call("dial")
        if self._calls.script is None or to not in self._calls.script.dials:
            raise ConnectionRefusedError(f"nobody listens at {to}")
        return await self._calls.script.dials[to]()

    def forward(self, listening: socket.socket, to: str) -> None:
        """Nothing: scripted services are reached by `dial`."""

    def stop_forwarding(self, listening: socket.socket) -> None:
        """Nothing: no socket was taken."""

    async def sample(self, *, last: bool = False) -> Sample | None:
        await self._calls.call("sample")
        return self._calls.next_sample()

    async def left_over(self) -> tuple[Leftover, ...]:
        await self._calls.call("left_over")
        now = anyio.current_time()
        return tuple(leftover for leftover, ends in self._state.leftovers if now < ends)

    async def kill(self) -> None:
        await self._calls.call("kill")
        self.end()

    def end(self) -> None:
        """End its programs at once."""
        self._ended = True
        self._state.leftovers.clear()
        self._state.attempted.set()
        for scope in list(self._running):
            scope.cancel()
