"""Commands in one environment: started by its warden with streams of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from cleanroom.backends.base import EnvironmentSpec, ExecResult
from cleanroom.backends.embedded.path_map import PathMap
from cleanroom.backends.embedded.spec import environment_user
from cleanroom.backends.embedded.streams import CommandStreams
from cleanroom.backends.embedded.warden_client import WardenClient
from cleanroom.model.errors import EnvironmentFailed

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Execute

# from SIGKILL to the warden's message: milliseconds, more on a machine that is out of memory
KILL_SECONDS = 3.0
# how long output is read after the command's end while another process holds its pipe
DRAIN_SECONDS = 0.5


class CommandRunner:
    """Runs commands in one environment."""

    def __init__(self, spec: EnvironmentSpec, warden: WardenClient) -> None:
        self._spec = spec
        self._warden = warden
        # without mounts: where paths inside lie on the host
        self.path_map = PathMap()
        # the limit that ended the command which runs, as its result has it
        self.killed_for = ""
        # SIGKILL inside had no effect, and the environment was killed from outside
        self.unresponsive = False

    async def run(
        self, argv: Sequence[str], streams: CommandStreams, *, timeout_seconds: float | None
    ) -> ExecResult:
        """Run a command and wait for its end, as `Environment.exec`."""
        began = time.monotonic()
        self.killed_for = ""
        number = self._warden.next_number()
        exited = self._warden.expect_exit(number)
        timed_out = False
        try:
            self._start(number, argv, streams)
            with anyio.move_on_after(timeout_seconds) as limit:
                status = await asyncio.shield(exited)
            if limit.cancelled_caught:
                timed_out = True
                status = await self._stop(number, exited)
            with anyio.move_on_after(DRAIN_SECONDS):
                await streams.wait_ended()
        except BaseException:
            with anyio.CancelScope(shield=True), contextlib.suppress(EnvironmentFailed):
                self._signal(number, signal.SIGKILL)
                with anyio.move_on_after(1):
                    await asyncio.shield(exited)
            raise
        finally:
            streams.close()
        return ExecResult(
            exit_code=status,
            duration_seconds=time.monotonic() - began,
            started_pid=self._warden.pid_of(number),
            timed_out=timed_out,
            killed_for=self.killed_for,
        )

    def _start(self, number: int, argv: Sequence[str], streams: CommandStreams) -> None:
        """Order the command, with its three streams."""
        stdin, stdout, stderr = streams.open()
        # Opening /dev/stdout inside checks the pipe's owner and mode like a file's.
        if os.geteuid() == 0:
            user = environment_user(self._spec.run_id)
            os.fchown(stdout, user, user)
            os.fchown(stderr, user, user)
        # A phase's command is the user's text, and runs as it is.
        is_phase = self._spec.role == "phase"
        try:
            order: Execute = {
                "op": "exec",
                "n": number,
                "argv": list(argv) if is_phase else self.path_map.translate_all(argv),
                "env": self.path_map.translate_values(self._spec.variables),
                "cwd": self.path_map.translate(self._spec.working_directory),
            }
            self._warden.send(order, [stdin, stdout, stderr])
        finally:
            streams.passed()

    async def _stop(self, number: int, exited: asyncio.Future[int]) -> int:
        """SIGTERM, the policy's grace, then SIGKILL.

        Where no process inside acts on it, as in a paused container, the environment is killed
        from outside.
        """
        self._signal(number, signal.SIGTERM)
        with anyio.move_on_after(self._spec.policy.limits.grace_seconds):
            return await asyncio.shield(exited)
        self._signal(number, signal.SIGKILL)
        with anyio.move_on_after(KILL_SECONDS):
            return await asyncio.shield(exited)
        self.unresponsive = True
        self._warden.send({"op": "kill"})
        exited.cancel()
        return 128 + signal.SIGKILL

    def _signal(self, number: int, signal_number: signal.Signals) -> None:
        self._warden.send({"op": "signal", "n": number, "signal": int(signal_number)})

    def on_lost(self) -> None:
        """The environment has ended: if a limit ended its commands, so did they."""
        if self.killed_for:
            self._warden.end_commands()
