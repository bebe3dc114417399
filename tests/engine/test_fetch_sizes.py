"""How much of what came from outside is held in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cleanroom.dependencies.managers import Managers
from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.session import Page, ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import Store
from cleanroom.engine.fetch.progress import Progress
from cleanroom.engine.fetch.session import (
    HOSTS_MAX,
    PAGE_BYTES,
    PAGES_BYTES,
    FetchPolicy,
    FetchSession,
)
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable


class FakeEnvironments:
    """Conceals nothing."""

    def conceal(self, _authorizations: object) -> None:
        """Nothing is shown."""


class Downloaded(FetchSession):
    """As if a registry had given documents of a size, which take no room on the disk."""

    async def _download(self, files: Sequence[Mapping[str, Any]], _names: object) -> Path:
        work, _ = await self._new_folders()
        for number, _ in enumerate(files):
            with (work / str(number)).open("wb") as stream:
                stream.truncate(PAGE_BYTES)
        return work


async def test_documents_that_are_too_large_together_are_refused(tmp_path: Path):
    """A hundred packages of an index that a project names would take 6 GiB."""
    manager = Managers(Settings.of({"HOME": str(tmp_path)}))["pip"]
    environments: Any = FakeEnvironments()
    progress = Progress(lambda _: None, "requirements.txt")
    pages = [Page(f"https://index.example/{n}/") for n in range(PAGES_BYTES // PAGE_BYTES + 1)]
    session = Downloaded(manager, Store(tmp_path), environments, progress, FetchPolicy())

    async with session:
        with pytest.raises(DependencyRejected, match=r"index\.example") as caught:
            await session.read(pages)

    assert caught.value.code == "CR-FETCH-002"


def test_what_a_tool_left_is_read_up_to_a_limit(tmp_path: Path):
    """And only a file: a tool's answer comes from inside."""
    (tmp_path / "answer").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    result = ToolResult(0, b"", tmp_path)

    assert result.read("answer", 4) == b"0123"
    assert [result.read(name, 4) for name in ("link", "folder", "pipe", "none")] == [b""] * 4


async def test_a_lock_of_too_many_hosts_is_named(tmp_path: Path):
    """With 64 of them the environment did not start, and with 20,000 the run's keeper ended."""
    manager = Managers(Settings.of({"HOME": str(tmp_path)}))["npm"]
    environments: Any = FakeEnvironments()
    progress = Progress(lambda _: None, "package-lock.json")
    artifacts = [
        Artifact(name="a", version="1", file=f"{number}.tgz", url=f"https://h{number}.example/a")
        for number in range(HOSTS_MAX + 1)
    ]

    async with FetchSession(
        manager, Store(tmp_path), environments, progress, FetchPolicy()
    ) as session:
        with pytest.raises(DependencyUnavailable, match=f"on {HOSTS_MAX + 1} hosts"):
            await session.download(artifacts)
        with pytest.raises(DependencyUnavailable, match=f"on {HOSTS_MAX + 1} hosts"):
            await session.run(ToolRun(["true"], egress=[f"{one.name}:443" for one in artifacts]))
