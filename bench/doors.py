"""The public doors through which benchmarks reach the engine:
the command, and an environment of a backend.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import BenchmarkFailed
from cleanroom.backends.base import Backend, Environment, EnvironmentSpec, Mount, WorkspaceSpec
from cleanroom.backends.registry import make
from cleanroom.core.files import hold
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.journal import Journal

ENGINE = (sys.executable, "-P", "-m", "cleanroom")
TAIL = 2_000  # of what a failed command said
# The interpreter itself and not a virtual environment's link to it: it is what both sides run.
PYTHON = str(
    Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
)
VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/cleanroom", "LC_ALL": "C.UTF-8"}


def caller(cache: Path) -> dict[str, str]:
    """The environment of a measured command: the caller's, with a cache of its own,
    outside of any run, bytecode kept as users have it.
    """
    dropped = ("CLEANROOM", "PYTHONDONTWRITEBYTECODE", "TRACEPARENT")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | {
        "CLEANROOM_CACHE": str(cache)
    }


def timed(argv: Sequence[str], folder: Path, variables: dict[str, str]) -> tuple[float, str]:
    """Wall seconds of a command that must succeed, and its output.

    Raises:
        BenchmarkFailed: it did not.
    """
    began = time.perf_counter()
    done = subprocess.run(
        argv,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise BenchmarkFailed(
            f"{' '.join(argv)}: exit status {done.returncode}\n"
            f"{done.stdout[-TAIL:]}{done.stderr[-TAIL:]}"
        )
    return seconds, done.stdout


def pipeline(folder: Path, phases: Sequence[str], cache: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds of `cleanroom-engine pipeline`, from start to exit, and its result."""
    seconds, said = timed([*ENGINE, "pipeline", *phases, "--output", "json"], folder, caller(cache))
    result = json.loads(said)
    if result["outcome"] != "passed":
        raise BenchmarkFailed(f"pipeline {' '.join(phases)}: {result['outcome']}")
    return seconds, result


class Sandbox:
    """An entered backend and a project for its environments, at policy Medium."""

    def __init__(self, backend: Backend, folder: Path, image: str) -> None:
        self._backend = backend
        self._folder = folder
        self._number = 0
        mounts = (
            ()
            if PYTHON.startswith("/usr/")
            else (Mount(source=sys.base_prefix, target=sys.base_prefix),)
        )
        self._workspace = WorkspaceSpec(
            root=str(folder / "project"),
            scratch=str(folder / "cache" / "runs" / "bench" / "workspace"),
        )
        self._spec = {
            "run_id": "bench",
            "role": "phase",
            "policy": default_policy(Level.MEDIUM),
            "variables": VARIABLES,
            "mounts": mounts,
            "working_directory": self._workspace.root,
            "workspace": self._workspace,
            "image": image,
        }

    @asynccontextmanager
    async def environment(self, *, held: bool = True) -> AsyncIterator[Environment]:
        """A fresh one, on a layer of its own.

        Without `held` it is a service's, of which no call is held:
        the same namespaces, Landlock and overlay.
        """
        self._number += 1
        spec = self._spec | {"id": f"bench-{self._number}", "role": "phase" if held else "service"}
        async with self._backend.environment(EnvironmentSpec(**spec)) as environment:  # type: ignore[arg-type]
            yield environment

    async def settled(self) -> None:
        """Wait until nothing of what was left is still being removed."""
        await self._backend.ledger()

    @asynccontextmanager
    async def stack(self) -> AsyncIterator[None]:
        """A workspace for some environments; its layers go when it is left,
        so that they do not pile up over a benchmark.
        """
        async with self._backend.workspace(self._workspace):
            yield


@asynccontextmanager
async def sandbox(
    folder: Path, backend: str = "embedded", image: str = ""
) -> AsyncIterator[Sandbox]:
    """A backend with `folder/project` as the project."""
    (folder / "project").mkdir(exist_ok=True)
    scratch = folder / "cache" / "runs" / "bench"
    with hold(folder) as held:
        journal = partial(Journal.at, held, f"{backend}.journal.jsonl")
        async with make(
            backend, run_id="bench", scratch=scratch, journal=journal, cache=folder / "cache"
        ) as made:
            yield Sandbox(made, folder, image)


async def inside(environment: Environment, command: str) -> float:
    """Wall seconds of `sh -c` in an environment, until its end is known and its output read."""
    said: list[bytes] = []
    began = time.perf_counter()
    done = await environment.exec(
        ("sh", "-c", command), on_output=lambda _, piece: said.append(piece)
    )
    seconds = time.perf_counter() - began
    if done.exit_code:
        raise BenchmarkFailed(
            f"{command}: exit status {done.exit_code} in the sandbox\n"
            f"{b''.join(said)[-TAIL:].decode(errors='replace')}"
        )
    return seconds


def bare(folder: Path, command: str) -> float:
    """Wall seconds of the same `sh -c` without the engine."""
    return timed(("sh", "-c", command), folder, VARIABLES)[0]


def needed(program: str) -> None:
    """Refuse to go on without a program of the workload: nothing else measures the same.

    Raises:
        BenchmarkFailed: it is not on PATH.
    """
    if shutil.which(program) is None:
        raise BenchmarkFailed(f"{program}: not found on PATH, and the workload needs it")
