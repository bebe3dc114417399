"""A backend whose environments are scripted: programs, delays, attempts,
samples and faults as data, nothing of the host touched.

Real where it matters to its callers: it keeps the whole protocol, delivers cancellation,
counts what it makes, and its workspaces have layers that are brought back to the project.
Without a script nothing runs, and every result says so (`ExecResult.ran`):
a run on it ends unverified.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath

import anyio
import anyio.lowlevel
import msgspec
from anyio.abc import ByteStream

from cleanroom.backends.base import (
    CONFLICTS,
    Change,
    EnvironmentSpec,
    ExecResult,
    Leftover,
    OnOutput,
    Stream,
    WorkspaceSpec,
    WrittenBack,
)
from cleanroom.core.beneath import Folder
from cleanroom.model.capability import (
    Attempt,
    Canary,
    CapabilityReport,
    DimensionReport,
    Missing,
    Sample,
)
from cleanroom.model.errors import CleanroomError, EnvironmentFailed
from cleanroom.model.policy import DIMENSIONS, Level

NO_SCRIPT = "the memory backend has no script: nothing runs on it and nothing is enforced"
SIGKILLED, SIGTERMED, NOT_FOUND = 137, 143, 127

Program = Callable[["Inside"], Awaitable[int]]  # returns its exit status; killed by cancellation
Answer = Callable[[], Awaitable[ByteStream]]  # what `dial` finds; OSError: nobody listens


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Fail the nth call of an operation ("*": of any), once or from then on."""

    operation: str = "*"
    nth: int
    error: Exception
    for_good: bool = False


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What happens in the environments of one backend."""

    # by the text after `sh -c`, or by the words of the command joined with blanks
    programs: Mapping[str, Program] = {}
    otherwise: Program | None = None  # for other commands; None: they are not found (127)
    canaries: tuple[Canary, ...] = tuple(
        Canary(
            name=f"memory-{dimension}",
            dimension=dimension,
            rule=rule,
            expected="refused",
            found="refused by the script",
            result="passed",
        )
        for dimension, rule in zip(
            DIMENSIONS,
            ("network.egress", "filesystem.write", "process.privileges", "resource.memory"),
            strict=True,
        )
    )
    samples: tuple[Sample, ...] = ()  # given in turn; the last one is repeated
    dials: Mapping[str, Answer] = {}  # by "unix:/path" or "tcp:PORT"
    missing: tuple[Missing, ...] = ()
    levels: Mapping[str, tuple[Missing, ...]] = {}
    faults: tuple[Fault, ...] = ()
    delays: Mapping[str, float] = {}  # operation -> seconds
    left: tuple[Leftover, ...] = ()  # what the ledger claims to be left at the end


class Inside:
    """What a program sees of its environment, and what it can do there."""

    def __init__(
        self, environment: MemoryEnvironment, argv: Sequence[str], on_output: OnOutput
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
        self.environment._attempts.append(
            msgspec.structs.replace(attempt, environment=self.environment.id)
        )
        self.environment._news.set()

    def leave(self, name: str) -> None:
        """Leave a process running."""
        self.environment._leftovers.append(Leftover(kind="process", name=name))

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


class MemoryWorkspace:
    """Layers of files over the project's folder; None in a layer is a deletion."""

    def __init__(self, backend: MemoryBackend, spec: WorkspaceSpec) -> None:
        self._backend = backend
        self.root = spec.root
        self.unchangeable: tuple[str, ...] = ()
        self.unseen: tuple[str, ...] = ()
        self.upper: dict[str, bytes | None] = {}
        self._lower: dict[str, bytes | None] = {}
        self._began_ns = time.time_ns()
        self._ours: dict[str, int] = {}  # path -> ctime of our last write

    def read(self, path: str) -> bytes | None:
        for layer in (self.upper, self._lower):
            if path in layer:
                return layer[path]
        file = Path(self.root, path)
        return file.read_bytes() if file.is_file() else None

    def fresh_layer(self) -> None:
        """What the next environment does lies above what earlier ones did."""
        self._lower |= self.upper
        self.upper = {}

    async def finish_home(self, keep: bool) -> None:
        """Its homes keep nothing."""

    async def changes(self, tools: Sequence[str] = ()) -> tuple[Change, ...]:
        await self._backend._call("changes")
        return tuple(
            Change(path=path, kind="deleted")
            if data is None
            else Change(path=path, kind="file", bytes=len(data))
            for path, data in sorted(self.upper.items())
        )

    async def write_back(
        self, paths: Sequence[str] | None, run: Folder, conflicts: str = CONFLICTS
    ) -> WrittenBack:
        await self._backend._call("write_back")
        chosen = [
            p
            for p in sorted(self.upper)
            if (
                p in paths
                if paths is not None
                else PurePosixPath(p).parts[0] not in (".git", ".ggen")
            )
        ]
        conflicting = [path for path in chosen if self._changed_on_host(path)]
        files, size, deleted = 0, 0, 0
        for path in chosen:
            data = self.upper[path]
            if path in conflicting:
                if data is not None:
                    _write(run.path / conflicts / path, data)
                continue
            _write(Path(self.root, path), data)
            if data is None:
                deleted += 1
            else:
                files, size = files + 1, size + len(data)
                self._ours[path] = _changed_ns(Path(self.root, path))
        unremoved = tuple(path for path in conflicting if self.upper[path] is None)
        return WrittenBack(
            files=files,
            bytes=size,
            deleted=deleted,
            conflicts=tuple(conflicting),
            unkept=unremoved,
            unremoved=unremoved,
        )

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        self._began_ns = ended_ns

    async def save_changes(self, run: Folder, inside: str) -> None:
        await self._backend._call("save_changes")
        for path, data in self.upper.items():
            if data is not None:
                _write(run.path / inside / path, data)

    def _changed_on_host(self, path: str) -> bool:
        file = Path(self.root, path)
        if not file.exists():
            return False
        changed = _changed_ns(file)
        return changed > self._began_ns and changed != self._ours.get(path)


