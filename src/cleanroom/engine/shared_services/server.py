"""The server of shared services: a process that supervises services for all runs that join it,
until its owner ends or no run has used it for long.

Its own evidence, the events of its services and their output,
lies under the project's `.ggen/cleanroom/sessions/ID`.
It has a backend and a keeper of its own, so that what it made is gone however it ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends import registry
from cleanroom.backends.base import Backend
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.clock import SystemClock
from cleanroom.core.files import LineWriter, LogFiles
from cleanroom.core.redaction import Redactor
from cleanroom.engine.own_folder import SESSIONS, check_own_folders, check_writable, own_folder
from cleanroom.engine.sealed import seal
from cleanroom.engine.shared_services.ancestry import wait_ended
from cleanroom.engine.shared_services.discovery import CONFIG_FILE, ServerConfig
from cleanroom.engine.shared_services.joined_runs import JoinedRuns, ServerContext
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Finished,
    Note,
    Recovery,
    Started,
    Violation,
    encode_lines,
)
from cleanroom.model.plan import BackendName, Plan
from cleanroom.sandbox.journal import Journal
from cleanroom.sandbox.kernel import syscalls
from cleanroom.services import TemplateCache
from cleanroom.subscribers import monitor, recovery

# not Output, which has its log, nor Metric: a pool lives for days
WRITTEN = (Started, Finished, Violation, Assertion, Recovery, Artifact, Note)
FORWARDED = (Recovery, Violation)  # they concern every run that uses the service
EVENTS_MAX = 200_000  # that may wait for one subscriber
IDLE_CHECK_SECONDS = 0.5  # how exact the end of idle time is

MakeBackend = Callable[[str, Folder], Backend]


def main(folder: str) -> None:
    """Entry point of the process. Standard input is the listening socket."""
    os.setsid()
    syscalls.set_process_name("cleanroom-hold")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal's, which are meant for its runs
    listening = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    config = msgspec.json.decode(Path(folder, CONFIG_FILE).read_bytes(), type=ServerConfig)
    make_backend = partial(_make_backend, config, Path(folder))
    anyio.run(SharedServer(config, Path(folder), listening, make_backend).serve)


def _make_backend(config: ServerConfig, folder: Path, identity: str, evidence: Folder) -> Backend:
    return registry.make(
        config.backend,
        run_id=identity,
        scratch=folder,
        journal=partial(Journal.at, evidence),
        cache=config.cache,
        caller=config.caller,
    )


class SharedServer:
    """Opens what the services need in order, serves until its end, and closes in reverse."""

    def __init__(
        self,
        config: ServerConfig,
        folder: Path,
        listening: socket.socket,
        make_backend: MakeBackend,
    ) -> None:
        """`folder` is the server's own in the cache; its name is the server's id.

        `make_backend` takes the id and the folder of the server's evidence.
        """
        self._config = config
        self._folder = folder
        self._listening = listening
        self._make_backend = make_backend
        self._redactor = Redactor()
        self._ended = anyio.Event()
        self._kept = False  # although its owner ends
        self._started_unix_ns = SystemClock().wall_ns()

    @property
    def _id(self) -> str:
        return self._folder.name

    def end(self) -> None:
        """End the server. Does not wait for that."""
        self._ended.set()

    def keep(self) -> None:
        """Outlive the owner, unless that is in the foreground."""
        self._kept = not self._config.foreground

    async def serve(self) -> None:
        """Serve until the owner ends, no run has used it for long, or it is told to end."""
        with Folder.at(Path(self._config.root), inherit_owner=True) as root:
            check_own_folders(root)
            check_writable(root)
            evidence = own_folder(root, f"{SESSIONS}/{self._id}")
        with evidence, evidence.folder("logs", make=True) as place, LogFiles(place) as logs:
            async with self._make_backend(self._id, evidence) as backend:
                data = self._folder / "data"
                resource = await backend.folder(data)
                context = RunContext(
                    run_id=self._id,
                    plan=_plan(self._config),
                    bus=Bus(self._id, SystemClock(), redactor=self._redactor),
                    backend=backend,
                    logs=logs,
                    redactor=self._redactor,
                    caller={},
                    scratch=data,
                    folder=evidence,
                )
                try:
                    await self._run_subscribers(context)
                finally:
                    with anyio.CancelScope(shield=True):
                        await backend.drop_folder(resource)

    async def _run_subscribers(self, context: RunContext) -> None:
        """Run the services beside the subscribers of their events; the bus closes last."""
        bus = context.bus
        log = bus.subscribe("log", WRITTEN, limit=EVENTS_MAX)
        monitored = bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT)
        recovered = bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT)
        forwarded = bus.subscribe("repeater", FORWARDED, limit=EVENTS_MAX)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_write_events, log, context.folder)
            tasks.start_soon(monitor.run, monitored, bus)
            try:
                cache = TemplateCache(Path(self._config.templates))
                async with supervise(context, (), cache) as supervisor:
                    tasks.start_soon(
                        partial(recovery.run, recovered, supervisor.send, seed=self._config.seed)
                    )
                    # Before the first answer: the run's phases may write where our code lies.
                    await anyio.to_thread.run_sync(seal, (self._config.root,))
                    async with anyio.create_task_group() as serving:
                        runs = JoinedRuns(self._server_context(context, supervisor, serving))
                        tasks.start_soon(runs.forward_events, forwarded)
                        self._listen(runs, serving)
                        await self._ended.wait()
                        serving.cancel_scope.cancel()
            finally:
                bus.close()

    def _server_context(
        self, context: RunContext, supervisor: Supervisor, tasks: TaskGroup
    ) -> ServerContext:
        return ServerContext(
            id=self._id,
            folder=str(self._folder),
            config=self._config,
            context=context,
            redactor=self._redactor,
            supervisor=supervisor,
            tasks=tasks,
            started_unix_ns=self._started_unix_ns,
            end=self.end,
            keep=self.keep,
        )

    def _listen(self, runs: JoinedRuns, tasks: TaskGroup) -> None:
        """Take connections from now on, and watch for reasons to end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end)
        self._listening.setblocking(False)
        loop.add_reader(self._listening.fileno(), runs.accept, self._listening)
        if self._config.owner:
            tasks.start_soon(self._end_with_owner)
        if self._config.idle_seconds:
            tasks.start_soon(self._end_when_idle, runs)

    async def _end_with_owner(self) -> None:
        await wait_ended(self._config.owner)
        if not self._kept:
            self.end()

    async def _end_when_idle(self, runs: JoinedRuns) -> None:
        await wait_idle(self._config.idle_seconds, lambda: runs.in_use)
        self.end()


async def wait_idle(seconds: float, in_use: Callable[[], bool]) -> None:
    """Wait until nothing has been in use for so long, with an error of `IDLE_CHECK_SECONDS`."""
    last_used = anyio.current_time()
    while (left := last_used + seconds - anyio.current_time()) > 0:
        await anyio.sleep(min(left, IDLE_CHECK_SECONDS))
        if in_use():
            last_used = anyio.current_time()


def _plan(config: ServerConfig) -> Plan:
    """A plan with the settings that services read, and without phases."""
    return Plan(
        project=config.project,
        root=config.root,
        file="",
        dialect="A",
        environment="",
        backend=cast(BackendName, config.backend),
        policy=config.policy,
        requested=(),
        workspaces=(),
        seed=config.seed,
    )


async def _write_events(inbox: Subscription, evidence: Folder) -> None:
    async with LineWriter(evidence, "events.jsonl") as log:
        while batch := await inbox.batch():
            await log.write(encode_lines(batch))
