"""The keeper as a child process: start it, take its channel, wait for its end.

This module imports only what every run imports anyway.

A keeper may be started before the project says whether the run needs one:
it creates nothing by itself, and ends when its owner closes the channel.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from cleanroom.core import host_programs
from cleanroom.sandbox import channel

PACKAGES = str(Path(__file__).resolve().parents[3])
# The keeper runs without `site`, so with the standard library only.
# Our folder is on sys.path, behind the library, until the keeper's module is imported.
# Nothing that an import makes is garbage: looking for it meanwhile takes a twentieth of the start.
# Frozen afterwards, it is not looked at again, so that forked processes copy no pages for it.
PROGRAM = (
    f"import gc, sys; gc.disable(); sys.path.append({PACKAGES!r}); "
    "from cleanroom.sandbox.processes.keeper import main; "
    "sys.path.pop(); gc.freeze(); gc.enable(); main()"
)
POLL_SECONDS = 0.01
# backends whose environments have a keeper
BACKENDS = ("auto", "embedded", "docker", "podman")


class KeeperProcess:
    """A keeper that is starting. Its owner has to call `wait` or `abandon`."""

    def __init__(self, probe: str = "") -> None:
        """Start it.

        With `probe`, an existing folder on the file system of the layers,
        the first order is to probe what this machine can hold there.
        """
        mine, theirs = channel.pair()
        try:
            self._process = host_programs.start_python(PROGRAM, stdin=theirs.fileno())
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        self.probing = bool(probe)
        self._end: socket.socket | None = mine
        if probe:
            channel.KEEPER_ORDERS.send(mine, {"op": "probe", "scratch": probe})

    @property
    def pid(self) -> int:
        return self._process.pid

    def detach_channel(self) -> socket.socket:
        """The owner's end of the channel, which the caller has to close. Once only."""
        assert self._end is not None, "a keeper has one owner"
        end, self._end = self._end, None
        return end

    async def wait(self, seconds: float) -> None:
        """Wait for its end; kill it after `seconds`."""
        import anyio

        try:
            with anyio.move_on_after(seconds):
                await self._ended()
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()

    async def _ended(self) -> None:
        import anyio

        try:
            descriptor = os.pidfd_open(self.pid)
        # Before Linux 5.3 there is no pidfd_open(2): the run is refused, the keeper still ends.
        except OSError:
            while self._process.poll() is None:  # noqa: ASYNC110 -- no descriptor to wait on
                await anyio.sleep(POLL_SECONDS)
            return
        try:
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """End a keeper whose channel nobody took."""
        if self._end is not None:
            self._end.close()
            # a probe that has begun removes its own files first
            self._process.wait()


def start_early(name: str | None, cache: Path) -> KeeperProcess | None:
    """Start a keeper before the engine asks for one.

    None if the backend `name` has no keeper; None as name: the project decides later.
    The caller hands the keeper on or abandons it.
    """
    if name not in (None, *BACKENDS) or not sys.platform.startswith("linux"):
        return None
    return KeeperProcess(probe=str(nearest_folder(cache / "runs")))


def nearest_folder(path: Path) -> Path:
    """The nearest existing folder at or above `path`."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