def _changed_ns(file: Path) -> int:
    return file.lstat().st_ctime_ns


def _write(file: Path, data: bytes | None) -> None:
    if data is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


class MemoryEnvironment:
    """One environment; its processes are tasks of whoever calls `exec`."""

    def __init__(
        self, backend: MemoryBackend, spec: EnvironmentSpec, workspace: MemoryWorkspace | None
    ) -> None:
        self._backend = backend
        self.id = spec.id
        self.spec = spec
        self.workspace = workspace
        self.private: dict[str, bytes] = {}  # files outside the workspace
        self._attempts: deque[Attempt] = deque()
        self._leftovers: list[Leftover] = []
        self._news = anyio.Event()
        self._running: set[anyio.CancelScope] = set()
        self._ended = False

    async def prove(self) -> tuple[Canary, ...]:
        await self._backend._call("prove")
        return self._backend.script.canaries if self._backend.script else ()

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult:
        await self._backend._call("exec")
        self._backend.executed.append((self.id, tuple(argv)))
        if self._ended:
            raise EnvironmentFailed("CR-ENV-001", f"environment {self.id!r} has ended")
        if self._backend.script is None:
            return ExecResult(exit_code=NOT_FOUND, duration_seconds=0.0, ran=False)
        began = anyio.current_time()
        status, inside = NOT_FOUND, Inside(self, argv, on_output)
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
        assert self._backend.script is not None
        known = self._backend.script.programs
        text = argv[2] if tuple(argv[:2]) == ("sh", "-c") else " ".join(argv)
        return known.get(text) or self._backend.script.otherwise or succeed(exit_code=NOT_FOUND)

    async def attempts(self) -> AsyncIterator[Attempt]:
        await self._backend._call("attempts")
        while self._attempts or not self._ended:
            if self._attempts:
                yield self._attempts.popleft()
            else:
                self._news = anyio.Event()
                await self._news.wait()

    async def dial(self, to: str) -> ByteStream:
        await self._backend._call("dial")
        if self._backend.script is None or to not in self._backend.script.dials:
            raise ConnectionRefusedError(f"nobody listens at {to}")
        return await self._backend.script.dials[to]()

    def admit(self, listening: socket.socket, to: str) -> None:
        """Nobody is led anywhere: what is scripted is reached through `dial`."""

    def dismiss(self, listening: socket.socket) -> None:
        """Nothing: no socket was taken."""

    async def sample(self, *, last: bool = False) -> Sample | None:
        await self._backend._call("sample")
        return self._backend._next_sample()

    async def left_over(self) -> tuple[Leftover, ...]:
        await self._backend._call("left_over")
        return tuple(self._leftovers)

    async def kill(self) -> None:
        await self._backend._call("kill")
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._leftovers.clear()
        self._news.set()
        for scope in list(self._running):
            scope.cancel()


