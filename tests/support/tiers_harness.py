"""What the tests of the lower tiers share: environments without namespaces, made on purpose,
and runs on what looks like another kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from cleanroom.backends.base import EnvironmentSpec, Workspace, WorkspaceSpec
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.model.capability import Attempt
from cleanroom.model.policy import Level, default_policy
from support.open_folders import journal_at
from support.paths import OLDER_KERNEL

RUN_ID = f"tiers{os.getpid()}"
VARIABLES = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/home/cleanroom",
    "TMPDIR": "/tmp",
    "LC_ALL": "C.UTF-8",
}
RUN_SECONDS = 100


class CommandResult(NamedTuple):
    """How a command in an environment ended."""

    status: int
    out: str


class HostnsEnvironment:
    """One environment without namespaces, entered."""

    def __init__(
        self, environment: EmbeddedEnvironment, workspace: Workspace, backend: EmbeddedBackend
    ) -> None:
        self.environment, self.workspace, self.backend = environment, workspace, backend
        self.attempts: list[Attempt] = []

    async def sh(self, command: str, seconds: float = 30.0) -> CommandResult:
        heard = bytearray()
        result = await self.environment.exec(
            ("sh", "-c", command),
            on_output=lambda _, data: heard.extend(data),
            timeout_seconds=seconds,
        )
        return CommandResult(result.exit_code, heard.decode(errors="replace"))

    async def python(self, code: str) -> Any:
        """What `code` prints, which is one line of JSON."""
        said = await self.sh(
            f"exec python3 -c {json.dumps(code)!s}"
            if "'" not in code and "\n" not in code
            else f"python3 - <<'END'\n{code}\nEND"
        )
        assert said.status == 0, said.out
        return json.loads(said.out.splitlines()[-1])

    def targets(self, rule: str) -> list[str]:
        return [
            str(attempt.target)
            for attempt in self.attempts
            if attempt.rule == rule and attempt.outcome == "blocked"
        ]


@asynccontextmanager
async def hostns_environment(
    project: Path, folder: Path, **changes: Any
) -> AsyncIterator[HostnsEnvironment]:
    """An environment of `project` without namespaces, wherever the test runs.

    What it does to the ledger is looked at in the end.
    """
    workspace_spec = WorkspaceSpec(
        root=str(project), scratch=str(folder / "cache/runs/t/workspace")
    )
    given = {
        "id": "phase",
        "run_id": RUN_ID,
        "role": "phase",
        "policy": default_policy(Level.MEDIUM),
        "variables": VARIABLES,
        "working_directory": str(project),
        "workspace": workspace_spec,
    }
    backend = EmbeddedBackend(RUN_ID, folder / "cache/runs/t", journal_at(folder / "journal.jsonl"))
    async with backend:
        await backend.probe(Level.MEDIUM)
        backend.use_host_namespaces()
        async with (
            backend.workspace(workspace_spec) as workspace,
            anyio.create_task_group() as tasks,
        ):
            async with backend.environment(EnvironmentSpec(**(given | changes))) as environment:
                place = HostnsEnvironment(environment, workspace, backend)

                async def hear() -> None:
                    async for attempt in environment.attempts():
                        place.attempts.append(attempt)

                tasks.start_soon(hear)
                yield place
            with anyio.move_on_after(5):
                while not environment.has_ended:
                    await anyio.sleep(0.01)
    assert (await backend.ledger())[2] == ()


def on_older_kernel(
    names: str, *command: str, cwd: Path, cache: Path, seconds: float = RUN_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a command where these are missing; with "" where nothing is."""
    words = [sys.executable, str(OLDER_KERNEL), names, "--", *command] if names else list(command)
    return subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | {"CLEANROOM_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def engine(names: str, *arguments: str, cwd: Path, cache: Path) -> tuple[int, dict[str, Any], str]:
    """Exit status, result and progress of the engine there."""
    done = on_older_kernel(
        names,
        sys.executable,
        "-m",
        "cleanroom",
        *arguments,
        "--output",
        "json",
        cwd=cwd,
        cache=cache,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return (
        done.returncode,
        json.loads(done.stdout) if done.stdout.startswith("{") else {},
        done.stderr,
    )


def processes(marker: str) -> list[int]:
    """Living processes with this word among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker.encode() in words and state not in "ZX":
                found.append(int(name))
    return found


def wait_until(there: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it came true; on a busy machine a while is long."""
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
