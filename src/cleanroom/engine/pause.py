"""Runs that are paused at a phase that failed: their control socket, and who connects to it.

The socket lies in the user's cache, for as long as the run is paused.
One connection carries one request: to show the pause, to open a shell in its environment, or to
decide; who decides hears how the run went on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import anyio
from anyio.abc import TaskGroup

from cleanroom.core.beneath import Folder, unix_address
from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.engine.supervision.context import PausedPhase
from cleanroom.sandbox import channel
from cleanroom.sandbox.network import peers

FOLDER = "paused"  # in the user's cache
PAUSED_EXIT = 77
ANSWER_SECONDS = 5.0  # of a run that is asked what it is
Choice = Literal["retry", "end"]


class Front(Protocol):
    """What shows a run to people, who may change while it is paused."""

    # it goes on while nobody looks
    outlives: bool

    def paused(self, paused: PausedPhase, limit_seconds: float) -> None:
        """The run is paused: tell how it goes on."""

    def resumed(self, streams: Sequence[int]) -> None:
        """It goes on for somebody with this standard output and error: descriptors."""

    async def prompt(self, paused: PausedPhase, choose: Callable[[Choice], None]) -> None:
        """Ask a person, where there is one."""


class PauseControl:
    """Decides about phases that fail as people at its front or its socket say."""

    def __init__(
        self, caller: Mapping[str, str], front: Front, interrupt: Callable[[], None], limit: float
    ) -> None:
        """`interrupt` ends the run. After `limit` seconds without a decision the phase ends."""
        self._cache = cache_folder(caller)
        self._front = front
        self._interrupt = interrupt
        self._limit = limit
        # workspaces that run at once pause one after the other
        self._lock = anyio.Lock()
        self._decided = anyio.Event()
        self._choice: Choice = "end"
        self._shells = 0
        self._driver: socket.socket | None = None

    @property
    def outlives(self) -> bool:
        """Whether the run goes on when the process that started it has ended."""
        return self._front.outlives

    async def decide(self, paused: PausedPhase) -> Choice:
        """Wait for a decision; shells run in the environment meanwhile."""
        async with self._lock:
            self._decided = anyio.Event()
            with _listening(self._cache, paused.run_id) as listening:
                self._front.paused(paused, self._limit)
                self._answer_driver({"kind": "ended", "status": PAUSED_EXIT})
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._accept, listening, paused, tasks)
                    tasks.start_soon(self._front.prompt, paused, self.choose)
                    await self._wait_decided()
                    tasks.cancel_scope.cancel()
        return self._choice

    def choose(self, choice: Choice) -> None:
        """Decide; the first decision counts."""
        if not self._decided.is_set():
            self._choice = choice
            self._decided.set()

    def finish(self, status: int) -> None:
        """The run has ended, and everything about it was written."""
        self._answer_driver({"kind": "ended", "status": status})

    async def _wait_decided(self) -> None:
        """Wait for a decision; once nobody has looked for the limit, the phase ends."""
        while not self._decided.is_set():
            with anyio.move_on_after(self._limit):
                await self._decided.wait()
                return
            if not self._shells:
                self.choose("end")

    # --- connections

    async def _accept(
        self, listening: socket.socket, paused: PausedPhase, tasks: TaskGroup
    ) -> None:
        while True:
            await anyio.wait_readable(listening)
            with contextlib.suppress(OSError):
                end, _ = listening.accept()
                end.setblocking(False)
                tasks.start_soon(self._serve, end, paused)

    async def _serve(self, end: socket.socket, paused: PausedPhase) -> None:
        """Serve one connection; it stays open where it decides."""
        descriptors: list[int] = []
        try:
            if not _is_trusted(end):
                return
            while end is not self._driver:
                await anyio.wait_readable(end)
                arrived = channel.receive(end)
                if arrived is None:
                    return
                order, descriptors = arrived
                await self._carry_out(order, descriptors, end, paused)
                while descriptors:
                    os.close(descriptors.pop())
        except (OSError, ValueError, AssertionError):
            pass  # the other side is gone, or is none of ours
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if end is not self._driver:
                end.close()

    async def _carry_out(
        self,
        order: channel.Message,
        descriptors: Sequence[int],
        end: socket.socket,
        paused: PausedPhase,
    ) -> None:
        match op := order.get("op"):
            case "show":
                shown = {"root": paused.root, "phase": paused.phase, "title": paused.title}
                channel.send(end, {"kind": "paused", **shown})
            case "shell" if len(descriptors) == 1:
                self._shells += 1
                try:
                    kind = {"TERM": str(order.get("terminal", ""))}
                    status = await paused.shell(descriptors[0], kind)
                finally:
                    self._shells -= 1
                channel.send(end, {"kind": "ended", "status": status})
            case "retry" | "end" if len(descriptors) == 2 and not self._decided.is_set():
                self._driver = end
                asyncio.get_running_loop().add_reader(end, self._hear_driver)
                self._front.resumed(descriptors)
                self.choose(op)
            case _:
                raise ValueError(op)

    def _hear_driver(self) -> None:
        """Who decided wants the run to end, or is gone."""
        if self._driver is None:
            return
        with contextlib.suppress(BlockingIOError, ValueError, AssertionError):
            arrived = channel.receive(self._driver)
            for descriptor in arrived[1] if arrived else ():
                os.close(descriptor)
            if arrived is None:
                self._drop_driver()
            self._interrupt()

    def _answer_driver(self, message: channel.Message) -> None:
        if self._driver is not None:
            with contextlib.suppress(OSError):
                channel.send(self._driver, message)
            self._drop_driver()

    def _drop_driver(self) -> None:
        if self._driver is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._driver)
            self._driver.close()
            self._driver = None


@contextmanager
def _listening(cache: Path, run_id: str) -> Iterator[socket.socket]:
    """A socket for the time of a pause, in a folder that only this user looks into."""
    with (
        open_cache(cache) as ours,
        ours.folder(FOLDER, make=True, mode=0o700) as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
    ):
        address = unix_address(folder.descriptor, run_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(run_id, dir_fd=folder.descriptor)
        listening.bind(address)
        listening.listen(8)
        listening.setblocking(False)
        try:
            yield listening
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(run_id, dir_fd=folder.descriptor)


def _is_trusted(end: socket.socket) -> bool:
    """Whether it is this user's process, and none in an environment of ours.

    A phase at a low level may see the cache.
    """
    peer = peers.peer_of(end)
    try:
        its, ours = (Path(f"/proc/{one}/ns/pid").readlink() for one in (peer.pid, "self"))
    except OSError:
        return False
    return its == ours and peers.of_our_user(end, peer)


# --- the other side


class PausedRun(NamedTuple):
    """A paused run, and a connection to it."""

    run_id: str
    root: str
    phase: str
    title: str
    end: socket.socket

    def close(self) -> None:
        """Close the connection."""
        self.end.close()


def paused_runs(caller: Mapping[str, str], root: str) -> list[PausedRun]:
    """The paused runs of the project, the newest last. Blocks, and the caller closes them."""
    try:
        with Folder.at(cache_folder(caller)) as cache, cache.folder(FOLDER) as folder:
            connected = [_connected(folder, name) for name in sorted(folder.names())]
    except OSError:
        return []  # no run was ever paused
    found = [run for run in connected if run is not None]
    here = os.path.realpath(root)
    for run in found:
        if os.path.realpath(run.root) != here:
            run.close()
    return [run for run in found if os.path.realpath(run.root) == here]


def _connected(folder: Folder, name: str) -> PausedRun | None:
    """The run of a socket; None where it has ended."""
    try:
        end = peers.connect(folder.descriptor, name, peers.of_our_user, socket.SOCK_SEQPACKET)
    except ConnectionRefusedError:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder.descriptor)  # its run was killed
        return None
    except OSError:
        return None
    end.settimeout(ANSWER_SECONDS)
    try:
        channel.send(end, {"op": "show"})
        arrived = channel.receive(end)
        if arrived is not None:
            end.settimeout(None)
            shown = arrived[0]
            root, phase, title = (str(shown.get(key, "")) for key in ("root", "phase", "title"))
            return PausedRun(name, root, phase, title, end)
    except (OSError, ValueError, AssertionError):
        pass
    end.close()
    return None


def ask(run: PausedRun, op: str, descriptors: Sequence[int], terminal: str = "") -> None:
    """Send a request: "shell" with a pseudo-terminal, "retry" or "end" with output and error.

    `terminal` is the kind of the terminal, as TERM has it.

    Raises:
        OSError: the run has ended.
    """
    channel.send(run.end, {"op": op, "terminal": terminal}, descriptors)


def interrupt(run: PausedRun) -> None:
    """End the run that was decided about; its end still answers."""
    with contextlib.suppress(OSError):
        channel.send(run.end, {"op": "interrupt"})


def answer(run: PausedRun) -> int | None:
    """Wait for the exit status of what was asked for; None where the run ended without one."""
    try:
        arrived = channel.receive(run.end)
    except (OSError, ValueError, AssertionError):
        return None
    status = arrived[0].get("status") if arrived is not None else None
    return status if isinstance(status, int) else None
