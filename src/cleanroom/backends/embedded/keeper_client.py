"""The channel to the keeper: orders go out, its messages come in.

The keeper forks a warden for each environment, and removes what the wardens made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

import anyio
import anyio.to_thread

from cleanroom.backends.base import Leftover
from cleanroom.backends.embedded.keeper_process import KeeperProcess, nearest_folder
from cleanroom.backends.embedded.ledger import Ledger
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link
from cleanroom.sandbox.kernel import cgroups

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import KeeperMessage, KeeperOrder, ProbeReport, SandboxSpec

# for the probe: a thousand times what was measured, so only a hang reaches it
PROBE_SECONDS = 20.0
# for an environment's end, and for the keeper's
LEAVE_SECONDS = 10.0

# by itself; by the keeper's SIGKILL; not at all
Closing = Literal["ended", "killed", "running"]


class KeeperClient:
    """The keeper as the engine's event loop sees it."""

    def __init__(self, process: KeeperProcess | None, ledger: Ledger) -> None:
        """`process` is a keeper that was started early; None: `open` starts one."""
        self._process = process
        self._ledger = ledger
        self._link: Link[KeeperMessage] | None = None
        self._up = asyncio.Event()
        self._lost = False
        self._probed: asyncio.Future[ProbeReport] | None = None
        self._closed: dict[str, asyncio.Event] = {}
        self._groups: dict[str, cgroups.Group] = {}

    def open(self) -> None:
        """Start the keeper if it does not run yet, and read its messages from now on."""
        self._process = self._process or KeeperProcess()
        if self._process.probing:
            self._probed = asyncio.get_running_loop().create_future()
        self._link = Link(
            self._process.detach_channel(),
            channel.KEEPER_MESSAGES.receive,
            self._on_message,
            self._on_end,
        )

    async def close(self) -> None:
        """Order the keeper to end, and wait for its end."""
        with contextlib.suppress(EnvironmentFailed):
            self.send({"op": "bye"})
        assert self._process is not None
        assert self._link is not None
        await self._process.wait(LEAVE_SECONDS)
        self._link.close()

    def send(self, order: KeeperOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order.

        Raises:
            EnvironmentFailed: the keeper has ended.
        """
        assert self._link is not None, "the backend was not entered"
        try:
            self._link.send(order, descriptors)
        except OSError:
            raise EnvironmentFailed("CR-SANDBOX-002", "the keeper process ended") from None

    async def wait_up(self) -> None:
        """Wait until the keeper serves orders, or has ended."""
        await self._up.wait()

    async def probe(self, scratch: Path) -> ProbeReport:
        """What this machine can hold, tried in a child of the keeper. Asked once for a run.

        `scratch` is where layers will lie.

        Raises:
            EnvironmentFailed: the keeper ended, or its child could not probe.
            TimeoutError: there was no answer.
        """
        if self._probed is None:
            self._probed = asyncio.get_running_loop().create_future()
            self.send({"op": "probe", "scratch": str(nearest_folder(scratch))})
        with anyio.fail_after(PROBE_SECONDS):
            return await self._probed

    def open_environment(self, spec: SandboxSpec, descriptor: int) -> None:
        """Order a warden for this environment; `descriptor` is its end of the channel."""
        identity = spec["id"]
        self._closed[identity] = asyncio.Event()
        group = spec["limits"]["cgroup"]
        if group is not None:
            self._groups[identity] = cgroups.Group.from_wire(group)
        self.send({"op": "open", "spec": spec}, [descriptor])

    async def close_environment(self, identity: str) -> Closing:
        """Wait until the keeper has seen the warden's end and removed what it had made for it.

        A warden that does not end within `LEAVE_SECONDS` is killed.
        """
        closing: Closing = "ended"
        if not await self._wait_closed(identity):
            closing = "killed"
            with contextlib.suppress(EnvironmentFailed):
                self.send({"op": "end", "environment": identity})
            if not await self._wait_closed(identity):
                name = f"environment {identity}"
                self._ledger.report_left(
                    Leftover(kind="process", name=name, detail="its warden did not end")
                )
                return "running"
        group = self._groups.pop(identity, None)
        if self._lost and group is not None:
            # the wardens died with the keeper, so nobody has removed their control groups
            left = await anyio.to_thread.run_sync(cgroups.clear, group)
            self._report_groups(map(str, left))
        return closing

    async def _wait_closed(self, identity: str) -> bool:
        with anyio.move_on_after(LEAVE_SECONDS):
            await self._closed[identity].wait()
        return self._closed[identity].is_set()

    def _report_groups(self, paths: Iterable[str]) -> None:
        self._ledger.report_left(*(Leftover(kind="cgroup", name=path) for path in paths))

    def _on_message(self, message: KeeperMessage, descriptors: list[int]) -> None:
        match message["kind"]:
            case "up":
                self._up.set()
            case "probed":
                if self._probed is not None and not self._probed.done():
                    self._probed.set_result(message["report"])
            case "probe_failed":
                text = f"this machine could not be probed: {message['error']}"
                self._fail_probe(EnvironmentFailed("CR-SANDBOX-007", text))
            case "closed":
                self._report_groups(message["left"])
                if message["environment"] in self._closed:
                    self._closed[message["environment"]].set()
            case _:
                assert_never(message)

    def _on_end(self) -> None:
        self._lost = True
        self._up.set()
        for closed in self._closed.values():
            closed.set()
        self._fail_probe(EnvironmentFailed("CR-SANDBOX-002", "the keeper process ended"))

    def _fail_probe(self, error: EnvironmentFailed) -> None:
        if self._probed is not None and not self._probed.done():
            self._probed.set_exception(error)
