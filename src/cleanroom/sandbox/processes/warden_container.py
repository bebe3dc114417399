"""The warden of a container, whose namespaces, control group and root an engine makes.

Pid 1 of the container is `shim/init.c`.
It connects to a socket of ours that the engine mounts, and receives its restrictions.
Before that the warden moves the workspace and the other folders into its mount namespace, and opens
the ports of declared services in its network namespace, which is empty but for loopback.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom.core.beneath import unix_address
from cleanroom.sandbox.filesystem import mounts, move_mounts
from cleanroom.sandbox.kernel import cgroups, constants, landlock, pid_namespace, syscalls
from cleanroom.sandbox.network import dns
from cleanroom.sandbox.network.dial import Service
from cleanroom.sandbox.processes.container_canaries import CanaryScripts, group_limits
from cleanroom.sandbox.processes.init_process import InitProcess
from cleanroom.sandbox.processes.service_relay import ServiceRelay
from cleanroom.sandbox.processes.warden import Warden
from cleanroom.sandbox.processes.warden_start import StartFailed
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.selftest import limit_canaries
from cleanroom.sandbox.shim import wire

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import Container, SandboxSpec

# An engine starts a container in 0.2 s usually, in several on a busy machine.
START_SECONDS = 30.0
END_SECONDS = 5.0


class ContainerWarden(Warden):
    """Serves one container from outside."""

    def __init__(self, spec: SandboxSpec, control: socket.socket, id_map: int) -> None:
        super().__init__(spec, control, id_map)
        self._shim: wire.ShimSocket
        self._scripts: CanaryScripts | None = None
        # Never made: only a name beside which a small group proves that limits act.
        self._own_group = self._group
        self._listening = _listen(_container(spec)["socket"], spec["identity"]["user"])

    # --- start

    def _enter_network(self) -> None:
        """Wait for pid 1, and enter its network namespace; its mounts are made later."""
        self._shim, pid = _accept(self._listening, self._control)
        self._init = InitProcess(pid, self._shim.end)
        if processors := self._spec["limits"]["processors"]:
            # A quota of processor time is the engine's, and tells nobody how many there are.
            os.sched_setaffinity(pid, processors)
        self._group = _group_of(pid)
        self._limits.watch(self._group)
        with open(f"/proc/{pid}/ns/net", "rb") as theirs:
            syscalls.setns(theirs.fileno(), constants.CLONE_NEWNET)
        self._pid_namespace = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        # Not every engine does it where it makes no network.
        dns.raise_link("lo")

    def _start_init(self) -> int | None:
        """Complete the container's mounts, and let pid 1 give up its privileges.

        Returns the listener of its filter where calls are held, else None.
        """
        _move_mounts(self._spec, self._init.pid, self._id_map)
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

    def _copy_ups(self) -> None:
        """Nothing: pid 1 is a program in C, which has no such order."""

    def _begin_group_proof(self) -> limit_canaries.Outcome:
        """Make the small group beside our own name, where remains of killed runs are looked for."""
        group = self._own_group
        return limit_canaries.GroupProof(group).results if group is not None else list

    # --- serving

    def _send_to_init(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        assert order["op"] != "copy_up", "it has no overlays of which we know"
        if order["op"] != "prove":
            self._shim.order(order, descriptors)
            return
        self._scripts = CanaryScripts(order)
        self._send_next_script(self._scripts)

    def _receive_from_init(self) -> tuple[protocol.InitMessage, list[int]] | None:
        """Pid 1's next message while it starts; None when it has ended."""
        arrived = self._shim.receive()
        if arrived is None:
            return None
        message, descriptors = arrived
        if message["kind"] == "listening" or message["kind"] == "tried":
            raise StartFailed(f"pid 1 said {message['kind']} out of turn")
        return message, descriptors

    def _handle_init_message(self) -> bool:
        arrived = self._shim.receive()
        if arrived is None:
            return False
        message = arrived[0]
        match message["kind"]:
            case "tried":
                if self._scripts is not None:
                    self._scripts.add_result(message["told"])
                    self._send_next_script(self._scripts)
            case "listening":
                # `_start_init` has waited for it.
                pass
            case _:
                self._forward_message(message)
        return True

    def _send_next_script(self, scripts: CanaryScripts) -> None:
        """Send the next script to pid 1, or after the last one all outcomes to the engine."""
        script = scripts.next()
        if script is not None:
            self._shim.send(wire.attempt(scripts.number, script.steps))
            return
        self._scripts = None
        group, limits = self._group, self._spec["limits"]
        enforced = group_limits(group, limits) if group is not None else []
        run: protocol.CanariesRun = {
            "kind": "canaries",
            "n": scripts.number,
            "results": scripts.runs(),
            "limits": [*scripts.limits(), *enforced],
        }
        self._forward_message(run)

    def _start_relay(self) -> ServiceRelay:
        service = Service(self._socket_folders)
        inherited = (self._control, self._init.end)

        def fork() -> int:
            return pid_namespace.fork_into(self._pid_namespace)

        return ServiceRelay(service, self._spec["identity"], inherited, fork)

    # --- end

    def _kill(self) -> None:
        """The relay is no child of this process, and ends with its channel."""
        super()._kill()
        if self._relay is not None:
            self._relay.close()

    def _await_end(self) -> None:
        """Pid 1 is the engine's child: a pidfd is readable once its process has ended."""
        select.select([self._init.pidfd], [], [], END_SECONDS)


def _listen(path: str, user: int) -> socket.socket:
    """Listen on a unix socket at `path`, to which the container's user may connect."""
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
    """Accept pid 1's connection; returns it and the host's pid of pid 1.

    Pid 1 connects first, since nothing else runs yet, and nobody can connect after it.
    An order ends the wait, since only "kill" can come before the environment is ready, and so does
    the end of the engine's channel.

    Raises:
        StartFailed: nobody connected.
    """
    with listening:
        readable, _, _ = select.select([listening, control], [], [], START_SECONDS)
        if listening not in readable:
            if readable:
                raise StartFailed("it was ended before it started")
            raise StartFailed(f"the container did not start within {START_SECONDS:g} s")
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


def _move_mounts(spec: SandboxSpec, pid: int, id_map: int) -> None:
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
