"""Servers that cannot be started, end too early or do not answer; with real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from cleanroom.core.beneath import Folder
from cleanroom.core.locks import locked
from cleanroom.engine.shared_services import discovery, pool
from cleanroom.engine.shared_services.client import connect
from cleanroom.engine.shared_services.discovery import (
    LOCK_NAME,
    OWNER_FILE,
    ServerConfig,
    connect_or_start,
)
from cleanroom.engine.shared_services.pool import pool_key, pool_status, stop_pool
from cleanroom.model.errors import ServiceFailed
from cleanroom.model.policy import Level, default_policy
from cleanroom.services.base import Probe, Recipe

NEEDS = pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")
pytestmark = [pytest.mark.sandbox, NEEDS]


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    root = tmp_path / "project"
    root.mkdir()
    return ServerConfig(
        kind="pool",
        key=pool_key(str(root), "embedded"),
        project="x",
        root=str(root),
        runs=str(tmp_path / "cache/runs"),
        templates=str(tmp_path / "cache/services"),
        policy=default_policy(Level.MEDIUM),
        seed=42,
    )


class Pool:
    """A pool that runs and holds nothing yet."""

    def __init__(self, config: ServerConfig) -> None:
        met = connect_or_start(config)
        assert met is not None
        self._asked = config.runs, config.root, "embedded"
        self.folder = Path(config.runs, met[0])
        self.pid = int((self.folder / OWNER_FILE).read_text().partition(":")[0])
        met[1].close()
        self.status()

    def status(self) -> pool.PoolStatus:
        return pool_status(*self._asked)

    def stop(self) -> None:
        stop_pool(*self._asked)

    def wait_gone(self) -> None:
        until = time.monotonic() + 60
        while self.folder.exists():
            assert time.monotonic() < until, "the pool did not end"
            time.sleep(0.02)  # polling for what another process does


@pytest.fixture
def held(config: ServerConfig) -> Iterator[Pool]:
    made = Pool(config)
    yield made
    made.stop()
    made.wait_gone()


def test_a_lock_that_nobody_leaves_is_named(config: ServerConfig, monkeypatch: pytest.MonkeyPatch):
    """An engine that hangs while it starts a holder keeps others waiting for a while,
    then they say so.
    """
    monkeypatch.setattr(discovery, "LOCK_SECONDS", 0.0)
    config.cache.mkdir(mode=0o700)
    with (
        Folder.at(config.cache) as cache,
        locked(cache, LOCK_NAME, seconds=0),
        pytest.raises(ServiceFailed, match="another process holds it") as failed,
    ):
        connect_or_start(config)
    assert failed.value.code == "CR-SESSION-001"


def test_a_lock_that_cannot_be_opened_is_named(config: ServerConfig):
    """The system's reason is said, where a folder lies in the lock's place."""
    (config.cache / LOCK_NAME).mkdir(parents=True)
    config.cache.chmod(0o700)
    with pytest.raises(ServiceFailed, match="Is a directory") as failed:
        connect_or_start(config)
    assert failed.value.code == "CR-SESSION-001"


async def test_a_holder_that_ends_before_it_answers_is_said(config: ServerConfig):
    """A file where it would keep its record ends every holder that is started."""
    sessions = Path(config.root, ".ggen/cleanroom/sessions")
    sessions.parent.mkdir(parents=True)
    sessions.write_text("a file")
    with pytest.raises(ServiceFailed, match="ended") as failed:
        async with connect(config, "run", ()):
            pass
    assert failed.value.code == "CR-SESSION-002"


async def test_services_end_with_their_holder(config: ServerConfig):
    """Whoever waits for one to be ready learns that the process that holds it has ended."""
    probe = Probe(kind="exec", argv=("false",))
    recipe = Recipe(
        name="slow",
        kind="generic",
        version="1",
        probe=probe,
        main=("sleep", "60"),
        port=7000,
        to="tcp:7000",
        start_timeout_seconds=60,
    )
    async with connect(config, "run", (recipe,), lease=False) as holder:
        assert holder is not None
        pid = int(Path(config.runs, holder.id, OWNER_FILE).read_text().partition(":")[0])
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(20):
            states = [state async for state in holder.services["slow"].states()]
    assert states[-1].failure is not None
    assert states[-1].failure.code == "CR-SESSION-004"


def test_a_pool_that_does_not_answer_is_said(held: Pool, monkeypatch: pytest.MonkeyPatch):
    """Stopped as by SIGSTOP it is neither there nor gone."""
    monkeypatch.setattr(pool, "ANSWER_SECONDS", 0.1)
    os.kill(held.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServiceFailed, match="did not answer") as failed:
            held.status()
    finally:
        os.kill(held.pid, signal.SIGCONT)
    assert failed.value.code == "CR-SESSION-003"


def test_a_pool_that_does_not_end_in_time_is_said(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
):
    """The process is named, to be killed by hand."""
    held = Pool(config)
    monkeypatch.setattr(pool, "END_SECONDS", 0.0)
    with pytest.raises(ServiceFailed, match="did not end") as failed:
        held.stop()
    assert failed.value.code == "CR-SESSION-006"
    assert f"kill {held.pid}" in failed.value.hint
    held.wait_gone()
