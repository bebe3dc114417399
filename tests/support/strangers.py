"""Projects of strangers through the real command, on the network of the package registries.

A project is a folder of `tests/fixtures/projects/`, written as strangers write them, or files that
a test has. `Stranger.passes()` is what is claimed of each: its phases pass from an empty store,
offline, and warm; its files stay as they are; no phase reaches a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cleanroom
from support import ecosystems_document
from support.paths import TESTS

PROJECTS = TESTS / "fixtures" / "projects"
PHASES = ("init", "build", "test", "validate")
# Caches of the machine's own package managers: a run from an empty store asks the registries.
OWN_CACHES = {"GOMODCACHE": "go", "npm_config_cache": "npm"}
# A notice with this tag: a program asked for the name service's daemon, as libc does.
RESOLVER = "resolver"
# Managers whose own tool downloads, in the fetch: the engine's downloads have none of that.
THEIR_OWN_DOWNLOADS = {"maven", "yarn"}
RUN_SECONDS = 400
WRITTEN = ("make.toml", ".gitignore")  # by `init`


class Ran(NamedTuple):
    """One run of a stranger's project."""

    result: dict[str, Any]  # what `--output json` prints
    events: list[dict[str, Any]]
    sets: list[dict[str, Any]]  # dependencies.json: what the phases could use
    err: str

    @property
    def fetched(self) -> dict[str, int]:
        """Manager -> how many files registries gave the engine."""
        counts: dict[str, int] = {}
        for event in self.events:
            if event["kind"] == "finished" and event["subject"]["kind"] == "fetch":
                manager = event["subject"]["name"].partition(" ")[0]
                counts[manager] = counts.get(manager, 0) + event["attributes"].get("fetched", 0)
        return counts

    def came(self, manager: str) -> bool:
        """Whether packages came from registries, where the caller has none of his own."""
        files = any(one["files"] for one in self.sets if one["manager"] == manager)
        return bool(self.fetched.get(manager)) or (manager in THEIR_OWN_DOWNLOADS and files)

    @property
    def network(self) -> list[str]:
        """The egress record of the phases: what they reached or tried."""
        opened = [
            f"{phase['name']}: has a network"
            for phase in self.result["phases"]
            if not phase["hermetic"]
        ]
        tried = [
            f"{row['phase']}: {row['action']} {row['rule']} {row['target']}"
            for row in (*self.result["violations"], *self.result["notices"])
            if row["dimension"] == "network" and RESOLVER not in row["tags"]
        ]
        return opened + tried


