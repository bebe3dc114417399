"""Helpers for tests of programs that use the engine: short plans, runs in memory, and the suite
that every backend must pass.

`run_plan` makes no thread and touches only a temporary folder,
so it runs in virtual time too (`@pytest.mark.looptime`: an hour's timeout is instant).
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec

from cleanroom.backends.memory.backend import MemoryBackend
from cleanroom.backends.memory.programs import Inside, Program, forever, succeed
from cleanroom.backends.memory.script import Fault, Script
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus
from cleanroom.core.clock import LoopClock
from cleanroom.core.redaction import Redactor
from cleanroom.engine.own_folder import RunFolders
from cleanroom.engine.run import Run
from cleanroom.engine.run_settings import (
    CachePlaces,
    RunHooks,
    RunPlaces,
    RunSettings,
    ServiceRecipes,
)
from cleanroom.engine.run_subscribers import wait_until_idle
from cleanroom.engine.supervision.context import Pauser
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.result import RunResult
from cleanroom.model.events import Envelope
from cleanroom.model.plan import PhaseRun, Plan
from cleanroom.model.plan import Workspace as PlannedWorkspace
from cleanroom.model.policy import Level, default_policy
from cleanroom.services import Recipe
from cleanroom.subscribers import monitor, recovery
from cleanroom.testing.checks import CHECK_RUN_ID, CHECKS, Bench, Check, check_backend
from cleanroom.testing.script import CHECK_SCRIPT, egress_attempt

__all__ = [
    "CHECKS",
    "CHECK_RUN_ID",
    "CHECK_SCRIPT",
    "Bench",
    "Check",
    "Fault",
    "Inside",
    "MemoryBackend",
    "Outcome",
    "Program",
    "Script",
    "check_backend",
    "egress_attempt",
    "forever",
    "phase",
    "plan",
    "run_plan",
    "succeed",
]

EVENTS_MAX = 1_000_000  # of one run: a test that needs more has lost control of itself


class Outcome(NamedTuple):
    """The result of a run, and all its events."""

    result: RunResult
    events: tuple[Envelope, ...]
    run: Run


def phase(name: str, *commands: str, **fields: Any) -> PhaseRun:
    """A phase at Medium that runs these commands within ten minutes,
    unless `fields` say otherwise.
    """
    return PhaseRun(
        **{
            "name": name,
            "commands": commands,
            "policy": default_policy(Level.MEDIUM),
            "timeout_seconds": 600.0,
            **fields,
        }
    )


def plan(*phases: PhaseRun, root: str = "", **fields: Any) -> Plan:
    """A plan of one workspace on the memory backend.

    Without `root`, `run_plan` uses a temporary folder.
    """
    given = {
        "project": "demo",
        "root": root,
        "file": "make.toml",
        "dialect": "A",
        "environment": "",
        "backend": "memory",
        "policy": default_policy(Level.MEDIUM),
        "requested": tuple(phase.name for phase in phases),
        "workspaces": (PlannedWorkspace(name="", path=root, phases=phases),),
    }
    return Plan(**{**given, **fields})


async def run_plan(
    plan: Plan,
    backend: MemoryBackend | None = None,
    *,
    recipes: Sequence[Recipe] = (),
    caller: Mapping[str, str] | None = None,
    started: Callable[[Run], None] = lambda run: None,
    pauser: Pauser | None = None,
) -> Outcome:
    """Run a plan on the memory backend, with monitor and recovery, without files of evidence.

    `started` is called with the run before it begins; `pauser` decides about phases that fail.
    """
    with (
        ExitStack() as held_folders,
        tempfile.TemporaryDirectory(prefix="cleanroom-test-") as folder,
    ):
        there = Path(folder)
        if not plan.root:
            project = there / "project"
            project.mkdir()
            workspaces = tuple(
                msgspec.structs.replace(w, path=w.path or str(project)) for w in plan.workspaces
            )
            plan = msgspec.structs.replace(plan, root=str(project), workspaces=workspaces)
        held = held_folders.enter_context(Folder.at(there))
        cache = CachePlaces(
            cache=there, scratch=there / "scratch", templates=there / "templates", homes=None
        )
        places = RunPlaces(Path(plan.root), RunFolders(held, held, held, held), cache)
        bus = Bus("run-1", LoopClock())
        received = bus.subscribe("test", limit=EVENTS_MAX)
        used = backend or MemoryBackend(Script(otherwise=succeed()))
        settings = RunSettings(
            plan=plan,
            places=places,
            caller=caller or {"PATH": "/usr/bin:/bin"},
            services=ServiceRecipes(tuple(recipes)),
            pauser=pauser,
        )
        run = Run(settings, RunHooks(lambda name: used), bus, Redactor())
        started(run)
        seen = [
            bus.subscribe("monitor", monitor.READS, limit=EVENTS_MAX),
            bus.subscribe("recovery", recovery.READS, limit=EVENTS_MAX),
        ]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_run_shielded, partial(monitor.run, seen[0], bus))
            tasks.start_soon(
                _run_shielded, partial(recovery.run, seen[1], run.send, seed=plan.seed)
            )
            try:
                await run.run_in_span(_NoLogs(there))
            finally:
                with anyio.CancelScope(shield=True):
                    await wait_until_idle(seen)
                    bus.close()
        events = tuple(await received.batch())
        return Outcome(fold(events), events, run)


async def _run_shielded(work: Callable[[], Awaitable[None]]) -> None:
    """Run a subscriber to its end, also when the run that it observes is cancelled."""
    with anyio.CancelScope(shield=True):
        await work()


class _NoLogs:
    """Log files that discard their content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        """Discard the data: tests read the events."""

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.log"
