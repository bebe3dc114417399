"""The embedded backend for tests, entered inside the test (a task group must not outlive a
fixture's yield).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cleanroom.backends.base import EnvironmentSpec, WorkspaceSpec
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.model.policy import Level, default_policy
from support import backends_document
from support.embedded_harness import RUN_ID, Entered, Phase
from support.open_folders import journal_at

outcomes: dict[tuple[str, str], str] = {}  # (backend, check) -> how it ended in this session


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how each check of the suite of all backends ended, for `docs/backends.md`."""
    backend, check = backends_document.named(report.nodeid)
    if check and (report.when == "call" or report.outcome != "passed"):
        outcomes[backend, check] = report.outcome


def pytest_sessionfinish() -> None:
    """With GOLDEN=write a session that ran the whole suite on every backend writes its table."""
    if os.environ.get("GOLDEN") == "write" and "PYTEST_XDIST_WORKER" not in os.environ:
        backends_document.write(outcomes)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("as it was\n")
    return root


@pytest.fixture
def entered(tmp_path: Path) -> Entered:
    @asynccontextmanager
    async def enter() -> AsyncIterator[EmbeddedBackend]:
        async with EmbeddedBackend(
            RUN_ID, tmp_path / "cache/runs/t", journal_at(tmp_path / "journal.jsonl")
        ) as backend:
            yield backend

    return enter


@pytest.fixture
def phase(project: Path, tmp_path: Path) -> Phase:
    def spec(identity: str = "phase", **changes: object) -> EnvironmentSpec:
        given = {
            "id": identity,
            "run_id": RUN_ID,
            "role": "phase",
            "policy": default_policy(Level.MEDIUM),
            "working_directory": str(project),
            "variables": {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": "/home/cleanroom",
                "LC_ALL": "C.UTF-8",
            },
            "workspace": workspace(project, tmp_path),
        }
        return EnvironmentSpec(**(given | changes))  # type: ignore[arg-type]

    return spec


def workspace(project: Path, tmp_path: Path) -> WorkspaceSpec:
    return WorkspaceSpec(root=str(project), scratch=str(tmp_path / "cache/runs/t/workspace"))
