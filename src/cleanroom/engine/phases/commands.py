"""Running a phase's commands, one after the other, each as a span."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Protocol

import anyio

from cleanroom.backends.base import ExecResult, OnOutput
from cleanroom.engine.phases.current_phase import CurrentPhase, log_name
from cleanroom.engine.supervision.context import RunContext
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.events import Result, Subject

KILLED = 128 + signal.SIGKILL  # the exit status of a command that ended with its environment


class CommandExecutor(Protocol):
    """An environment or the host, as far as commands run there."""

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult: ...


async def run_commands(
    context: RunContext,
    current: CurrentPhase,
    executor: CommandExecutor,
    results: list[ExecResult],
) -> None:
    """Run the phase's commands in order until one fails, within the phase's time.

    The end of each is appended to `results` at once, also when this is cancelled.

    Raises:
        EnvironmentFailed: the environment ended under a command.
        CleanroomError: a command cannot be started.
    """
    phase, span = current.phase, current.span
    deadline = anyio.current_time() + phase.timeout_seconds
    pump = context.pump(current.subject, log_name(phase, current.planned), span.context)
    try:
        for number, command in enumerate(phase.commands, 1):
            subject = Subject("command", f"{phase.name}#{number}", current.planned.name)
            began = anyio.current_time()
            with context.bus.span(subject, {"command": command}) as step:
                time_left = max(0.0, deadline - anyio.current_time())
                try:
                    result = await executor.exec(
                        ("sh", "-c", command), on_output=pump.feed, timeout_seconds=time_left
                    )
                except (EnvironmentFailed, anyio.get_cancelled_exc_class()):
                    # It was killed from outside: with its environment, or because the run ends.
                    step.exit_code = span.exit_code = KILLED
                    duration = anyio.current_time() - began
                    results.append(ExecResult(exit_code=KILLED, duration_seconds=duration))
                    raise
                results.append(result)
                step.exit_code = span.exit_code = result.exit_code if result.ran else None
                step.result = _result_of(result)
                step.attributes["pid"] = result.started_pid
            if result.ran and (result.exit_code or result.timed_out):
                return
    finally:
        pump.end()


def _result_of(command: ExecResult) -> Result:
    if not command.ran:
        return "unverified"
    if command.timed_out:
        return "timeout"
    return "failed" if command.exit_code else "passed"
