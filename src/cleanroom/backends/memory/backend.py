"""The memory backend."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Leftover, WorkspaceSpec
from cleanroom.backends.memory.calls import Calls
from cleanroom.backends.memory.environment import MemoryEnvironment
from cleanroom.backends.memory.script import Script
from cleanroom.backends.memory.workspace import MemoryWorkspace
from cleanroom.model.capability import CapabilityReport, DimensionReport
from cleanroom.model.policy import DIMENSIONS, Level

NO_SCRIPT = "the memory backend has no script: nothing runs on it and nothing is enforced"


class MemoryBackend:
    """Environments by script. `calls` and `executed` list what was called, in order."""

    name = "memory"
    shows_host = True
    layers_homes = False
    forwards_elsewhere = False
    runs_programs = False

    def __init__(
        self,
        script: Script | None = None,
        on_call: Callable[[str, int], None] = lambda operation, number: None,
    ) -> None:
        """`on_call` gets each operation's name, and how many there were with it."""
        self.script = script
        self._calls = Calls(script, on_call)
        self.calls = self._calls.operations
        self.executed = self._calls.executed
        self._workspaces: dict[str, MemoryWorkspace] = {}
        self._alive: list[Leftover] = []
        self._created = self._removed = 0

    async def __aenter__(self) -> MemoryBackend:
        await self._calls.call("enter")
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._calls.call("exit")

    async def probe(self, level: Level) -> CapabilityReport:
        await self._calls.call("probe")
        script = self.script
        extent: dict[str, str] = dict.fromkeys(
            ("enforced", "detected", "attributed"), "yes" if script else "no"
        )
        rows = [
            msgspec.convert(
                {
                    "dimension": dimension,
                    "mechanism": "script" if script else "none",
                    "evidence": NO_SCRIPT if script is None else "",
                    **extent,
                },
                DimensionReport,
            )
            for dimension in DIMENSIONS
        ]
        return CapabilityReport(
            backend="memory",
            tier="memory",
            dimensions=tuple(rows),
            notes=("scripted: enforces nothing on this machine",) if script else (NO_SCRIPT,),
            missing=script.missing if script else (),
            levels=dict(script.levels) if script else {},
        )

    async def folder(self, path: Path) -> Leftover:
        await self._calls.call("folder")
        path.mkdir(parents=True, exist_ok=True)
        return self._make("folder", str(path))

    async def drop_folder(self, thing: Leftover) -> None:
        await self._calls.call("drop_folder")
        shutil.rmtree(thing.name, ignore_errors=True)
        with suppress(OSError):
            # the run's own folder, when this was the last one in it
            Path(thing.name).parent.rmdir()
        self._remove(thing)

    @asynccontextmanager
    async def workspace(self, spec: WorkspaceSpec) -> AsyncIterator[MemoryWorkspace]:
        await self._calls.call("workspace")
        workspace = MemoryWorkspace(self._calls.call, spec)
        resource = self._make("folder", spec.root)
        self._workspaces[spec.root] = workspace
        try:
            yield workspace
        finally:
            self._workspaces.pop(spec.root, None)
            self._remove(resource)

    @asynccontextmanager
    async def environment(self, spec: EnvironmentSpec) -> AsyncIterator[MemoryEnvironment]:
        await self._calls.call("environment")
        workspace = self._workspaces.get(spec.workspace.root) if spec.workspace else None
        if workspace:
            workspace.fresh_layer()
        environment = MemoryEnvironment(self._calls, spec, workspace)
        resource = self._make("process", spec.id)
        try:
            yield environment
        finally:
            environment.end()
            self._remove(resource)
            with anyio.CancelScope(shield=True):
                await self._calls.call("leave")

    def forward_elsewhere(self, environment: str, forward: Callable[[str, int], None]) -> None:
        """Nothing: this backend forwards no ports."""

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        await self._calls.call("ledger")
        return (
            self._created,
            self._removed,
            (*self._alive, *(self.script.left if self.script else ())),
        )

    def _make(self, kind: str, name: str) -> Leftover:
        resource = Leftover(kind=kind, name=name)
        self._created += 1
        self._alive.append(resource)
        return resource

    def _remove(self, resource: Leftover) -> None:
        self._alive.remove(resource)
        self._removed += 1
