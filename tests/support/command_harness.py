"""The real command on a real project: written, run in a process of its own, its answer read."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cleanroom
from cleanroom.sandbox.kernel import syscalls
from support.host_inventory import command, descendants, inventory

# ten times what is promised, since the machine that runs tests is busy: late is not left
GRACE_SECONDS = 1.0


class Answer(NamedTuple):
    """What the command said with `--output json`."""

    code: int
    result: dict[str, Any]
    err: str

    def phase(self, name: str) -> dict[str, Any]:
        return next(phase for phase in self.result["phases"] if phase["name"] == name)

    def violation(self, rule: str) -> dict[str, Any]:
        found = [violation for violation in self.result["violations"] if violation["rule"] == rule]
        assert found, f"no {rule} among {self.result['violations']}; {self.err[-1000:]}"
        return found[0]


class Project:
    """A project folder with a make.toml, and a home and cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.home = folder / "home"
        self.cache = folder / "cache"
        self.caller: dict[str, str] = {}  # further variables of the command's environment
        for made in (self.root, self.home, self.cache):
            made.mkdir()
        self._before = inventory()

    def write(self, phases: dict[str, str], **settings: Any) -> None:
        """Phases with their commands; `settings` are keys under `cleanroom` of every phase,
        in TOML.
        """
        lines = ["[project]", 'name = "attacked"', ""]
        for name, text in phases.items():
            lines += [f"[lifecycle.{name}]", f"command = {json.dumps(text)}"]
            lines += [f"cleanroom.{key} = {value}" for key, value in settings.items()] + [""]
        (self.root / "make.toml").write_text("\n".join(lines))

    def add(self, toml: str) -> None:
        """Further lines of the make.toml."""
        with (self.root / "make.toml").open("a") as file:
            file.write(toml)

    def variables(self) -> dict[str, str]:
        source = str(Path(cleanroom.__file__).parents[1])
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        kept["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [kept.get("PYTHONPATH", "")])])
        return kept | {
            "HOME": str(self.home),
            "CLEANROOM_CACHE": str(self.cache),
            "PLANTED_TOKEN": "planted-value",
            **self.caller,
        }

    def argv(self, *words: str, before: str = "") -> list[str]:
        code = (
            ["-c", f"{before}; from cleanroom.cli.main import main; main()"]
            if before
            else ["-m", "cleanroom"]
        )
        return [sys.executable, *code, *words]

    def started(self, *words: str, before: str = "", **options: Any) -> subprocess.Popen[bytes]:
        """Start the command and do not wait; in a session of its own,
        silent unless `options` of Popen say otherwise.
        """
        silent = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        return subprocess.Popen(
            self.argv(*words, before=before),
            cwd=self.root,
            env=self.variables(),
            start_new_session=True,
            **{**silent, **options},
        )

    def wait_running(self, run: subprocess.Popen[bytes], words: str) -> None:
        """Wait until a process below the run has these words in its command line:
        the phase has come so far.
        """
        until = time.monotonic() + 30
        while not any(words in command(pid) for pid in descendants(run.pid)):
            assert run.poll() is None, "the run has ended"
            assert time.monotonic() < until, f"nothing runs {words}"
            time.sleep(0.01)  # polling for what other processes do

    def left(self) -> dict[str, set[str]]:
        """What there is of this project's runs: processes and namespaces below this process,
        mounts, groups, folders.

        Empty where there is nothing.

        Processes whose parent has died count only where this process is a subreaper,
        as the fixture `project` makes it.
        """
        runs = {
            folder.name
            for kind in ("runs", "sessions")
            for folder in (self.root / ".ggen/cleanroom" / kind).glob("*")
        }
        there = inventory(*runs)
        found: dict[str, set[str]] = {
            kind: there[kind] - self._before.get(kind, set())
            for kind in ("processes", "namespaces", "groups")
        }
        found["mounts"] = {
            where for where in there["mounts"] if where.startswith(str(self.root.parent))
        }
        found["folders"] = {str(folder) for folder in (self.cache / "runs").glob("*")}
        return {kind: names for kind, names in found.items() if names}

    def settled(self) -> dict[str, set[str]]:
        """What is left once a second is over, or nothing as soon as there is nothing.

        For when the run has been waited for.
        """
        until = time.monotonic() + GRACE_SECONDS
        # as the host's init does: the first process of a pid namespace ends only when all others
        # have been waited for
        reap()
        while (rest := self.left()) and time.monotonic() < until:
            reap()
            time.sleep(0.02)  # polling for what other processes do
        return rest

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, and to the end of its streams, without a terminal."""
        return subprocess.run(
            self.argv(*words),
            cwd=self.root,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def call(self, *words: str, before: str = "") -> Answer:
        """Run the command to its end; `before` is Python that is run in its process first."""
        argv = self.argv(
            *words,
            "--output",
            "json",
            *(() if words[0] == "sweep" else ("--backend", "embedded")),
            before=before,
        )
        done = subprocess.run(
            argv,
            cwd=self.root,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return Answer(
            done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr
        )


# Answers each connection; is over its memory after it was sent an e, as long as it is let live.
EATER = """
import socket, time
server = socket.create_server(("127.0.0.1", 9100))
held = []
while True:
    end, _ = server.accept()
    if end.recv(1) == b"e":
        for _ in range(100):
            held.append(b"x" * (2 << 20))
            time.sleep(0.01)
        time.sleep(60)
    end.sendall(b"here")
    end.close()
"""
FEEDER = """
import socket, time
def ask(letter):
    try:
        with socket.create_connection(("eater", 9100)) as end:
            end.sendall(letter)
            return end.recv(4)
    except OSError:
        return b""
for letter in (b"e", b"e", b"e", b"a"):
    while ask(b"a") != b"here":
        time.sleep(0.01)
    ask(letter)
"""


def write_memory_hog(project: Project, phase: str) -> None:
    """A project whose one phase makes its one service go past its memory, three times,
    and waits until it is there again.
    """
    (project.root / "eater.py").write_text(EATER)
    (project.root / "feeder.py").write_text(FEEDER)
    project.write(
        {phase: "/usr/bin/python3 feeder.py"},
        containers='["eater"]',
        limits='{ memory = "512MiB" }',
    )
    project.add(
        f'[cleanroom]\nlimits = {{ memory = "128MiB" }}\n[cleanroom.services.eater]\n'
        f'command = ["/usr/bin/python3", "{project.root}/eater.py"]\nready = {{ tcp = 9100 }}\n'
    )


def reap() -> None:
    """Take the statuses of orphans that became this process's children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


@pytest.fixture
def project(open_tmp_path: Path) -> Iterator[Project]:
    """A project that an ordinary user may reach.

    Whatever its runs leave becomes a child of this process, and is ended with the test.
    """
    before = descendants(os.getpid())
    if sys.platform == "linux":
        syscalls.set_child_subreaper()
    yield Project(open_tmp_path)
    for pid in descendants(os.getpid()) - before:
        with contextlib.suppress(ProcessLookupError):  # it was just ending by itself
            os.kill(pid, signal.SIGKILL)
    reap()
