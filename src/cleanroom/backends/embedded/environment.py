"""The embedded backend's environments, from the engine's side:
orders go to a warden, news come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, ExecResult, Leftover, OnOutput
from cleanroom.backends.embedded.decoys import Decoys
from cleanroom.backends.embedded.path_map import PathMap
from cleanroom.backends.embedded.pipes import OutputPipe
from cleanroom.backends.embedded.spec import Described, environment_user
from cleanroom.model.capability import Attempt, Canary, Sample
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link
from cleanroom.sandbox.journal import Resource
from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.processes.samples import Sampler

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import (
        Answer,
        Dial,
        Execute,
        Forward,
        ListProcesses,
        Prove,
        Ready,
        SandboxSpec,
        WardenMessage,
        WardenOrder,
    )

START_SECONDS = 20.0  # a thousand times what was measured, so only a hang reaches it
# how long an end by SIGKILL may take to be told: milliseconds,
# more on a machine that is out of memory
KILL_SECONDS = 3.0
# how long output may still come after a command has ended and something else holds its pipe
DRAIN_SECONDS = 0.5


class Host(Protocol):
    """What an environment needs of the backend that made it."""

    outer_filter: bool

    def record(self, kind: str, name: str) -> Resource: ...

    def gone(self, thing: Resource) -> None: ...

    async def folder(self, path: Path) -> Resource: ...

    async def root_of(self, identity: str) -> Path: ...

    async def drop_folder(self, thing: Resource) -> None: ...

    def first_proof(self) -> bool: ...

    def opened(
        self, environment: EmbeddedEnvironment, descriptor: int, spec: SandboxSpec
    ) -> None: ...

    async def closed(self, identity: str) -> bool: ...

    def relay(
        self, owner: str, door: Forward, descriptor: int, told: Sequence[int] = ()
    ) -> None: ...

    def reconnect(self, environment: EmbeddedEnvironment) -> None: ...

    def forget_doors(self, owner: str) -> None: ...

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described: ...

    async def give_back(self, spec: EnvironmentSpec) -> None: ...

    @property
    def plants(self) -> Path: ...


class EmbeddedEnvironment:
    """One environment, seen from the engine: orders go to its warden, news come back."""

    def __init__(self, backend: Host, spec: EnvironmentSpec) -> None:
        self.id = spec.id
        self._backend = backend
        self._spec = spec
        self._link: Link[WardenMessage] | None = None
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._forwards: list[Forward] = []
        # An order's number -> what it waits for: its answer with descriptors,
        # or a command's status.
        self._answers: dict[int, asyncio.Future[tuple[Answer, list[int]]]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._number = 0
        self._pids: dict[int, int] = {}
        self._killed_for = ""
        # nobody in it acted on SIGKILL, which the result of its command says
        self._given_up = False
        self._tell, self._attempts = anyio.create_memory_object_stream[Attempt](math.inf)
        self._sampler: Sampler | None = None
        self._things: list[Resource] = []
        self._environment_thing: Resource | None = None
        self._opened = False
        self._lost = asyncio.Event()
        self._places = PathMap()
        self._temporary = ""

    # --- life

    def uses(self, folder: Path) -> bool:
        """Does something that it shows lie in this folder of the host?"""
        return any(Path(mount.source).is_relative_to(folder) for mount in self._spec.mounts)

    async def start(self) -> None:
        """Make it; returns when its init has given up every privilege.

        Raises:
            EnvironmentFailed: a step failed; the message names it.
        """
        root = await self._backend.root_of(self.id)
        self._things.append(await self._backend.folder(root))
        described = await self._backend.describe(self._spec, root)
        spec, self._places, self._temporary = described.spec, described.places, described.temporary
        self._forwards = spec["network"]["forwards"]
        self._environment_thing = self._backend.record("environment", self.id)
        mine, theirs = channel.pair()
        self._link = Link(mine, channel.WARDEN_MESSAGES.receive, self._news, self._gone)
        try:
            self._backend.opened(self, theirs.fileno(), spec)
            self._opened = True
        finally:
            theirs.close()
        await self._begin(spec)
        try:
            with anyio.fail_after(START_SECONDS):
                ready = await self._ready
        except TimeoutError:
            raise EnvironmentFailed(
                "CR-SANDBOX-005",
                f"environment {self.id} did not start within {START_SECONDS:.0f} s",
            ) from None
        self._backend.reconnect(self)
        group = ready["cgroup"]
        self._sampler = Sampler(
            ready["init"],
            cgroups.Group.from_wire(group) if group is not None else None,
            described.written,
            self._spec.policy.limits.memory_bytes,
            own_network=spec["host_namespaces"] is None,
        )

    async def _begin(self, spec: SandboxSpec) -> None:
        """Whatever has to be done beside its warden for it to start."""

    async def leave(self) -> None:
        """End it and wait for its end.

        Safe to call twice.

        Raises:
            EnvironmentFailed: after all is removed: its warden had to be killed,
                and with it went what it had not told yet.
        """
        told = True
        if self._opened:
            self._opened = False
            with contextlib.suppress(EnvironmentFailed):
                self.order({"op": "kill"})
            told = await self._backend.closed(self.id) or self._given_up
            await self._backend.give_back(self._spec)
        if self._link is not None:
            self._link.close()
        self._backend.forget_doors(self.id)
        self._tell.close()
        self._attempts.close()
        if self._environment_thing is not None:
            self._backend.gone(self._environment_thing)
            self._environment_thing = None
        for thing in self._things:
            await self._backend.drop_folder(thing)
        self._things.clear()
        if not told:
            raise EnvironmentFailed(
                "CR-SANDBOX-006",
                (
                    f"environment {self.id} did not end by itself: what was tried in it last may "
                    "not have been told"
                ),
            )

    def order(self, message: WardenOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order to the warden."""
        assert self._link is not None
        try:
            self._link.send(message, descriptors)
        except OSError:
            raise EnvironmentFailed("CR-SANDBOX-006", f"environment {self.id} has ended") from None

    def _news(self, message: WardenMessage, descriptors: list[int]) -> None:
        """One message from the warden. Descriptors of an answer go to whoever asked."""
        match message["kind"]:
            case "attempt":
                self._heard(message["attempt"])
            case "failed":
                self._failed(message["why"])
            case "ready":
                self._connect(message, descriptors)
            case "started":
                self._pids[message["n"]] = message["pid"]
            case "exited":
                ended = self._exits.pop(message["n"], None)
                if ended is not None and not ended.done():
                    ended.set_result(message["status"])
            case "proved" | "proof_failed" | "dialed" | "dial_failed" | "processes":
                waiting = self._answers.pop(message["n"], None)
                if waiting is not None and not waiting.done():
                    waiting.set_result((message, descriptors))
                    return
            case "ended":
                pass  # its end of the channel closes
            case _:
                assert_never(message)
        for descriptor in descriptors:
            os.close(descriptor)

    def _failed(self, why: str) -> None:
        """It could not be made."""
        if not self._ready.done():
            told = f"environment {self.id} could not be made: {why}"
            self._ready.set_exception(EnvironmentFailed("CR-SANDBOX-005", told))
            self._ready.exception()  # whoever waited may have been cancelled

    def _connect(self, message: Ready, descriptors: list[int]) -> None:
        """Its listening sockets came out: give each to the relay of its service,
        then it is ready.
        """
        # where relays of declared hosts say what they refused
        told = descriptors[len(self._forwards) :]
        try:
            for forward, descriptor in zip(self._forwards, descriptors, strict=False):
                self._backend.relay(self.id, forward, descriptor, told)
        except (EnvironmentFailed, OSError) as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            return
        if not self._ready.done():
            self._ready.set_result(message)

    def _heard(self, fields: protocol.Attempt) -> None:
        attempt = msgspec.convert({**fields, "environment": self.id}, Attempt)
        if attempt.rule == "resource.memory" and attempt.outcome == "killed":
            self._killed_for = "memory"
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._tell.send_nowait(attempt)

    def _gone(self) -> None:
        """The warden has ended: whoever waits for it learns so."""
        self._lost.set()
        self._tell.close()
        if self._killed_for:
            self._end_commands()
        failure = EnvironmentFailed("CR-SANDBOX-006", f"environment {self.id} ended")
        _fail([self._ready, *self._answers.values(), *self._exits.values()], failure)
        self._answers.clear()
        self._exits.clear()

    def _end_commands(self) -> None:
        """A limit that its commands went past ended them, and then also the first process."""
        for ended in self._exits.values():
            if not ended.done():
                ended.set_result(128 + signal.SIGKILL)
        self._exits.clear()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def _answer(self, order: Prove | Dial | ListProcesses) -> tuple[Answer, list[int]]:
        """Send an order and wait for its answer."""
        waiting: asyncio.Future[tuple[Answer, list[int]]]
        waiting = asyncio.get_running_loop().create_future()
        self._answers[order["n"]] = waiting
        self.order(order)
        return await waiting

    # --- what is done in it

    async def prove(self) -> tuple[Canary, ...]:
        """Try what the policy forbids, inside."""
        with Decoys(self._backend.plants) as decoys:
            order: Prove = {
                "op": "prove",
                "n": self._next_number(),
                "expect": decoys.expectations(
                    self._spec, self._temporary, outer_filter=self._backend.outer_filter
                ),
                "limits": self._backend.first_proof(),
            }
            why = f"no end within {START_SECONDS:.0f} s"
            with anyio.move_on_after(START_SECONDS):
                answer, _ = await self._answer(order)
                if answer["kind"] == "proved":
                    return tuple(msgspec.convert(result, Canary) for result in answer["results"])
                assert answer["kind"] == "proof_failed", answer["kind"]
                why = answer["why"]
        told = f"environment {self.id}: the canaries did not come to their end: {why}"
        raise EnvironmentFailed("CR-SANDBOX-008", told)

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult:
        """Run a command and wait for its end."""
        began = time.monotonic()
        self._killed_for = ""
        number = self._next_number()
        exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exits[number] = exited
        out = OutputPipe(lambda piece: on_output("stdout", piece))
        err = OutputPipe(lambda piece: on_output("stderr", piece))
        timed_out = False
        try:
            self._send_command(number, argv, out, err)
            with anyio.move_on_after(timeout_seconds) as limit:
                status = await asyncio.shield(exited)
            if limit.cancelled_caught:
                timed_out = True
                status = await self._stop(number, exited)
            with anyio.move_on_after(DRAIN_SECONDS):
                await out.ended.wait()
                await err.ended.wait()
        except BaseException:
            with anyio.CancelScope(shield=True), contextlib.suppress(EnvironmentFailed):
                self.order({"op": "signal", "n": number, "signal": int(signal.SIGKILL)})
                with anyio.move_on_after(1):
                    await asyncio.shield(exited)
            raise
        finally:
            out.close()
            err.close()
        return ExecResult(
            exit_code=status,
            duration_seconds=time.monotonic() - began,
            started_pid=self._pids.get(number, 0),
            timed_out=timed_out,
            killed_for=self._killed_for,
        )

    def _send_command(
        self, number: int, argv: Sequence[str], out: OutputPipe, err: OutputPipe
    ) -> None:
        """The order to start it, with its three streams."""
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # else opening /dev/stdout inside would be refused by the pipe's own mode
        if os.geteuid() == 0:
            user = environment_user(self._spec.run_id)
            os.fchown(out.write_end, user, user)
            os.fchown(err.write_end, user, user)
        try:
            # what a person wrote is run as it is written
            words = list(argv) if self._spec.role == "phase" else self._places.translate_all(argv)
            variables, folder = (
                self._places.translate_values(self._spec.variables),
                self._places.translate(self._spec.working_directory),
            )
            order: Execute = {
                "op": "exec",
                "n": number,
                "argv": words,
                "env": variables,
                "cwd": folder,
            }
            self.order(order, [nothing, out.write_end, err.write_end])
        finally:
            os.close(nothing)
            out.close_write_end()
            err.close_write_end()

    async def _stop(self, number: int, exited: asyncio.Future[int]) -> int:
        """SIGTERM, the policy's grace, then SIGKILL.

        Where nobody inside acts on it, as in a container that was paused,
        all of it is ended from outside.
        """
        self.order({"op": "signal", "n": number, "signal": int(signal.SIGTERM)})
        with anyio.move_on_after(self._spec.policy.limits.grace_seconds):
            return await asyncio.shield(exited)
        self.order({"op": "signal", "n": number, "signal": int(signal.SIGKILL)})
        with anyio.move_on_after(KILL_SECONDS):
            return await asyncio.shield(exited)
        self._given_up = True
        self.order({"op": "kill"})
        exited.cancel()
        return 128 + signal.SIGKILL

    async def attempts(self) -> AsyncIterator[Attempt]:
        """Attempts as they happen, until the environment ends."""
        # it was left without its warden's end being seen
        with contextlib.suppress(anyio.ClosedResourceError):
            async with self._attempts:
                async for attempt in self._attempts:
                    yield attempt

    async def dial(self, to: str) -> anyio.abc.ByteStream:
        """Connect into it."""
        answer, descriptors = await self._answer({"op": "dial", "n": self._next_number(), "to": to})
        if answer["kind"] == "dial_failed":
            raise OSError(answer["errno"], os.strerror(answer["errno"]), to)
        end = socket.socket(fileno=descriptors[0])
        end.setblocking(False)
        if end.family == socket.AF_UNIX:
            return await anyio.abc.UNIXSocketStream.from_socket(end)
        return await anyio.abc.SocketStream.from_socket(end)

    def admit(self, listening: socket.socket, to: str) -> None:
        """Give a listening socket of the host to its relay."""
        self.order({"op": "relay", "to": to}, [listening.fileno()])

    def dismiss(self, listening: socket.socket) -> None:
        """Take such a socket back."""
        with contextlib.suppress(EnvironmentFailed):
            self.order({"op": "drop", "inode": os.fstat(listening.fileno()).st_ino})

    async def sample(self, *, last: bool = False) -> Sample | None:
        """Its use of the host now."""
        if self._sampler is None or self._lost.is_set():
            return None
        return await anyio.to_thread.run_sync(self._sampler.take, last)

    async def left_over(self) -> tuple[Leftover, ...]:
        """What outlived its command."""
        try:
            with anyio.move_on_after(2):
                answer, _ = await self._answer({"op": "left", "n": self._next_number()})
                assert answer["kind"] == "processes", answer["kind"]
                return tuple(
                    Leftover(
                        kind="process",
                        name=p["comm"],
                        detail=f"pid {p['ns_pid']} inside: {' '.join(p['argv'])[:200]}",
                    )
                    for p in answer["processes"]
                )
        except EnvironmentFailed:
            pass
        return ()

    async def kill(self) -> None:
        """End every process in it."""
        with contextlib.suppress(EnvironmentFailed, OSError):
            self.order({"op": "kill"})
            await self._lost.wait()


def _fail(everyone: Iterable[asyncio.Future[Any]], failure: Exception) -> None:
    """Tell whoever still waits, if anybody does."""
    for waiting in everyone:
        if not waiting.done():
            waiting.set_exception(failure)
            waiting.exception()
