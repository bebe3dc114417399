"""One run of a service: its environment, its main command, readiness and health."""

from __future__ import annotations

from contextlib import ExitStack

import anyio
from anyio.abc import TaskGroup

from cleanroom.backends.base import Environment, Stream
from cleanroom.core.bus import Span
from cleanroom.engine.supervision import service_errors
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver, ObservedEnvironment
from cleanroom.engine.supervision.output import OutputPump
from cleanroom.engine.supervision.service import MainCommand, Service
from cleanroom.engine.supervision.service_data import ServiceData
from cleanroom.engine.supervision.service_spec import service_spec
from cleanroom.model.errors import (
    CleanroomError,
    EnvironmentFailed,
    PolicyRefused,
    ProjectError,
)
from cleanroom.model.events import Subject
from cleanroom.services.probe import is_ready

# between questions for readiness: a server from cache answers within tens of ms
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.001, 0.025
UNANSWERED_MAX = 3  # health probes in a row: one may fall into a checkpoint or a fork
STOP_SECONDS = 5.0  # for one service to end; killing one takes tens of ms


class ServiceRunner:
    """Runs services, each once when asked. Whether one is restarted is decided elsewhere."""

    def __init__(
        self,
        context: RunContext,
        observer: EnvironmentObserver,
        data: ServiceData,
        tasks: TaskGroup,
    ) -> None:
        self._context = context
        self._bus = context.bus
        self._observer = observer
        self._data = data
        self._tasks = tasks

    async def run_once(self, service: Service) -> None:
        """Run the service until it ends, as one span.

        How it ended is in the span, where recovery reads it.
        """
        service.scope, service.ended, service.running = anyio.CancelScope(), anyio.Event(), True
        attributes = _attributes(service)
        try:
            with service.scope, self._bus.span(service.subject, attributes) as span:
                service.begin_run(span.context, self._bus.clock.wall_ns())
                try:
                    with ExitStack() as starting:
                        readiness = starting.enter_context(
                            self._bus.detached_span(Subject("readiness", service.recipe.name))
                        )
                        await self._run_in_environment(service, span, readiness, starting)
                except CleanroomError as error:
                    _record_failure(service, span, error)
                    await self._data.renew_damaged(service)
                except anyio.get_cancelled_exc_class():
                    # A service ends well by being stopped.
                    span.result, span.reason = "passed", ""
                    raise
        finally:
            service.running = False
            service.change(opened=False)
            service.ended.set()

    async def stop(self, service: Service) -> None:
        """End its current run, and wait until it has ended."""
        if service.running:
            service.scope.cancel()
            await service.ended.wait()

    async def _run_in_environment(
        self, service: Service, span: Span, readiness: Span, starting: ExitStack
    ) -> None:
        """Make the environment, start the main command in it, and stay until one of them ends.

        Ends only by an exception, or where nothing runs. `starting` ends `readiness`.
        """
        pump = self._context.pump(service.subject, service.log, span.context)
        main = MainCommand()
        try:
            await self._data.make(service, pump)
            async with self._observer.environment(
                service_spec(self._context, service), of=service.recipe.name
            ) as observed:
                service.change(opened=True)
                self._tasks.start_soon(self._run_main, service, observed.environment, main, pump)
                main.started = True
                try:
                    with starting:
                        answers = await self._become_ready(service, observed.environment, main)
                        if not answers:
                            readiness.result = "unverified"
                            service.set_idle()
                    if answers:
                        await self._monitor_health(service, observed, main)
                except EnvironmentFailed:
                    if not observed.ended_for:
                        raise
                    raise service_errors.ended_by_command(service, observed.ended_for) from None
            if main.ran_nothing:
                span.result, span.reason = "unverified", "the backend runs nothing"
        finally:
            if main.started:
                with anyio.move_on_after(STOP_SECONDS, shield=True):
                    await main.ended.wait()
            pump.end()

    async def _run_main(
        self, service: Service, environment: Environment, main: MainCommand, pump: OutputPump
    ) -> None:
        def take_output(stream: Stream, data: bytes) -> None:
            pump.feed(stream, data)
            service.take_output(data)

        service.output.clear()
        try:
            main.result = await environment.exec(service.recipe.main, on_output=take_output)
        except EnvironmentFailed:
            pass  # the readers of `main` see that it ended
        finally:
            main.ended.set()

    async def _become_ready(
        self, service: Service, environment: Environment, main: MainCommand
    ) -> bool:
        """Ask until it answers. False where the backend runs nothing."""
        recipe, pause, asked = service.recipe, FIRST_PAUSE_SECONDS, 0
        question = recipe.first_probe or recipe.probe
        with anyio.move_on_after(recipe.start_timeout_seconds) as limit:
            while True:
                if main.ended.is_set():
                    if main.ran_nothing:
                        return False
                    raise service_errors.ended_before_ready(service, main, self._log_path(service))
                asked += 1
                if await is_ready(question, environment, bytes(service.output)):
                    break
                with anyio.move_on_after(pause):
                    await main.ended.wait()
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if limit.cancelled_caught:
            raise service_errors.not_ready(service, asked, self._log_path(service))
        return True

    async def _monitor_health(
        self, service: Service, observed: ObservedEnvironment, main: MainCommand
    ) -> None:
        """Report the service as ready, and probe its health until it ends.

        Raises:
            ServiceFailed: it ended, or stopped answering.
        """
        recipe = service.recipe
        service.environment = observed.environment
        for listening, to in service.listening:
            observed.environment.forward(listening, to)
        service.change(ready=True)
        unanswered = 0
        while unanswered < UNANSWERED_MAX:
            with anyio.move_on_after(recipe.health_seconds or None):
                await main.ended.wait()
            if main.ended.is_set():
                if observed.ended_for:
                    raise service_errors.ended_by_command(service, observed.ended_for)
                raise service_errors.ended_by_itself(service, main, self._log_path(service))
            answers = await is_ready(recipe.probe, observed.environment, bytes(service.output))
            unanswered = 0 if answers else unanswered + 1
        raise service_errors.stopped_answering(service, unanswered, self._log_path(service))

    def _log_path(self, service: Service) -> str:
        return self._context.log_path(service.log)


def _attributes(service: Service) -> dict[str, str | int | float | bool]:
    """The attributes of the span of a run."""
    recipe = service.recipe
    return {
        "version": recipe.version,
        "kind": recipe.kind,
        "port": recipe.port,
        "restarts_max": recipe.restarts_max,
        "restart_window_seconds": recipe.restart_window_seconds,
        "log": service.log,
        "server_sha256": recipe.server_sha256,
    }


def _record_failure(service: Service, span: Span, error: CleanroomError) -> None:
    service.last_error = error
    span.result, span.reason, span.code = "failed", str(error), error.code
    if error.hint:
        span.attributes["hint"] = error.hint
    if isinstance(error, PolicyRefused | ProjectError):
        service.change(failure=error)  # another try would end the same way
