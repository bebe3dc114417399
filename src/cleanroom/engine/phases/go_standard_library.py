"""Go's standard library, compiled once for each toolchain, below the build caches of all projects.

A phase has its project's own `.cache`, so the first `go build` of each project would compile the
standard library again, half a minute long.
A build cache that projects shared would let one of them plant what another executes.
So no project writes this one: the engine fills it, in an environment without any project and
without its settings, and shows it as the lowest layer of the homes of phases.

There is one for each owner of projects and each toolchain, in `CACHE/home-caches/go/OWNER/KEY/`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Mount, Stream
from cleanroom.core.files import is_file
from cleanroom.core.paths import is_within
from cleanroom.engine.phases.current_phase import CurrentPhase
from cleanroom.engine.phases.environment_spec import HOME, TEMPORARY, inside_path
from cleanroom.engine.phases.hidden_programs import words_of
from cleanroom.engine.phases.offline import switches
from cleanroom.engine.phases.prove import prove
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.events import Note, Subject
from cleanroom.model.policy import Level, default_policy

# Inside: where the cache is made.
WORK = "/var/lib/cleanroom-go"
BUILD_CACHE = "go-build"  # its name in a home's .cache
FILL_SECONDS = 300.0  # 25 s where two processors are idle
UNUSED_SECONDS = 30 * 86400.0  # after which a toolchain is taken to be gone
# `go` copies an entry whose time is older than an hour, and removes one after five days of no use.
# The last time that 32 bits can hold is neither, until then.
FUTURE = (1 << 31) - 1
# Words of a command that lead to `go`.
_STARTERS = frozenset({"go", "make", "just", "task", "mage"})
# A test of a module that imports all packages: `go test` needs more of each than `go build`.
_SCRIPT = r"""
set -e
mkdir "$TMPDIR/std" && cd "$TMPDIR/std"
printf 'module std.example\n\ngo 1.18\n' > go.mod
{
  printf 'package all\n\nimport (\n'
  go list std | grep -v -e internal -e vendor/ | sed 's/.*/_ "&"/'
  printf ')\n'
} > all_test.go
go test -count=1 .
"""


class GoToolchain(NamedTuple):
    """One installation of Go."""

    version: str
    key: str  # another for another compiler


def find_toolchain(search_path: str, root: str) -> GoToolchain | None:
    """The toolchain whose `go` a search finds first; None where it is none, or the project's.

    `root` is the project's folder.
    """
    found = shutil.which("go", path=search_path)
    if found is None:
        return None
    program = os.path.realpath(found)
    version_file = Path(program).parent.parent / "VERSION"
    if is_within(program, root) or is_within(program, os.path.realpath(root)):
        return None
    try:
        version = version_file.read_text(errors="replace")[:4096]
        stamps = [_stamp(program)]
    except OSError:
        return None
    if compiler := shutil.which("gcc", path=search_path):  # of cgo
        stamps.append(_stamp(os.path.realpath(compiler)))
    parts = [version, os.uname().machine, *stamps]
    key = hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
    return GoToolchain(version.partition("\n")[0][:40], key)


def _stamp(program: str) -> str:
    info = Path(program).stat()
    return f"{program}:{info.st_size}:{info.st_mtime_ns}"


class GoStandardLibrary:
    """Fills and finds the compiled standard library, for one run."""

    def __init__(self, context: RunContext, supervisor: Supervisor) -> None:
        self._context = context
        self._supervisor = supervisor
        self._filling = anyio.Lock()
        self._failed = False

    async def below(self, current: CurrentPhase, spec: EnvironmentSpec) -> EnvironmentSpec:
        """The phase's specification, with the standard library below its home's `.cache` where the
        phase has a use for it.

        Raises:
            PolicyRefused: a canary was not stopped in the environment that fills it.
        """
        possible = bool(self._context.home) and self._context.backend.layers_homes
        if not possible or self._failed:
            return spec
        planned = current.planned.path
        tools = self._context.plan.tools
        search_path = inside_path(self._context.caller.get("PATH", ""), tools)
        toolchain = await anyio.to_thread.run_sync(
            _toolchain_for, planned, self._context.plan.root, search_path
        )
        if toolchain is None:
            return spec
        async with self._filling:
            folder = await self._folder(current, spec, toolchain, search_path)
        return msgspec.structs.replace(spec, home_below=str(folder)) if folder else spec

    async def _folder(
        self, current: CurrentPhase, spec: EnvironmentSpec, toolchain: GoToolchain, path: str
    ) -> Path | None:
        """The filled folder; None where it is not worth it, or cannot be filled."""
        owner = await anyio.to_thread.run_sync(Path(current.planned.path).stat)
        caches = Path(self._context.home).parent / "go" / f"{owner.st_uid}-{owner.st_gid}"
        folder = caches / toolchain.key
        if await anyio.to_thread.run_sync(_is_filled, folder):
            return folder
        compiled = False
        if spec.home:
            compiled = await anyio.to_thread.run_sync(_has_build_cache, Path(spec.home))
        if compiled or _STARTERS.isdisjoint(words_of("\n".join(current.phase.commands))):
            return None
        text = (
            f"compiling the standard library of {toolchain.version} once: builds of all projects "
            "start from it"
        )
        self._note(current, text)
        work = self._context.scratch / "go"
        if not await self._fill(work, path):
            self._failed = True
            self._note(current, "Go's standard library could not be compiled beforehand")
            return None
        ids = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None
        await anyio.to_thread.run_sync(partial(_keep, work, folder, ids))
        return folder if await anyio.to_thread.run_sync(_is_filled, folder) else None

    async def _fill(self, work: Path, path: str) -> bool:
        """Compile it into `work`; False where that failed."""
        await anyio.to_thread.run_sync(partial(work.mkdir, mode=0o700))
        spec = self._spec(work, path)
        try:
            async with self._supervisor.environment(spec, of="go") as observed:
                await prove(self._context, observed)
                result = await observed.environment.exec(
                    ("sh", "-c", _SCRIPT), on_output=_ignore, timeout_seconds=FILL_SECONDS
                )
        except EnvironmentFailed:
            return False
        return result.ran and result.exit_code == 0 and not observed.violations

    def _spec(self, work: Path, path: str) -> EnvironmentSpec:
        """An environment that knows the caller's tools, and nothing of the project."""
        plan, policy = self._context.plan, default_policy(Level.MEDIUM)
        return EnvironmentSpec(
            id="go-standard-library",
            run_id=self._context.run_id,
            role="phase",
            policy=policy,
            variables={
                "PATH": path,
                "HOME": HOME,
                "LANG": "C.UTF-8",
                "TMPDIR": TEMPORARY,
                **switches(policy),
                **plan.tool_variables,
                "GOCACHE": f"{WORK}/{BUILD_CACHE}",
                "GOFLAGS": "",
                "GOWORK": "off",
            },
            working_directory=TEMPORARY,
            mounts=(
                *(Mount(source=tool, target=tool) for tool in plan.tools),
                Mount(source=str(work), target=WORK, writable=True),
            ),
            seed=plan.seed,
        )

    def _note(self, current: CurrentPhase, text: str) -> None:
        subject = Subject("run", self._context.plan.project)
        self._context.bus.publish(
            Note(subject=subject, level="info", text=text), current.span.context
        )


