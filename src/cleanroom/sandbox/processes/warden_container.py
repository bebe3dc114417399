"""The warden of a container: the same as of any environment,
but that an engine makes the namespaces, the group and the view of the image.

Pid 1 in there is `shim/init.c`.
It connects to a socket of ours that the engine shows it, and is told what to give up.
Before that the workspace and the other folders are moved into its mount namespace,
and the ports of declared services are opened in its network namespace,
which is empty but for loopback.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom.core.beneath import unix_address
from cleanroom.sandbox.filesystem import mounts, move_mounts
from cleanroom.sandbox.kernel import cgroups, constants, landlock, process_tree, syscalls
from cleanroom.sandbox.network import dns as names
from cleanroom.sandbox.processes.warden import StartFailed, Warden
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.selftest import canaries
from cleanroom.sandbox.selftest import limit_canaries as limits
from cleanroom.sandbox.shim import calls, wire

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import Container, Limits, SandboxSpec

# for the engine to start a container: 0.2 s usually, several on a busy machine
START_SECONDS = 30.0
END_SECONDS = 5.0
# between two looks whether pid 1 has taken a child over,
# which takes as long as the process between needs to end
ADOPTED_SECONDS = 0.001


class ContainerWarden(Warden):
    """Serves one container from outside."""

    def __init__(self, spec: SandboxSpec, control: socket.socket, id_map: int) -> None:
        super().__init__(spec, control, id_map)
        self._shim: wire.ShimSocket
        self._proof: _Proof | None = None
        self._beside = self._group  # of our own, never made itself
        self._listening = _listen(_container(spec)["socket"], spec["identity"]["user"])

    # --- start

    def _enter(self) -> None:
        """Wait for pid 1, and go where its network is; its view stays to be made."""
        self._shim, self._init = _accept(self._listening, self._control)
        self._orders = self._shim.end
        self._pidfd = syscalls.pidfd_open(self._init)
        self._group = _group_of(self._init)
        self._before = self._counters()
        with open(f"/proc/{self._init}/ns/net", "rb") as theirs:
            syscalls.setns(theirs.fileno(), constants.CLONE_NEWNET)
        self._numbers = os.open(f"/proc/{self._init}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        names.raise_link("lo")  # which not every engine does where it makes no network

    def _start_init(self) -> int | None:
        """Complete its view, and let it give up the rest; the listener of its filter where calls
        are held.
        """
        _show(self._spec, self._init, self._id_map)
        self._shim.send(_restrictions(self._spec))
        if not self._spec["notify"]:
            return None
        arrived = self._shim.receive()
        if arrived is None:
            raise StartFailed("pid 1 ended while it started")
        message, descriptors = arrived
        if not descriptors:
            silent = "the filter's listener was not handed over"
            raise StartFailed(message["why"] if message["kind"] == "failed" else silent)
        return descriptors[0]

    def _fork_inside(self) -> int:
        """The container's pid namespace is for this child alone, and for nobody else we fork.

        It becomes a child of the container's pid 1, which reaps it: a process of the namespace that
        nobody outside has waited for keeps pid 1 from ending, and the engine from removing it. So
        it was where this warden was killed and whoever got its children reaps none.
        """
        with open("/proc/self/ns/pid", "rb") as ours:
            syscalls.setns(self._numbers, constants.CLONE_NEWPID)
            pid = -1
            try:
                pid = os.fork()
            finally:
                if pid:  # the child cannot leave it, and need not
                    syscalls.setns(ours.fileno(), constants.CLONE_NEWPID)
        if pid:
            os.waitpid(pid, 0)
            return pid
        # without a relay its service is lost, as with one that ends
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                return self._adopted()
        os._exit(0)

    def _adopted(self) -> int:
        """Zero, once pid 1 is this process's parent: a death signal that is set before would be
        that of the process between.
        """
        while os.getppid() != 1:
            time.sleep(ADOPTED_SECONDS)
        return 0

    def _begin_group_proof(self) -> limits.Outcome:
        """In a small group of our own and not beside the container's,
        where nobody would look for what a killed run left.
        """
        return limits.GroupProof(self._beside).results if self._beside is not None else list

    # --- serving

    def _order(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        if order["op"] != "prove":
            self._shim.order(order, descriptors)
            return
        self._proof = _Proof(order)
        self._try_next(self._proof)

    def _news(self) -> tuple[protocol.InitMessage, list[int]] | None:
        """What pid 1 says while it starts."""
        arrived = self._shim.receive()
        if arrived is None:
            return None
        message, descriptors = arrived
        if message["kind"] == "listening" or message["kind"] == "tried":
            raise StartFailed(f"pid 1 said {message['kind']} out of turn")
        return message, descriptors

    def _from_init(self) -> bool:
        arrived = self._shim.receive()
        if arrived is None:
            return False
        message = arrived[0]
        match message["kind"]:
            case "tried":
                if self._proof is not None:
                    self._proof.told(message["told"])
                    self._try_next(self._proof)
            case "listening":
                pass  # it was waited for before we served
            case _:
                self._tell(message)
        return True

    def _try_next(self, proof: _Proof) -> None:
        """Send the next attempt, or pass on what all of them said."""
        script = proof.next()
        if script is not None:
            self._shim.send(wire.attempt(proof.number, script.steps))
            return
        self._proof = None
        own = _limits_told(self._group, self._spec["limits"]) if self._group is not None else []
        told: protocol.CanariesRun = {
            "kind": "canaries",
            "n": proof.number,
            "results": proof.results(),
            "limits": [*proof.limits(), *own],
        }
        self._tell(told)

    def _end(self) -> None:
        """Kill it and wait until the kernel has ended all of it;
        our relay ends with its channel.
        """
        with contextlib.suppress(OSError):
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._relay is not None:
            self._relay.close()
        if self._recorder is not None:
            with contextlib.suppress(OSError):
                self._recorder.flush()
        process_tree.wait_for_children()
        select.select([self._pidfd], [], [], END_SECONDS)
        with contextlib.suppress(OSError):
            self._report_limits(next(iter(self._commands.values()), None), 0)
            self._send({"kind": "ended"})


class _Proof:
    """The canaries of one order, tried one after the other."""

    def __init__(self, order: protocol.Prove) -> None:
        self.number = order["n"]
        self._expect = order["expect"]
        asked = [*canaries.asked(self._expect), *([calls.LIMIT] if order["limits"] else [])]
        self._work = [
            (which, script) for which in asked for script in calls.scripts(self._expect, which)
        ]
        self._given: list[list[calls.Told]] = []
        self._asked = asked

    def next(self) -> calls.Script | None:
        return self._work[len(self._given)][1] if len(self._given) < len(self._work) else None

    def told(self, told: list[calls.Told]) -> None:
        self._given.append(told)

    def results(self) -> list[protocol.CanaryRun]:
        return [self._result(which) for which in self._asked if which is not calls.LIMIT]

    def limits(self) -> list[protocol.CanaryResult]:
        """Nothing records them."""
        rows = [self._result(which) for which in self._asked if which is calls.LIMIT]
        return canaries.judge(rows, ())

    def _result(self, which: canaries.Canary) -> protocol.CanaryRun:
        given = [
            (script, told)
            for (of, script), told in zip(self._work, self._given, strict=True)
            if of is which
        ]
        return calls.judge(which, self._expect, given)


def _listen(path: str, user: int) -> socket.socket:
    """A socket at a path of ours that may be longer than an address holds;
    the container's user may connect.
    """
    folder, name = os.path.split(path)
    held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(unix_address(held, name))
        os.chown(path, user, user)
        listening.listen(1)
    finally:
        os.close(held)
    return listening


def _accept(listening: socket.socket, control: socket.socket) -> tuple[wire.ShimSocket, int]:
    """Pid 1's connection and its number here.

    It is the first to connect, since nothing else runs yet; nobody can connect after it.

    An order or the end of the engine's channel meanwhile ends the wait:
    only "kill" can come before we are ready.
    """
    with listening:
        readable, _, _ = select.select([listening, control], [], [], START_SECONDS)
        if listening not in readable:
            raise StartFailed(
                "it was ended before it started"
                if readable
                else f"the container did not start within {START_SECONDS:g} s"
            )
        end, _ = listening.accept()
    pid, _, _ = struct.unpack("=iii", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return wire.ShimSocket(end), pid


def _group_of(pid: int) -> cgroups.Group | None:
    """The group that the engine put the container into."""
    own = Path(f"/proc/{pid}/cgroup").read_text()
    found: dict[str, Path] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for controller in names.split(",") if names else ():
            folder = next(
                (
                    f
                    for f in (cgroups.ROOT / names / path[1:], cgroups.ROOT / controller / path[1:])
                    if f.is_dir()
                ),
                None,
            )
            if controller in cgroups.CONTROLLERS and folder is not None and path != "/":
                found[controller] = folder
        if not names and (cgroups.ROOT / path[1:] / "cgroup.controllers").exists() and path != "/":
            return cgroups.Group(2, dict.fromkeys(cgroups.CONTROLLERS, cgroups.ROOT / path[1:]))
    return cgroups.Group(1, found) if {"memory", "pids"} <= set(found) else None


def _container(spec: SandboxSpec) -> Container:
    container = spec["container"]
    assert container is not None, "the keeper chose this warden for it"
    return container


def _show(spec: SandboxSpec, pid: int, id_map: int) -> None:
    """Move the folders of the view into the container, in a child, since it enters namespaces.

    Raises:
        StartFailed: something could not be put in place.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            identity = spec["identity"]
            owner = mounts.Owner(identity["user"], identity["group"], id_map)
            files, targets = spec["filesystem"], _container(spec)["targets"]
            move_mounts.show(files["mounts"], targets, files["root"], owner, pid)
            status = 0
        except BaseException as error:
            text = (
                f"{error.filename}: {error.strerror}"
                if isinstance(error, OSError) and error.filename
                else f"{type(error).__name__}: {error}"
            )
            os.write(writing, text.encode(errors="replace")[:4000])
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as said:
        trouble = said.read().decode()
    _, status = os.waitpid(child, 0)
    if status:
        raise StartFailed(trouble or "showing the workspace in the container failed")