class MemoryBackend:
    """Environments by script. `calls` and `executed` tell what was asked of it, in order."""

    name = "memory"
    shows_host = True
    forwards_elsewhere = False

    def __init__(
        self,
        script: Script | None = None,
        on_call: Callable[[str, int], None] = lambda operation, number: None,
    ) -> None:
        self.script = script
        self.calls: list[str] = []
        self.executed: list[tuple[str, tuple[str, ...]]] = []
        self._on_call = on_call
        self._workspaces: dict[str, MemoryWorkspace] = {}
        self._alive: list[Leftover] = []
        self._created = self._removed = self._sampled = 0

    async def __aenter__(self) -> MemoryBackend:
        await self._call("enter")
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._call("exit")

    async def probe(self, level: Level) -> CapabilityReport:
        await self._call("probe")
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
        await self._call("folder")
        path.mkdir(parents=True, exist_ok=True)
        return self._make("folder", str(path))

    async def drop_folder(self, thing: Leftover) -> None:
        await self._call("drop_folder")
        shutil.rmtree(thing.name, ignore_errors=True)
        with suppress(OSError):
            # the run's own folder, when this was the last one in it
            Path(thing.name).parent.rmdir()
        self._remove(thing)

    @asynccontextmanager
    async def workspace(self, spec: WorkspaceSpec) -> AsyncIterator[MemoryWorkspace]:
        await self._call("workspace")
        workspace = MemoryWorkspace(self, spec)
        thing = self._make("folder", spec.root)
        self._workspaces[spec.root] = workspace
        try:
            yield workspace
        finally:
            self._workspaces.pop(spec.root, None)
            self._remove(thing)

    @asynccontextmanager
    async def environment(self, spec: EnvironmentSpec) -> AsyncIterator[MemoryEnvironment]:
        await self._call("environment")
        workspace = self._workspaces.get(spec.workspace.root) if spec.workspace else None
        if workspace:
            workspace.fresh_layer()
        environment = MemoryEnvironment(self, spec, workspace)
        thing = self._make("process", spec.id)
        try:
            yield environment
        finally:
            environment._end()
            self._remove(thing)
            with anyio.CancelScope(shield=True):
                await self._call("leave")

    def forward_elsewhere(self, environment: str, admit: Callable[[str, int], None]) -> None:
        """Nothing: this backend forwards no ports."""

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        await self._call("ledger")
        return (
            self._created,
            self._removed,
            (*self._alive, *(self.script.left if self.script else ())),
        )

    def _make(self, kind: str, name: str) -> Leftover:
        thing = Leftover(kind=kind, name=name)
        self._created += 1
        self._alive.append(thing)
        return thing

    def _remove(self, thing: Leftover) -> None:
        self._alive.remove(thing)
        self._removed += 1

    def _next_sample(self) -> Sample | None:
        samples = self.script.samples if self.script else ()
        if not samples:
            return None
        self._sampled += 1
        return samples[min(self._sampled, len(samples)) - 1]

    def _count(self, wanted: str, operation: str) -> int:
        """How often what a fault waits for was called, this call of `operation` included."""
        if wanted == "*":
            return len(self.calls)
        return self.calls.count(operation) if wanted == operation else 0

    async def _call(self, operation: str) -> None:
        """Count the call, let the script delay or fail it. Every call can be cancelled here."""
        self.calls.append(operation)
        self._on_call(operation, len(self.calls))
        if self.script is not None:
            if operation in self.script.delays:
                await anyio.sleep(self.script.delays[operation])
            for fault in self.script.faults:
                count = self._count(fault.operation, operation)
                if count == fault.nth or (fault.for_good and count > fault.nth):
                    raise fault.error
        await anyio.lowlevel.checkpoint()


def broken(text: str = "the script says so") -> CleanroomError:
    """An error as a backend translates it."""
    return EnvironmentFailed("CR-ENV-002", text, hint="see the run's log")
