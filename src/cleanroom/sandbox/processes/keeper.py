"""The keeper: a small process beside the engine that owns the environments of a run,
and outlives the engine just long enough to remove them.

It forks a warden for each environment (from a small process,
so that a start costs no copy of the engine's memory), makes and removes their control groups,
and reads one channel from its owner.
When the owner is gone without a word, it ends every environment and removes what the owner had said
it would make.
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
from typing import TYPE_CHECKING, assert_never

from cleanroom.sandbox import channel, journal
from cleanroom.sandbox.filesystem import tree_removal
from cleanroom.sandbox.kernel import cgroups, idmap, process_tree, syscalls
from cleanroom.sandbox.network import relay
from cleanroom.sandbox.processes import warden, warden_hostns
from cleanroom.sandbox.seccomp import filters
from cleanroom.sandbox.selftest import probe

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.processes.container_cleanup import Containers
    from cleanroom.sandbox.protocol import Identity, SandboxSpec

# for wardens to end after SIGKILL: a hundred times what was measured,
# to be said and not waited for ever
GRACE_SECONDS = 5.0


class Keeper:
    def __init__(self, owner: socket.socket) -> None:
        self._owner = owner
        # pid -> environment, its group
        self._wardens: dict[int, tuple[str, cgroups.Group | None]] = {}
        self._folders: dict[
            str, tuple[int, str]
            # folders to remove should the owner die -> the folder around each, held open,
            # and its name there
        ] = {}
        self._journal: journal.Journal | None = None  # which names them
        # files that say that the run lives, until the last of it is removed
        self._held: list[int] = []
        self._probes: dict[int, str] = {}  # pid of who asks the kernel -> its folder
        self._egress: socket.socket | None = None
        self._egress_pid = 0
        self._outward: set[int] = set()  # wardens whose environments have declared hosts
        # made once a run, they cost more than the rest of a start
        self._id_maps: dict[tuple[int, int, int, int], int] = {}
        self._containers: Containers | None = None  # of an engine, to remove should the owner die
        self._helpers: set[int] = set()  # our children that are no wardens
        # there are environments whose processes come to us when their warden is killed
        self._bare = False
        self._bye = False

    def serve(self) -> None:
        """Carry out the owner's orders until it says goodbye or is gone."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # it is gone already: its orders are waiting all the same
        with contextlib.suppress(OSError):
            channel.KEEPER_MESSAGES.send(self._owner, {"kind": "up"})
        for prepare in (filters.medium_filter, filters.service_filter):
            prepare(os.uname().machine)  # assembled once; the wardens are forks
        while True:
            readable, _, _ = select.select([self._owner.fileno(), wake_read], [], [])
            if wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._owner.fileno() in readable and not self._take_order():
                break
        self._end()

    def _take_order(self) -> bool:
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
                self._end_warden(order["environment"])
            case "relay":
                self._relay_out(order, descriptors)
            case "journal":
                self._journal = journal.Journal(descriptors.pop(0))
            case "hold":
                self._held += descriptors
                descriptors.clear()
            case "own":
                self._folders[order["folder"]] = (descriptors.pop(0), order["name"])
            case "disown":
                self._disown(order["folder"])
            case "container":
                self._take_container(order)
            case "bye":
                self._bye = True
                return False
            case _:
                assert_never(order)
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        return True

    def _disown(self, folder: str) -> None:
        around, _ = self._folders.pop(folder, (-1, ""))
        if around >= 0:
            os.close(around)

    def _probe(self, scratch: str) -> None:
        """Ask the kernel in a child, which answers the owner itself."""
        folder = os.path.join(scratch, f"cleanroom-probe-{os.urandom(8).hex()}")
        if pid := os.fork():
            self._probes[pid] = folder
            self._helpers.add(pid)
            return
        syscalls.set_parent_death_signal(signal.SIGKILL)
        answer: protocol.Probed | protocol.ProbeFailed
        answer = {"kind": "probe_failed", "error": "its process was interrupted"}
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer = {"kind": "probed", "report": probe.report(folder)}
        except Exception as error:
            answer = {"kind": "probe_failed", "error": f"{type(error).__name__}: {error}"}
        finally:
            # An owner that has ended meanwhile needs no answer.
            # This child must not outlive the call.
            with contextlib.suppress(OSError):
                channel.KEEPER_MESSAGES.send(self._owner, answer)
            os._exit(0)

    def _relay_out(self, order: protocol.Relay, descriptors: list[int]) -> None:
        """Give listening sockets for declared hosts to the relay that may connect out,
        started with the first.
        """
        if self._egress is None:
            self._egress, theirs = channel.pair()
            pid = os.fork()
            if pid == 0:
                syscalls.set_parent_death_signal(signal.SIGKILL)
                syscalls.set_process_name("relay out")
                signal.set_wakeup_fd(-1)
                self._owner.close()
                self._egress.close()
                with contextlib.suppress(BaseException):
                    relay.Relay(theirs, relay.dial_out, slow=True).serve()
                os._exit(0)
            self._helpers.add(pid)
            theirs.close()
            self._egress_pid = pid
        # it was killed: its environments are ended when it is reaped
        with contextlib.suppress(OSError):
            channel.RELAY_ORDERS.send(self._egress, order, descriptors)

    def _open(self, spec: SandboxSpec, descriptor: int) -> None:
        """Fork the warden of one environment; its group is made first,
        so that nothing of it ever runs outside.
        """
        control = socket.socket(fileno=descriptor)
        try:
            bare_spec = spec["host_namespaces"] is not None
            id_map = 0 if bare_spec else self._id_map(spec["identity"])
            group = _make_group(spec)
            kind = _kind(spec)  # before there are two of us: what it imports is imported once
            _import_no_more()
            pid = os.fork()
        except OSError as error:
            why = f"{error.filename or 'start'}: {error.strerror}"
            channel.WARDEN_MESSAGES.send(control, {"kind": "failed", "why": why})
            control.close()
            return
        if pid == 0:
            # A bare one sees itself that we are gone, and ends what nothing else would end then.
            if not bare_spec:
                syscalls.set_parent_death_signal(signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._owner.close()
            warden.main(spec, control, id_map, kind)
        self._wardens[pid] = (spec["id"], group)
        if any(door["to"].startswith(relay.OUTWARD) for door in spec["network"]["forwards"]):
            self._outward.add(pid)
        self._bare = self._bare or bare_spec
        control.close()

    def _end_warden(self, environment: str) -> None:
        """Kill a warden that does not end by itself, as one that somebody stopped;
        what it made ends with it.
        """
        for pid, (name, _) in self._wardens.items():
            if name == environment:
                os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its

    def _id_map(self, identity: Identity) -> int:
        if identity["mode"] != "root":
            return 0
        ids = (identity["owner"], identity["owner_group"], identity["user"], identity["group"])
        if ids not in self._id_maps:
            self._id_maps[ids] = idmap.open_map(*ids)
        return self._id_maps[ids]

    def _take_container(self, order: protocol.TrackContainer) -> None:
        """Imported with the first container: speaking HTTP costs more than the rest of our
        start.
        """
        if self._containers is None:
            from cleanroom.sandbox.processes.container_cleanup import Containers

            self._containers = Containers()
        self._containers.take(order)

    def _reap(self) -> None:
        """Wardens that ended: remove their groups and say so.

        By then the kernel has ended everything of theirs.
        """
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._helpers.discard(pid)
            if pid in self._probes:
                _remove_folder(self._probes.pop(pid))  # there only if it was killed
            if pid == self._egress_pid:
                self._end_outward()
            if pid in self._wardens:
                name, group = self._wardens.pop(pid)
                self._outward.discard(pid)
                self._end_orphans()
                left = [str(path) for path in cgroups.clear(group)] if group is not None else []
                with contextlib.suppress(OSError):
                    closed: protocol.Closed = {"kind": "closed", "environment": name, "left": left}
                    channel.KEEPER_MESSAGES.send(self._owner, closed)

    def _end_orphans(self) -> None:
        """Without a pid namespace, what a killed warden leaves becomes our child;
        so does nothing else.
        """
        if self._bare:
            process_tree.end(os.getpid(), spare={*self._wardens, *self._helpers})

    def _end_outward(self) -> None:
        """The relay out was killed: connections to declared hosts would wait for ever,
        so those who may make them end.
        """
        assert self._egress is not None
        self._egress.close()
        self._egress, self._egress_pid = None, 0
        for pid in self._outward:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its

    def _end(self) -> None:
        """End what still runs; without a goodbye also remove the owner's folders,
        and write down that they are gone.
        """
        for pid in (*self._wardens, *self._probes):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._wardens or self._probes:
            pid, _ = os.waitpid(-1, 0)
            if pid in self._probes:
                _remove_folder(self._probes.pop(pid))
            if pid in self._wardens:
                _, group = self._wardens.pop(pid)
                self._end_orphans()
                if group is not None:
                    cgroups.clear(group)
        if self._bye:
            return
        if self._containers is not None:
            self._containers.remove(self._gone)
        for folder, (around, name) in self._folders.items():
            # such as of a folder in another one, which is gone with it
            with contextlib.suppress(OSError):
                # else it was named to us and somebody else made it
                if _owner(around, name) == os.geteuid():
                    tree_removal.remove_beneath(around, name)
            if _owner(around, name) is None:
                self._gone("folder", folder)

    def _gone(self, kind: str, name: str) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.gone(journal.Resource(kind, name))


def _make_group(spec: SandboxSpec) -> cgroups.Group | None:
    limits = spec["limits"]
    if limits["cgroup"] is None:
        return None
    group = cgroups.Group.from_wire(limits["cgroup"])
    # A container's is the engine's; ours is only the name beside which limits are proven.
    if spec["container"] is None:
        group.make(memory_bytes=limits["memory_bytes"], pids=limits["pids"], cpus=limits["cpus"])
    return group


def _kind(spec: SandboxSpec) -> type[warden.Warden]:
    if spec["host_namespaces"] is not None:
        return warden_hostns.HostnsWarden
    if spec["container"] is None:
        return warden.Warden
    from cleanroom.sandbox.processes import container_cleanup  # noqa: F401 -- for the order that follows
    from cleanroom.sandbox.processes.warden_container import ContainerWarden

    return ContainerWarden


def _import_no_more() -> None:
    """From the first environment on, nothing of ours is read from where we lie,
    which a phase may be able to write.
    """
    for name, module in sys.modules.items():
        if name.partition(".")[0] == "cleanroom" and hasattr(module, "__path__"):
            module.__path__ = []


def _owner(around: int, name: str) -> int | None:
    """Whose it is; None where there is nothing."""
    try:
        return os.stat(name, dir_fd=around, follow_symlinks=False).st_uid
    except OSError:
        return None


def _remove_folder(folder: str) -> None:
    with contextlib.suppress(OSError):
        tree_removal.remove_tree(Path(folder))


def main() -> None:
    """Entry point: the owner's end of the channel is standard input."""
    os.setsid()
    syscalls.set_process_name("cleanroom-keep")
    syscalls.set_child_subreaper()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the owner decides; its end of the channel says when
    owner = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    Keeper(owner).serve()
    # everything is written, and taking the interpreter apart would keep the owner waiting
    os._exit(0)
