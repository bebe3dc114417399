"""Commands of phases that run on the host: plain processes, each ended as a process group.

Nothing here is isolated.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import anyio
from anyio.abc import ByteReceiveStream, Process

from cleanroom.backends.base import ExecResult, OnOutput, Stream
from cleanroom.engine.own_writes import tell_anything
from cleanroom.model.errors import BackendUnavailable

DRAIN_SECONDS = 1.0  # for output that is still in the pipes after the group has ended


class HostCommands:
    """Runs commands with the given variables in the given folder."""

    def __init__(
        self, variables: Mapping[str, str], working_directory: str, grace_seconds: float
    ) -> None:
        self._variables = dict(variables)
        self._working_directory = working_directory
        self._grace_seconds = grace_seconds

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult:
        """Run a command as `Environment.exec` does.

        Afterwards the rest of its process group is killed.

        Raises:
            BackendUnavailable: the command cannot be started.
        """
        began = anyio.current_time()
        tell_anything()
        try:
            process = await anyio.open_process(
                argv,
                stdin=subprocess.DEVNULL,
                env=self._variables,
                cwd=self._working_directory,
                start_new_session=True,
            )
        except OSError as error:
            raise BackendUnavailable(
                "CR-HOST-001",
                f"cannot start {argv[0]!r} in {self._working_directory}: {error.strerror or error}",
            ) from error
        timed_out = False
        try:
            async with anyio.create_task_group() as readers:
                assert process.stdout is not None, "asked for a pipe"
                assert process.stderr is not None, "asked for a pipe"
                readers.start_soon(_read, "stdout", process.stdout, on_output)
                readers.start_soon(_read, "stderr", process.stderr, on_output)
                timed_out = await self._wait(process, timeout_seconds)
                _signal_group(process, signal.SIGKILL)
                readers.cancel_scope.deadline = anyio.current_time() + DRAIN_SECONDS
        finally:
            with anyio.CancelScope(shield=True):
                _signal_group(process, signal.SIGKILL)
                await process.wait()
                await process.aclose()
        status = process.returncode or 0
        return ExecResult(
            exit_code=128 - status if status < 0 else status,
            duration_seconds=anyio.current_time() - began,
            started_pid=process.pid,
            timed_out=timed_out,
        )

    async def _wait(self, process: Process, timeout_seconds: float | None) -> bool:
        """Wait for its end. True where that took SIGTERM or, after the grace, SIGKILL."""
        with anyio.move_on_after(timeout_seconds) as limit:
            await process.wait()
        if not limit.cancelled_caught:
            return False
        _signal_group(process, signal.SIGTERM)
        with anyio.move_on_after(self._grace_seconds):
            await process.wait()
        _signal_group(process, signal.SIGKILL)
        await process.wait()
        return True


async def _read(name: Stream, stream: ByteReceiveStream, on_output: OnOutput) -> None:
    async for data in stream:
        on_output(name, data)


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
