"""The real command on a real project: written, run in a process of its own, its answer read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cleanroom


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
        for made in (self.root, self.home, self.cache):
            made.mkdir()

    def write(self, phases: dict[str, str], **settings: Any) -> None:
        """Phases with their commands; `settings` are keys under `cleanroom` of every phase, in TOML."""
        lines = ["[project]", 'name = "attacked"', ""]
        for name, command in phases.items():
            lines += [f"[lifecycle.{name}]", f"command = {json.dumps(command)}"]
            lines += [f"cleanroom.{key} = {value}" for key, value in settings.items()] + [""]
        (self.root / "make.toml").write_text("\n".join(lines))

    def variables(self) -> dict[str, str]:
        source = str(Path(cleanroom.__file__).parents[1])
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        kept["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [kept.get("PYTHONPATH", "")])])
        return kept | {"HOME": str(self.home), "CLEANROOM_CACHE": str(self.cache), "PLANTED_TOKEN": "planted-value"}

    def argv(self, *words: str, before: str = "") -> list[str]:
        code = ["-c", f"{before}; from cleanroom.cli.main import main; main()"] if before else ["-m", "cleanroom"]
        return [sys.executable, *code, *words]

    def call(self, *words: str, before: str = "") -> Answer:
        """Run the command to its end; `before` is Python that is run in its process first."""
        argv = self.argv(*words, "--output", "json", "--backend", "embedded", before=before)
        done = subprocess.run(
            argv, cwd=self.root, env=self.variables(), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
        )
        return Answer(done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}, done.stderr)
