"""A stand-in for ggen under the test's control: a program called ggen that runs each line it is
given with `sh -c`, as the real one runs a phase's command.

The real binary is tried in `test_acceptance_ggen.py`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from support.command_harness import Project, reap
from support.host_inventory import command, descendants

# of a project whose servers are shared
SCHEMA = "CREATE TABLE item (n int); INSERT INTO item VALUES (1);\n"

GGEN = """\
#!/bin/sh
while read -r line; do
  sh -c "$line" </dev/null 2>>"$ERRORS"
  echo $?
done
"""


class Ggen:
    """One ggen process. Leaving it ends it as its own end of input would."""

    def __init__(self, project: Project, backend: str = "embedded") -> None:
        self.project = project
        self.backend = backend
        program = project.root.parent / "bin" / "ggen"
        if not program.exists():
            program.parent.mkdir()
            program.write_text(GGEN)
            program.chmod(0o755)
        self.errors = project.root.parent / "errors"
        self.process = subprocess.Popen(
            [str(program)],
            cwd=project.root,
            env=project.variables() | {"ERRORS": str(self.errors)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Ggen:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self.process.stdin.close()

    def begin(self, command: str) -> None:
        """Have a command started."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def ended(self) -> int:
        """Wait for its exit status."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def engine(self, phase: str, *options: str) -> str:
        """The command that runs a phase; its result goes to a file of the phase's name."""
        argv = self.project.argv(
            "run", phase, "--output", "json", "--backend", self.backend, *options
        )
        return f"{shlex.join(argv)} > {shlex.quote(str(self._answer(phase)))}"

    def run(self, phase: str, *options: str) -> dict[str, Any]:
        """Run a phase to its end; its result, with what it said under `err`."""
        self.errors.write_text("")
        self.begin(self.engine(phase, *options))
        self.ended()
        return self.answer(phase)

    def answer(self, phase: str) -> dict[str, Any]:
        text = self._answer(phase).read_text()
        assert text.strip(), self.errors.read_text()
        return json.loads(text) | {"err": self.errors.read_text()}

    def _answer(self, phase: str) -> Path:
        return self.project.root.parent / f"{phase}.json"


def shared_servers(project: Project) -> list[str]:
    """The sessions and pools that have a folder."""
    return sorted(
        folder.name
        for folder in (project.cache / "runs").glob("*-*-*")
        if folder.name.startswith(("session-", "pool-"))
    )


def shared_server_pid(project: Project) -> int:
    (only,) = shared_servers(project)
    return int((project.cache / "runs" / only / "owner").read_text().partition(":")[0])


def wait_for(path: Path, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.02)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def leftovers(project: Project) -> dict[str, set[str]]:
    """What is left once the sessions whose ggen has ended had their moment,
    which on a busy machine may be long: late is not left.
    """
    until = time.monotonic() + 20
    while shared_servers(project) and time.monotonic() < until:
        reap()
        time.sleep(0.02)  # polling for what other processes do
    return project.settled()


def wait_gone(pid: int) -> None:
    """Wait for the end of a process, which may be an orphan and so this process's child."""
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, f"process {pid} did not end"
        reap()
        time.sleep(0.02)  # polling for what other processes do


def wait_for_command(words: str) -> None:
    """Wait until a process below this one runs a command that begins so."""
    until = time.monotonic() + 20
    while not any(command(pid).startswith(words) for pid in descendants(os.getpid())):
        assert time.monotonic() < until, f"{words} did not begin"
        time.sleep(0.02)  # polling for what other processes do


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