class Stranger:
    """A stranger's project in a place of its own, with an empty store."""

    def __init__(
        self, folder: Path, files: Mapping[str, str] | str, cache: Path | None = None
    ) -> None:
        """`files` are a name below `tests/fixtures/projects/`, or path -> text.

        A cache that is given is kept, but for the store of dependencies.
        """
        self.root = folder / "project"
        self.cache = cache or folder / "cache"
        shutil.rmtree(self.cache / "dependencies", ignore_errors=True)
        self._tracked: set[str] = set()
        self.caller = {name: str(folder / "own" / path) for name, path in OWN_CACHES.items()}
        self.backend = ""  # the engine's own choice
        if isinstance(files, str):
            shutil.copytree(PROJECTS / files, self.root)
        else:
            for name, text in files.items():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).write_text(text)

    def offer(self, program: Path) -> None:
        """Put a program on the caller's PATH, in a folder that has nothing else."""
        folder = self.root.parent / "tools"
        folder.mkdir(exist_ok=True)
        shutil.copy2(program, folder / program.name)
        self.offer_all(folder)

    def offer_all(self, folder: Path) -> None:
        """Put a folder of programs at the front of the caller's PATH."""
        path = self.caller.get("PATH", os.environ["PATH"])
        self.caller["PATH"] = f"{folder}:{path}"

    def prepare(self, command: str, folder: str = "") -> None:
        """Run a command as the project's authors did, such as one that writes its lock file."""
        subprocess.run(command, shell=True, cwd=self.root / folder, check=True, timeout=180)

    def begin(self, words: Sequence[str] = ()) -> None:
        """Make it a repository; `init` with these words writes a make.toml where there is none.

        No file of the project is changed but `.gitignore`.
        """
        if not (self.root / ".git").exists():
            self._git("init", "--quiet")
            self._git("add", "--all")
            self._tracked = set(self._git("ls-files", "-z").split("\0")) - {""}
        if (self.root / "make.toml").is_file():
            return
        before = self.files((".gitignore",))
        done = self.call("init", *words)
        assert done.returncode == 0, done.stderr
        after = self.files((".gitignore",))
        assert {name: after[name] for name in before} == before

    def uncomment(self, key: str, line: str) -> None:
        """Write this line where the make.toml that `init` wrote has the key as a comment."""
        path = self.root / "make.toml"
        text, count = re.subn(rf"^# {re.escape(key)} .*$", line, path.read_text(), flags=re.M)
        assert count == 1, text
        path.write_text(text)

    def add(self, toml: str) -> None:
        """Further lines of the make.toml."""
        with (self.root / "make.toml").open("a") as file:
            file.write(toml)

    def passes(
        self,
        phases: Sequence[str] = PHASES,
        *,
        init: Sequence[str] = (),
        made: Sequence[str] = (),
        anew: Sequence[str] = (),
    ) -> list[Ran]:
        """Its phases pass thrice: from an empty store, offline, and warm.

        `init` are further words of `init`, which writes the make.toml of a project without one;
        `made` are files of the project that its phases make anew.
        `anew` are files and folders that the phases make, removed before the next run.
        """
        self.begin(init)
        before = self.files(made)
        runs = [self.run(*phases)]
        for further in (("--offline",), ()):
            for name in anew:
                self.remove(name)
            runs.append(self.run(*phases, *further))
        for ran in runs:
            # one line for each workspace
            assert {one["name"] for one in ran.result["phases"]} == {*phases}
            assert ran.result["ledger"]["left"] == []
            assert ran.network == []
        assert [ran.fetched for ran in runs[1:]] == [{}, {}], "the store has all of it"
        assert self.files(made) == before
        for manager in {one["manager"] for one in runs[0].sets}:
            fetched = ["fetched"] if runs[0].came(manager) else []
            if not self.backend:
                who = "root" if os.geteuid() == 0 else "ordinary user"
                ecosystems_document.record(manager, "found", *fetched, "offline", who)
            elif fetched:
                ecosystems_document.record(manager, self.backend.capitalize())
        return runs

    def remove(self, name: str) -> None:
        """Remove a file or a folder that phases made in the project, if it is there."""
        path = self.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def run(self, *words: str) -> Ran:
        """`pipeline` with these words, which has to pass."""
        backend = ("--backend", self.backend) if self.backend else ()
        done = self.call("pipeline", *words, *backend, "--output", "json")
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
        result = json.loads(done.stdout)
        assert (result["outcome"], result["degraded"]) == ("passed", []), done.stderr
        folder = self.root / Path(result["reports"]["events"]).parent
        lines = (folder / "events.jsonl").read_text().splitlines()
        record = folder / "dependencies.json"
        sets = json.loads(record.read_text()) if record.exists() else []
        return Ran(result, [json.loads(line)["event"] for line in lines], sets, done.stderr)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command in the project."""
        return subprocess.run(
            [sys.executable, "-m", "cleanroom", *words],
            cwd=self.root,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            stdin=subprocess.DEVNULL,
        )

    def variables(self) -> dict[str, str]:
        """The caller's own variables, without those of the tests."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "CLEANROOM_", "GITHUB_", "PYTHON", "VIRTUAL_ENV"))
        }
        source = str(Path(cleanroom.__file__).parents[1])
        libraries = filter(None, [source, os.environ.get("PYTHONPATH", "")])
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(libraries),
            "CLEANROOM_CACHE": str(self.cache),
            **self.caller,
        }

    def files(self, made: Sequence[str] = ()) -> dict[str, str]:
        """Path -> digest of the project's files, and of what `init` writes."""
        names = sorted({*self._tracked, *WRITTEN} - {*made})
        paths = {name: self.root / name for name in names}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in paths.items()
            if path.is_file()
        }

    def _git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout


def uv_program() -> Path:
    """The one that the tests' own environment has, else that of PATH."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    return Path(found) if found else pytest.skip("uv is not installed")
