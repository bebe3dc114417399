"""A project beside a registry that lies: the command, and what the registry was asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from support.lying_registry import Answer, make_certificates
from support.paths import ROOT


class Said(NamedTuple):
    """What the command said, and what the server was asked so far: "LOGIN PATH" each."""

    code: int
    out: str
    err: str
    requests: list[str]


class RegistryProject:
    """A project below a folder that is its caller's home, and a registry for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = folder / "server"
        self._server.mkdir()
        make_certificates(self._server)

    def call(
        self,
        answers: Mapping[str, Answer],
        files: Mapping[str, str],
        *words: str,
        **variables: str,
    ) -> Said:
        """The command in the project with these files, beside a server with these answers."""
        project = self._folder / "project"
        project.mkdir(exist_ok=True)
        for name, text in files.items():
            (project / name).write_text(text)
        (self._server / "answers").write_text(json.dumps(answers))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "PYTHONPATH": str(ROOT / "tests"),
            "CLEANROOM_CACHE": str(self._folder / "cache"),
            "SSL_CERT_FILE": str(self._server / "certificate.pem"),
            **variables,
        }
        registry = ["support.lying_registry", str(self._server / "answers"), str(self._server)]
        done = subprocess.run(
            [sys.executable, "-m", *registry, sys.executable, "-m", "cleanroom", *words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
        )
        log = self._server / "requests"
        requests = log.read_text().splitlines() if log.exists() else []
        return Said(done.returncode, done.stdout, done.stderr, requests)
