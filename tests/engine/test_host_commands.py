"""Commands on the host: real processes in a group of their own."""

from __future__ import annotations

import os
import select
from pathlib import Path

import anyio
import pytest

from cleanroom.engine.phases.host_commands import HostCommands
from cleanroom.model.errors import BackendUnavailable


def host(folder: Path) -> HostCommands:
    return HostCommands({"PATH": os.environ["PATH"], "A": "x"}, str(folder), grace_seconds=0.2)


def alive(pid: int) -> bool:
    """Does it still live?

    One that was killed may need a moment on a busy machine, which its descriptor waits for.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    select.select([descriptor], [], [], 5)
    os.close(descriptor)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_status_output_variables_and_folder(tmp_path: Path):
    """A host command has its variables, its folder, its status; both streams are heard."""
    heard = []
    result = await host(tmp_path).exec(
        ("sh", "-c", "echo $A; pwd >&2; exit 3"),
        on_output=lambda stream, data: heard.append((stream, data)),
    )
    assert result.exit_code == 3
    assert sorted(heard) == [("stderr", f"{tmp_path}\n".encode()), ("stdout", b"x\n")]


async def test_a_signal_is_128_plus_its_number(tmp_path: Path):
    """Death by signal reads as a shell says it."""
    assert (
        await host(tmp_path).exec(("sh", "-c", "kill -9 $$"), on_output=lambda s, d: None)
    ).exit_code == 137


async def test_the_whole_group_dies_with_its_command(tmp_path: Path):
    """A background child that holds the pipes neither blocks nor survives."""
    heard = bytearray()
    result = await host(tmp_path).exec(
        ("sh", "-c", "sleep 100 & echo $!"), on_output=lambda s, d: heard.extend(d)
    )
    assert result.exit_code == 0
    assert not alive(int(heard))


async def test_a_timeout_ends_even_what_ignores_sigterm(tmp_path: Path):
    """After the grace it is killed, and the result says timed out."""
    result = await host(tmp_path).exec(
        ("sh", "-c", "trap '' TERM; sleep 100; sleep 100"),
        on_output=lambda s, d: None,
        timeout_seconds=0.2,
    )
    assert result.timed_out
    assert result.exit_code in (137, 143)


async def test_cancellation_kills_the_group(tmp_path: Path):
    """A cancelled host command is gone when the cancellation arrives."""
    pids: list[int] = []
    with anyio.CancelScope() as scope:

        def listen(stream: str, data: bytes) -> None:
            pids.append(int(data))
            scope.cancel()

        await host(tmp_path).exec(("sh", "-c", "echo $$; exec sleep 100"), on_output=listen)
    assert scope.cancelled_caught
    assert not alive(pids[0])


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    """What cannot be started names program and folder."""
    with pytest.raises(BackendUnavailable) as failed:
        await host(tmp_path / "gone").exec(("sh", "-c", "true"), on_output=lambda s, d: None)
    assert failed.value.code == "CR-HOST-001"
    assert "gone" in str(failed.value)
