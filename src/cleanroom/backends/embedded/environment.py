"""Environments as the engine sees them: a warden outside each does what is ordered here."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, ExecResult, Leftover, OnOutput
from cleanroom.backends.embedded.commands import CommandRunner
from cleanroom.backends.embedded.decoys import Decoys
from cleanroom.backends.embedded.machinery import Machinery
from cleanroom.backends.embedded.streams import CommandStreams, PipedStreams, TerminalStreams
from cleanroom.backends.embedded.tiers import Tier
from cleanroom.backends.embedded.warden_client import WardenClient
from cleanroom.model.capability import Attempt, Canary, Sample
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.sandbox.journal import Resource
from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.processes.samples import Sampler

if TYPE_CHECKING:
    from cleanroom.backends.embedded.spec import Described
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import Forward, Prove, Ready, WardenOrder

# for an environment, and for its canaries: a thousand times what was measured,
# so only a hang reaches it
START_SECONDS = 20.0
# for the list of processes that were left running
LIST_SECONDS = 2.0


class EmbeddedEnvironment:
    """One environment; its commands run in `CommandRunner`."""

    def __init__(self, machinery: Machinery, tier: Tier[Any], spec: EnvironmentSpec) -> None:
        self.id = spec.id
        self._spec = spec
        self._machinery = machinery
        self._resources = machinery.resources
        self._forwards = machinery.forwards
        self._tier = tier
        self._warden = WardenClient(spec.id, self)
        self._commands = CommandRunner(spec, self._warden)
        self._attempts_in, self._attempts_out = anyio.create_memory_object_stream[Attempt](math.inf)
        self._declared: list[Forward] = []
        self._sampler: Sampler | None = None
        self._folder: Resource | None = None
        self._record: Resource | None = None
        # the keeper has the order for its warden
        self._ordered = False
        # without mounts: its folder for temporary files
        self._temporary = ""

    def uses(self, folder: Path) -> bool:
        """Whether one of its mounts shows something of this folder of the host."""
        return any(Path(mount.source).is_relative_to(folder) for mount in self._spec.mounts)

    @property
    def has_ended(self) -> bool:
        """Whether its warden is gone."""
        return self._warden.lost.is_set()

    # --- start and end

    async def start(self) -> None:
        """Make it; returns when its init has given up every privilege.

        Raises:
            EnvironmentFailed: a step failed; the message names it.
        """
        root = await self._tier.root_of(self.id)
        self._folder = await self._resources.folder(root)
        described = await self._tier.describe(self._spec, root)
        self._declared = described.spec["network"]["forwards"]
        self._commands.path_map = described.path_map
        self._temporary = described.temporary
        self._record = self._resources.record("environment", self.id)
        self._order_warden(described)
        await self._tier.launch(self._spec, described.spec)
        ready = await self._wait_ready()
        self._forwards.reconnect(self)
        self._sampler = self._make_sampler(described, ready)

    def _order_warden(self, described: Described) -> None:
        theirs = self._warden.open()
        try:
            self._machinery.keeper.open_environment(described.spec, theirs.fileno())
            self._machinery.environments[self.id] = self
            self._ordered = True
        finally:
            theirs.close()

    async def _wait_ready(self) -> Ready:
        try:
            with anyio.fail_after(START_SECONDS):
                return await self._warden.ready
        except TimeoutError:
            raise EnvironmentFailed(
                "CR-SANDBOX-005",
                f"environment {self.id} did not start within {START_SECONDS:.0f} s",
            ) from None

    def _make_sampler(self, described: Described, ready: Ready) -> Sampler:
        group = ready["cgroup"]
        return Sampler(
            ready["init"],
            cgroups.Group.from_wire(group) if group is not None else None,
            described.written,
            self._spec.policy.limits.memory_bytes,
            own_network=described.spec["host_namespaces"] is None,
        )

    async def leave(self) -> None:
        """End it and wait for its end. Safe to call twice.

        Raises:
            EnvironmentFailed: after all is removed: its warden had to be killed,
                so attempts that it had not reported yet are lost.
        """
        try:
            complete = await self._end_warden()
            await self._release()
        finally:
            self._tier.discard(self.id)
        if not complete:
            raise EnvironmentFailed(
                "CR-SANDBOX-006",
                (
                    f"environment {self.id} did not end by itself: what was tried in it last may "
                    "not have been told"
                ),
            )

    async def _end_warden(self) -> bool:
        """Whether everything that happened inside has been reported."""
        if not self._ordered:
            return True
        self._ordered = False
        with contextlib.suppress(EnvironmentFailed):
            self.order({"op": "kill"})
        closing = await self._machinery.keeper.close_environment(self.id)
        if closing != "running":
            del self._machinery.environments[self.id]
        await self._tier.return_prepared(self._spec)
        return closing == "ended" or self._commands.unresponsive

    async def _release(self) -> None:
        """Close what the engine holds of it, and remove its folder."""
        self._warden.close()
        self._forwards.close(self.id)
        self._attempts_in.close()
        self._attempts_out.close()
        if self._record is not None:
            self._resources.gone(self._record)
            self._record = None
        if self._folder is not None:
            await self._resources.drop_folder(self._folder)
            self._folder = None

    async def kill(self) -> None:
        """End every process in it."""
        with contextlib.suppress(EnvironmentFailed, OSError):
            self.order({"op": "kill"})
            await self._warden.lost.wait()

    # --- orders

    def order(self, message: WardenOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order to the warden.

        Raises:
            EnvironmentFailed: it has ended.
        """
        self._warden.send(message, descriptors)

    async def prove(self) -> tuple[Canary, ...]:
        """Run the canaries inside.

        Raises:
            EnvironmentFailed: they did not all come to a result.
        """
        facts = self._machinery.facts
        with Decoys(self._tier.decoy_folder) as decoys:
            order: Prove = {
                "op": "prove",
                "n": self._warden.next_number(),
                "expect": decoys.expectations(
                    self._spec, self._temporary, outer_filter=facts.outer_filter
                ),
                "limits": facts.first_limit_proof(),
            }
            why = f"no end within {START_SECONDS:.0f} s"
            with anyio.move_on_after(START_SECONDS):
                answer, _ = await self._warden.ask(order)
                if answer["kind"] == "proved":
                    return tuple(msgspec.convert(result, Canary) for result in answer["results"])
                assert answer["kind"] == "proof_failed", answer["kind"]
                why = answer["why"]
        text = f"environment {self.id}: the canaries did not come to their end: {why}"
        raise EnvironmentFailed("CR-SANDBOX-008", text)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: OnOutput,
        timeout_seconds: float | None = None,
        terminal: int | None = None,
    ) -> ExecResult:
        """Run a command and wait for its end."""
        if terminal is None:
            streams: CommandStreams = PipedStreams(on_output)
        else:
            streams = TerminalStreams(terminal)
        return await self._commands.run(argv, streams, timeout_seconds=timeout_seconds)

    async def dial(self, to: str) -> anyio.abc.ByteStream:
        """Connect to an address inside."""
        number = self._warden.next_number()
        answer, descriptors = await self._warden.ask({"op": "dial", "n": number, "to": to})
        if answer["kind"] == "dial_failed":
            raise OSError(answer["errno"], os.strerror(answer["errno"]), to)
        end = socket.socket(fileno=descriptors[0])
        end.setblocking(False)
        if end.family == socket.AF_UNIX:
            return await anyio.abc.UNIXSocketStream.from_socket(end)
        return await anyio.abc.SocketStream.from_socket(end)

    def forward(self, listening: socket.socket, to: str) -> None:
        """Pass a listening socket of the host to its relay."""
        self.order({"op": "relay", "to": to}, [listening.fileno()])

    def stop_forwarding(self, listening: socket.socket) -> None:
        """Let its relay close such a socket."""
        with contextlib.suppress(EnvironmentFailed):
            self.order({"op": "drop", "inode": os.fstat(listening.fileno()).st_ino})

    async def left_over(self) -> tuple[Leftover, ...]:
        """Processes that outlived their commands."""
        with contextlib.suppress(EnvironmentFailed), anyio.move_on_after(LIST_SECONDS):
            number = self._warden.next_number()
            answer, _ = await self._warden.ask({"op": "left", "n": number})
            assert answer["kind"] == "processes", answer["kind"]
            return tuple(map(_leftover, answer["processes"]))
        return ()

    # --- reports

    async def attempts(self) -> AsyncIterator[Attempt]:
        """Attempts as they happen, until the environment ends."""
        # closed when it is left before its warden's end was seen
        with contextlib.suppress(anyio.ClosedResourceError):
            async with self._attempts_out:
                async for attempt in self._attempts_out:
                    yield attempt

    async def sample(self, *, last: bool = False) -> Sample | None:
        """Its use of the host now."""
        if self._sampler is None or self.has_ended:
            return None
        return await anyio.to_thread.run_sync(self._sampler.take, last)

    def on_attempt(self, attempt: protocol.Attempt) -> None:
        """Queue an attempt that the warden reports."""
        found = msgspec.convert({**attempt, "environment": self.id}, Attempt)
        if found.rule == "resource.memory" and found.outcome == "killed":
            self._commands.killed_for = "memory"
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._attempts_in.send_nowait(found)

    def on_ready(self, message: Ready, descriptors: list[int]) -> None:
        """Pass each listening socket to the relay of its service.

        Behind the sockets comes the channel on which egress relays report refusals.
        """
        reports = descriptors[len(self._declared) :]
        for forward, listening in zip(self._declared, descriptors, strict=False):
            self._forwards.connect(self.id, forward, listening, reports)

    def on_lost(self) -> None:
        """End the stream of attempts, and the commands that a limit ended."""
        self._attempts_in.close()
        self._commands.on_lost()


def _leftover(process: protocol.LivingProcess) -> Leftover:
    argv = " ".join(process["argv"])
    detail = f"pid {process['ns_pid']} inside: {argv[:200]}"
    return Leftover(kind="process", name=process["comm"], detail=detail)