def _ignore(_stream: Stream, _data: bytes) -> None:
    """Its output is of no interest."""


def _toolchain_for(folder: str, root: str, search_path: str) -> GoToolchain | None:
    """The toolchain, where the folder is a module's or a workspace's."""
    if not any(is_file(Path(folder, name)) for name in ("go.mod", "go.work")):
        return None
    return find_toolchain(search_path, root)


def _is_filled(folder: Path) -> bool:
    """Whether it is there; its time says when it was used last."""
    try:
        os.utime(folder)
    except OSError:
        return False
    return True


def _has_build_cache(home: Path) -> bool:
    """Whether a layer of the project's own has one: it was compiled there already."""
    with suppress(OSError):
        return any(os.path.lexists(layer / BUILD_CACHE) for layer in home.iterdir())
    return False


def _keep(work: Path, folder: Path, owner: tuple[int, int] | None) -> None:
    """Move what was compiled to where it stays.

    The environment that filled it may have made anything, so no link is followed.
    """
    with suppress(OSError):
        for _, folders, files, held in os.fwalk(work, follow_symlinks=False):
            for name in (*folders, *files):
                _settle(name, held, owner)
        if owner is not None:
            os.chown(work, *owner)
        for parent in (folder.parent.parent, folder.parent):
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_unused(folder.parent)
        # Refused where another run was first.
        work.rename(folder)


def _settle(name: str, held: int, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.chown(name, *owner, dir_fd=held, follow_symlinks=False)
    if stat.S_ISREG(os.stat(name, dir_fd=held, follow_symlinks=False).st_mode):
        os.utime(name, (FUTURE, FUTURE), dir_fd=held, follow_symlinks=False)


def _remove_unused(caches: Path) -> None:
    """Remove those of toolchains that no run has used for long."""
    for entry in caches.iterdir():
        if time.time() - entry.lstat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
