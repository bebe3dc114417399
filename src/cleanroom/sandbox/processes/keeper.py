"""The keeper: a fork server and reaper beside the engine, which owns a run's environments.

It outlives the engine just long enough to remove them.
It forks a warden for each environment: a fork of this small process copies none of the engine's
memory.
It makes and removes their control groups, and reads one channel from its owner.
When that channel ends without a goodbye, it ends every environment and removes the resources that
the owner had announced.
Standard library only: it starts in the time of a bare interpreter.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.kernel import cgroups, idmap, process_tree, syscalls
from cleanroom.sandbox.network import dial
from cleanroom.sandbox.processes import warden, warden_hostns
from cleanroom.sandbox.processes.egress_relay import EgressRelay
from cleanroom.sandbox.processes.owner_resources import OwnerResources
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.selftest import probe

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import Identity, SandboxSpec


class _Warden(NamedTuple):
    """A warden that has not been reaped, so that its pid is still its own."""

    environment: str
    group: cgroups.Group | None
    has_egress: bool


class Keeper:
    """Carries out its owner's orders until the owner sends "bye" or has ended."""

    def __init__(self, owner: socket.socket) -> None:
        self._owner = owner
        self._resources = OwnerResources()
        self._egress = EgressRelay(owner)
        self._wardens: dict[int, _Warden] = {}
        # pid of a child that asks the kernel -> its scratch folder
        self._probes: dict[int, str] = {}
        # Made once a run: a map costs more than the rest of an environment's start.
        self._id_maps: dict[tuple[int, int, int, int], int] = {}
        # Some environment has no pid namespace: its orphans become our children.
        self._adopts_orphans = False
        self._goodbye = False

    def serve(self) -> None:
        """Serve until the channel ends, then end the remaining children."""
        reaper = process_tree.Reaper()
        # The owner may be gone already; its orders are waiting all the same.
        with contextlib.suppress(OSError):
            channel.KEEPER_MESSAGES.send(self._owner, {"kind": "up"})
        # Assembled once and cached: wardens are forks.
        for assemble in (filters.medium_filter, filters.service_filter):
            assemble(os.uname().machine)
        while True:
            readable, _, _ = select.select([self._owner.fileno(), reaper.fileno()], [], [])
            if reaper.fileno() in readable:
                for pid, _ in reaper.reap():
                    self._child_ended(pid)
            if self._owner.fileno() in readable and not self._take_order():
                break
        self._end()

    def _take_order(self) -> bool:
        """Carry out one order; False after the last one."""
        try:
            arrived = channel.KEEPER_ORDERS.receive(self._owner)
        except OSError:
            return False
        if arrived is None:
            return False
        order, descriptors = arrived
        match order["op"]:
            case "open":
                self._open(order["spec"], descriptors.pop(0))
            case "probe":
                self._probe(order["scratch"])
            case "end":
                self._kill_warden(order["environment"])
            case "relay":
                self._egress.send(order, descriptors)
            case "journal":
                self._resources.use_journal(descriptors.pop(0))
            case "hold":
                self._resources.keep_locks(descriptors)
                descriptors = []
            case "own":
                self._resources.add_folder(order["folder"], descriptors.pop(0), order["name"])
            case "disown":
                self._resources.forget_folder(order["folder"])
            case "containers":
                _load_container_warden()
            case "container":
                self._resources.track_container(order)
            case "bye":
                self._goodbye = True
                return False
            case _:
                assert_never(order)
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        return True

    def _probe(self, scratch: str) -> None:
        """Ask the kernel in a child, which answers the owner itself."""
        folder = os.path.join(scratch, f"cleanroom-probe-{os.urandom(8).hex()}")
        if pid := os.fork():
            self._probes[pid] = folder
            return
        # prctl(2): not inherited by fork(2), so every child asks for it.
        syscalls.set_parent_death_signal(signal.SIGKILL)
        answer: protocol.Probed | protocol.ProbeFailed
        answer = {"kind": "probe_failed", "error": "its process was interrupted"}
        try:
            process_tree.stop_reaping()
            answer = {"kind": "probed", "report": probe.report(folder)}
        except Exception as error:
            answer = {"kind": "probe_failed", "error": f"{type(error).__name__}: {error}"}
        finally:
            # An owner that has ended meanwhile needs no answer.
            # This child must not outlive the call.
            with contextlib.suppress(OSError):
                channel.KEEPER_MESSAGES.send(self._owner, answer)
            os._exit(0)

    def _open(self, spec: SandboxSpec, descriptor: int) -> None:
        """Fork the warden of one environment.

        Its control group is made first, so that no process of the environment ever runs outside it.
        """
        control = socket.socket(fileno=descriptor)
        host_namespaces = spec["host_namespaces"] is not None
        try:
            id_map = 0 if host_namespaces else self._id_map(spec["identity"])
            group = _make_group(spec)
            # Before the fork, so that its modules are imported once.
            warden_class = _warden_class(spec)
            _stop_importing()
            pid = os.fork()
        except OSError as error:
            why = f"{error.filename or 'start'}: {error.strerror}"
            channel.WARDEN_MESSAGES.send(control, {"kind": "failed", "why": why})
            control.close()
            return
        if pid == 0:
            # Without namespaces the kernel would end nothing of the environment: there the warden
            # outlives us and does it.
            if not host_namespaces:
                syscalls.set_parent_death_signal(signal.SIGKILL)
            process_tree.stop_reaping()
            self._owner.close()
            warden.main(spec, control, id_map, warden_class)
        targets = (forward["to"] for forward in spec["network"]["forwards"])
        has_egress = any(target.startswith(dial.OUTWARD) for target in targets)
        self._wardens[pid] = _Warden(spec["id"], group, has_egress)
        self._adopts_orphans = self._adopts_orphans or host_namespaces
        control.close()

    def _kill_warden(self, environment: str) -> None:
        """Kill a warden that does not end by itself, such as a stopped one.

        The environment's processes end with it.
        """
        for pid, record in self._wardens.items():
            if record.environment == environment:
                os.kill(pid, signal.SIGKILL)

    def _id_map(self, identity: Identity) -> int:
        if identity["mode"] != "root":
            return 0
        ids = (identity["owner"], identity["owner_group"], identity["user"], identity["group"])
        if ids not in self._id_maps:
            self._id_maps[ids] = idmap.open_map(*ids)
        return self._id_maps[ids]

    def _child_ended(self, pid: int) -> None:
        if pid in self._probes:
            # The folder is left only if the probe was killed.
            _remove_folder(self._probes.pop(pid))
        elif pid == self._egress.pid:
            self._end_egress()
        elif pid in self._wardens:
            environment, remaining = self._remove_group(pid)
            with contextlib.suppress(OSError):
                left = [str(path) for path in remaining]
                closed: protocol.Closed
                closed = {"kind": "closed", "environment": environment, "left": left}
                channel.KEEPER_MESSAGES.send(self._owner, closed)

    def _remove_group(self, pid: int) -> tuple[str, list[Path]]:
        """Forget a warden that was reaped; its environment, and the folders of its group that stay.

        By then the kernel has ended every process of the environment.
        """
        record = self._wardens.pop(pid)
        if self._adopts_orphans:
            # A killed warden's processes are children of ours now, and no others are.
            own = {*self._wardens, *self._probes, self._egress.pid}
            process_tree.end(os.getpid(), spare=own)
        remaining = cgroups.clear(record.group) if record.group is not None else []
        return record.environment, remaining

    def _end_egress(self) -> None:
        """The egress relay died. Connections through it would hang, so end each environment with
        egress.
        """
        self._egress.ended()
        for pid, record in self._wardens.items():
            if record.has_egress:
                os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        """End the remaining children; without a goodbye also remove the owner's resources."""
        for pid in (*self._wardens, *self._probes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._wardens or self._probes:
            pid, _ = os.waitpid(-1, 0)
            if pid in self._probes:
                _remove_folder(self._probes.pop(pid))
            elif pid in self._wardens:
                self._remove_group(pid)
        if not self._goodbye:
            self._resources.remove()


def _make_group(spec: SandboxSpec) -> cgroups.Group | None:
    limits = spec["limits"]
    if limits["cgroup"] is None:
        return None
    group = cgroups.Group.from_wire(limits["cgroup"])
    # A container's group is the engine's; ours is only the name beside which limits are proven.
    if spec["container"] is None:
        group.make(memory_bytes=limits["memory_bytes"], pids=limits["pids"], cpus=limits["cpus"])
    return group


def _warden_class(spec: SandboxSpec) -> type[warden.Warden]:
    if spec["host_namespaces"] is not None:
        return warden_hostns.HostnsWarden
    if spec["container"] is None:
        return warden.Warden
    return _load_container_warden()


def _load_container_warden() -> type[warden.Warden]:
    # OwnerResources needs it for the order that follows, when nothing is imported any more.
    from cleanroom.sandbox.processes import container_cleanup  # noqa: F401
    from cleanroom.sandbox.processes.warden_container import ContainerWarden

    return ContainerWarden


def _stop_importing() -> None:
    """Import no module of ours from the first environment on: a phase may be able to write them."""
    for name, module in sys.modules.items():
        if name.partition(".")[0] == "cleanroom" and hasattr(module, "__path__"):
            module.__path__ = []


def _remove_folder(folder: str) -> None:
    with contextlib.suppress(OSError):
        tree_removal.remove_tree(Path(folder))


def main() -> None:
    """Entry point: the owner's end of the channel is standard input."""
    # A new session: kill(2) on the owner's process group does not reach it.
    os.setsid()
    syscalls.set_process_name("cleanroom-keep")
    # prctl(2), since 3.4: orphans of a killed warden become our children and can be waited for.
    syscalls.set_child_subreaper()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal signals the whole group; the owner decides when we end.
        signal.signal(number, signal.SIG_IGN)
    # Descriptor 0 becomes /dev/null: a child must not inherit the channel as its standard input.
    owner = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    Keeper(owner).serve()
    # Everything is written; finalizing the interpreter would keep the owner waiting.
    os._exit(0)
