"""How a run finds the server of its configuration, or starts one; without a process of its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cleanroom.core.beneath import Folder
from cleanroom.engine.shared_services import discovery
from cleanroom.engine.shared_services.discovery import (
    CONFIG_FILE,
    OWNER_FILE,
    ServerConfig,
    connect_or_start,
    discovery_key,
    find_server,
)
from cleanroom.model.errors import ServiceFailed
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox import journal


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        kind="session",
        key=discovery_key("/project", "1234:5", "memory"),
        project="shop",
        root="/project",
        runs=str(tmp_path / "cache/runs"),
        templates=str(tmp_path / "cache/services"),
        policy=default_policy(Level.MEDIUM),
        seed=42,
    )


class Started:
    """The listening sockets that servers were started with: they live until they are closed."""

    def __init__(self) -> None:
        self.listening: list[socket.socket] = []

    def spawn(self, folder: Folder, listening: socket.socket, root: str) -> int:
        self.listening.append(listening.dup())
        return os.getpid()

    def end(self) -> None:
        for listening in self.listening:
            listening.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    servers = Started()
    monkeypatch.setattr(discovery, "_spawn", servers.spawn)
    yield servers
    servers.end()


def connected(found: tuple[str, socket.socket] | None) -> str:
    """The id of a server that was found."""
    assert found is not None
    found[1].close()
    return found[0]


def test_the_second_run_finds_what_the_first_has_started(config: ServerConfig, started: Started):
    """Runs of one key meet in one server."""
    one, other = (connected(connect_or_start(config)) for _ in range(2))
    assert one == other
    assert len(started.listening) == 1


def test_two_runs_at_once_start_one_server(config: ServerConfig, started: Started):
    """The lock is held from looking for a server until one listens."""
    identities: list[str] = []
    together = threading.Barrier(4)

    def run() -> None:
        together.wait()
        identities.append(connected(connect_or_start(config)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(identities)) == 1
    assert len(identities) == 4
    assert len(started.listening) == 1


def test_a_folder_whose_server_is_gone_is_passed_over(config: ServerConfig, started: Started):
    """Its socket is still there, but nobody listens: another server is started beside it."""
    old = connected(connect_or_start(config))
    started.end()
    new = connected(connect_or_start(config))
    assert new != old
    assert Path(config.runs, old, "socket").exists()


def test_a_run_that_must_not_start_a_server_gets_none(config: ServerConfig, started: Started):
    """`pool status` and runs beside a project without a pool start nothing."""
    assert connect_or_start(config, start=False) is None
    assert not started.listening


@pytest.mark.parametrize("change", [{"kind": "pool"}, {"key": discovery_key("/other")}])
def test_servers_of_another_kind_or_key_are_not_found(
    config: ServerConfig, started: Started, change: dict[str, str]
):
    """A session's services are not a pool's, and a project's are its own."""
    connect_or_start(config)[1].close()
    other = msgspec.structs.replace(config, **change)
    assert find_server(other.runs, other.kind, other.key) is None


def test_without_a_cache_folder_nothing_is_found(config: ServerConfig):
    """Asking makes no folder."""
    assert find_server(config.runs, config.kind, config.key) is None
    assert not config.cache.exists()


def test_a_servers_folder_tells_its_configuration_and_its_process(
    config: ServerConfig, started: Started
):
    """The process reads the one, `sweep` the other; nobody else may read either."""
    folder = Path(config.runs, connected(connect_or_start(config)))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / CONFIG_FILE).stat().st_mode & 0o777 == 0o600
    assert msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=ServerConfig) == config
    assert (folder / OWNER_FILE).read_text() == journal.process_name(os.getpid())


def test_a_server_that_ends_at_once_is_an_error(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
):
    """Where the process has closed its socket already, the error names its log."""
    monkeypatch.setattr(discovery, "_spawn", lambda folder, listening, root: os.getpid())
    with pytest.raises(ServiceFailed, match="ended at once") as failed:
        connect_or_start(config)
    assert failed.value.code == "CR-SESSION-002"
    assert failed.value.hint.endswith("/log")


def test_keys_differ_by_each_of_their_parts():
    """No two lists of parts share a key."""
    keys = {
        discovery_key(*parts) for parts in (("a", "b"), ("ab",), ("a", "b", ""), ("b", "a"), ())
    }
    assert len(keys) == 5
