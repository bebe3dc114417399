"""The keeper's process as its owner sees it: started, ordered, waited for.

Importing this costs nothing that a run does not need anyway.

It may be started before it is known whether a run needs it:
it makes nothing by itself, and ends when its owner's end of the channel closes.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from cleanroom.core import host_programs
from cleanroom.sandbox import channel

PACKAGES = str(Path(__file__).resolve().parents[3])
# Without site: standard library only.
# Our own folder is on the import path for as long as it takes to find ourselves,
# and after the library.
PROGRAM = (
    f"import sys; sys.path.append({PACKAGES!r}); from cleanroom.sandbox.processes.keeper import "
    "main; sys.path.pop(); main()"
)
LOOK_SECONDS = 0.01
BACKENDS = ("auto", "embedded", "docker", "podman")  # whose environments have a keeper


class KeeperProcess:
    """A keeper that is starting. Whoever owns it calls `wait` or `abandon` in the end."""

    def __init__(self, probe: str = "") -> None:
        """Start it.

        `probe` is an existing folder where layers will lie:
        the first order is then to look what this machine holds there.
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

    def taken(self) -> socket.socket:
        """The owner's end of the channel, to be closed by whoever takes it."""
        assert self._end is not None, "a keeper has one owner"
        end, self._end = self._end, None
        return end

    async def wait(self, seconds: float) -> None:
        """Wait for its end; past this time it is killed."""
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
        # before Linux 5.3, where the run is refused and this is all that is left to do
        except OSError:
            while self._process.poll() is None:  # noqa: ASYNC110 -- nothing tells
                await anyio.sleep(LOOK_SECONDS)
            return
        try:
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """End one that nobody took: it was given nothing to keep."""
        if self._end is not None:
            self._end.close()
            self._process.wait()  # it may have begun to look, and removes what it made for that


def ahead(name: str | None, cache: Path) -> KeeperProcess | None:
    """Start what most runs need before it is asked for.

    None where the backend `name` rules it out; whoever gets it hands it on or abandons it.
    """
    if name not in (None, *BACKENDS) or not sys.platform.startswith("linux"):
        return None
    return KeeperProcess(probe=str(nearest_folder(cache / "runs")))


def nearest_folder(path: Path) -> Path:
    """The existing folder in which `path` is or will be, on the same file system."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
