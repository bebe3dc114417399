"""Finding a container engine and agreeing on a version, without one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cleanroom.backends.containers import client
from cleanroom.backends.containers.client import connect, find_socket, negotiated_version
from cleanroom.model.errors import BackendUnavailable


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "e.sock")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path)
        yield path


@pytest.mark.parametrize(
    ("newest", "oldest", "chosen"),
    [
        ("1.41", "1.12", "v1.41"),  # Debian 12's Docker
        ("1.52", "1.44", "v1.51"),  # newer than what was read: the newest that we know
        ("1.99", "1.60", ""),  # has forgotten all that we know
        ("1.30", "1.12", ""),  # too old
        ("", "", ""),
        ("one", "two", ""),
    ],
)
def test_the_newest_version_that_both_know_is_spoken(newest: str, oldest: str, chosen: str):
    """It is negotiated and never pinned; no common one is said by an empty word."""
    assert negotiated_version(newest, oldest) == chosen


@asynccontextmanager
async def answering(path: Path, newest: str, oldest: str) -> AsyncIterator[list[str]]:
    """An engine that says which API it speaks, and does nothing else; what it was asked for."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked.append(line.decode().split()[1])
            while (await reader.readline()).strip():
                pass
            said = (
                json.dumps({"Version": "99.0", "ApiVersion": newest, "MinAPIVersion": oldest})
                if asked[-1] == "/version"
                else '"OK"'
            )
            head = (
                f"Api-Version: {newest}\r\nServer: Docker/28.0 (linux)\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(said)}"
            )
            writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{said}".encode())
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield asked


async def test_an_engine_whose_version_is_known_is_not_asked_for_more(tmp_path: Path):
    """Its greeting tells enough: describing itself in full takes Podman seconds."""
    async with (
        answering(tmp_path / "e.sock", "1.41", "1.12") as asked,
        connect("docker", {"DOCKER_HOST": f"unix://{tmp_path}/e.sock"}) as engine,
    ):
        assert (engine.version, engine.api, asked) == ("28.0", "v1.41", ["/_ping"])


async def test_a_newer_engine_is_asked_what_it_still_speaks(tmp_path: Path):
    """One that has forgotten all that we know is refused with both ranges."""
    place = {"DOCKER_HOST": f"unix://{tmp_path}/e.sock"}
    async with (
        answering(tmp_path / "e.sock", "1.60", "1.45") as asked,
        connect("docker", place) as engine,
    ):
        assert (engine.version, engine.api, asked) == ("99.0", "v1.51", ["/_ping", "/version"])
    (tmp_path / "e.sock").unlink(missing_ok=True)
    async with answering(tmp_path / "e.sock", "1.99", "1.60"):
        with pytest.raises(BackendUnavailable, match=r"1\.60 to 1\.99"):
            async with connect("docker", place):
                pass


@pytest.mark.parametrize(
    ("name", "variable"), [("docker", "DOCKER_HOST"), ("podman", "CONTAINER_HOST")]
)
def test_a_named_socket_goes_before_the_usual_ones(
    name: client.EngineName, variable: str, listening: str
):
    """Each engine has a variable of its own."""
    assert find_socket(name, {variable: f"unix://{listening}"}) == listening


@pytest.mark.parametrize("place", ["docker.sock", "podman/podman.sock"])
def test_a_socket_of_the_users_own_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
):
    """Below XDG_RUNTIME_DIR, as rootless engines have it."""
    usual = {
        name: tuple(path for path in paths if "{runtime}" in path)
        for name, paths in client.SOCKETS.items()
    }
    monkeypatch.setattr(client, "SOCKETS", usual)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as end:
        # By its name: the path may be longer than such an address.
        monkeypatch.chdir((tmp_path / place).parent)
        end.bind((tmp_path / place).name)
        assert find_socket(
            "podman" if "podman" in place else "docker", {"XDG_RUNTIME_DIR": str(tmp_path)}
        ) == str(tmp_path / place)


def test_a_missing_engine_says_where_it_was_looked_for(tmp_path: Path):
    """With the way to start it."""
    with pytest.raises(BackendUnavailable) as found:
        find_socket("docker", {"DOCKER_HOST": f"unix://{tmp_path}/nothing"})
    assert (found.value.code, f"{tmp_path}/nothing" in str(found.value)) == (
        "CR-CONTAINER-001",
        True,
    )
    assert "systemctl" in found.value.hint


@pytest.mark.parametrize(
    "host", ["tcp://10.0.0.1:2375", "ssh://somebody@elsewhere", "npipe:////./pipe/docker_engine"]
)
def test_an_engine_on_another_machine_is_refused(host: str):
    """What is tried in its containers could not be seen from here."""
    with pytest.raises(BackendUnavailable) as found:
        find_socket("docker", {"DOCKER_HOST": host})
    assert found.value.code == "CR-CONTAINER-002"