def _restrictions(spec: SandboxSpec) -> bytes:
    files = spec["filesystem"]
    listed = files["allowlist"]
    readable, executable = files["readable"], files["executable"]
    if listed:
        readable, executable = [*readable, *executable], files["programs"]
    writable = [*files["writable"], "/proc"]
    attributes, rules = landlock.rules(
        readable, writable, executable, listable=["/"], run_written=not listed
    )
    machine = os.uname().machine
    held = filters.high_filter if listed else filters.medium_filter
    choose = held if spec["notify"] else filters.service_filter
    program = choose(machine)
    return wire.restrict(attributes, rules, program, hold=spec["notify"])


def _limits_told(group: cgroups.Group, limits_asked: Limits) -> list[protocol.CanaryResult]:
    """Accepted is not enforced: what the engine wrote into the group is read from the kernel."""
    asked = {"memory": limits_asked["memory_bytes"], "pids": limits_asked["pids"]}
    names = {1: ("memory.limit_in_bytes", "pids.max"), 2: ("memory.max", "pids.max")}[group.version]
    rows = []
    for rule, controller, name in (
        ("resource.memory", "memory", names[0]),
        ("resource.pids", "pids", names[1]),
    ):
        with contextlib.suppress(OSError, KeyError):
            found = (group.folders[controller] / name).read_text().strip()
            rows.append(
                canaries.result(
                    f"the container's own {controller} limit",
                    rule,
                    str(asked[controller]),
                    found,
                    found == str(asked[controller]),
                )
            )
            continue
        rows.append(
            canaries.result(
                f"the container's own {controller} limit",
                rule,
                str(asked[controller]),
                "cannot be read",
                False,
            )
        )
    return rows
