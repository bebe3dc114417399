"""The warden of one environment: makes its namespaces, starts its init, answers its held calls,
passes orders and news between engine and init.

One process per environment, forked from the keeper, outside the environment's pid and mount
namespaces but inside its network: it opens the listening sockets of the declared services there and
hands them out, and connects into it on request.
If it dies, the kernel ends the environment with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.filesystem.constants import NO_EXEC_FOLDERS, USER_ID
from cleanroom.sandbox.kernel import cgroups, constants, privileges, process_tree, syscalls
from cleanroom.sandbox.network import dns, relay
from cleanroom.sandbox.network.host_network import HostNetworkPolicy
from cleanroom.sandbox.processes import init
from cleanroom.sandbox.seccomp_notify.forward import Forwards
from cleanroom.sandbox.seccomp_notify.recorder import Recorder, Rules, Shared
from cleanroom.sandbox.seccomp_notify.socket_calls import (
    DirectExecutor,
    SocketExecutor,
    UnprivilegedExecutor,
)
from cleanroom.sandbox.selftest import canaries, limit_canaries

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import Forward, HostNetwork, Identity, SandboxSpec

# the configured one, and those that programs know of systemd and Docker
RESOLVERS = ("127.0.0.1", "127.0.0.53", "127.0.0.11")
_HELD = getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC
NAMESPACES = (
    constants.CLONE_NEWNET
    | constants.CLONE_NEWPID
    | constants.CLONE_NEWIPC
    | constants.CLONE_NEWUTS
)


def main(spec: SandboxSpec, control: socket.socket, id_map: int, kind: type[Warden]) -> NoReturn:
    """Be the warden of the environment that `spec` describes until it ends.

    `control` leads to the engine, `id_map` is its descriptor or 0.
    """
    status = 1
    try:
        syscalls.set_process_name(f"warden {spec['id']}")
        warden = kind(spec, control, id_map)
        warden.start()
        warden.serve()
        status = 0
    except BaseException as error:
        with contextlib.suppress(OSError):
            named = f"{type(error).__name__}: {error}"
            why = str(error) if isinstance(error, StartFailed) else named
            channel.WARDEN_MESSAGES.send(control, {"kind": "failed", "why": why})
    finally:
        os._exit(status)


class StartFailed(Exception):
    """A step of the start failed; the message names it."""


class Warden:
    """Makes one environment and serves it.

    What differs in a container, or without namespaces, is in the methods that `warden_container.py`
    and `warden_hostns.py` override.
    """

    def __init__(self, spec: SandboxSpec, control: socket.socket, id_map: int) -> None:
        self._id_map = id_map
        self._spec = spec
        self._control = control
        group = spec["limits"]["cgroup"]
        self._group = cgroups.Group.from_wire(group) if group is not None else None
        self._recorder: Recorder | None = None
        self._answerers: list[dns.Answerer] = []
        self._relay: socket.socket | None = None
        # relays of declared hosts say here what they refused
        self._told: socket.socket | None = None
        self._ways: dict[str, socket.socket] = {}
        self._folders: dict[str, int] = {}  # of a service's sockets, as it sees them
        self._poll = select.poll()
        # what to do when a descriptor can be read; False ends the environment
        self._handlers: dict[int, Callable[[], bool | None]] = {}
        self._init = 0
        self._pidfd = -1
        self._orders: socket.socket
        # order's number -> the command's process, for limits whose counters name none
        self._commands: dict[int, protocol.Process] = {}
        self._proving: list[protocol.Attempt] | None = None  # attempts of canaries while they run
        self._before = self._counters()
        self._group_proof: limit_canaries.Outcome = list  # what to ask for it

    # --- start

    def start(self) -> None:
        """Make the namespaces, open what leads out, start init and wait until it has given up its
        privileges.
        """
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        host_sockets = os.open(
            "/proc/self/net/unix", os.O_RDONLY | os.O_CLOEXEC
        )  # stays the host's, also when we have a network of our own
        forwards, host_network = (
            self._spec["network"]["forwards"],
            self._spec["network"]["host_network"],
        )
        # Before there is a pid namespace in which it could be seen.
        hand = _hand(self._spec["identity"]) if host_network else None
        self._enter()
        listening = self._open_ways() if host_network else self._open_doorways()
        holes = [(door["service"], door["address"], door["port"]) for door in _outward(forwards)]
        known = dns.Names(addresses(forwards), holes=holes)
        if self._spec["notify"] and not host_network:
            self._answerers = [
                dns.Answerer(*_name_sockets(address), known, self._attempt) for address in RESOLVERS
            ]
        listener = self._start_init()
        if listener is not None:
            shared = None
            if hand is not None and host_network is not None:
                shared = _on_the_hosts_network(host_network, forwards, Forwards(self._ways), hand)
            self._recorder = Recorder(
                listener,
                self._rules(),
                self._attempt,
                names=known,
                proc_fd=self._proc,
                own=self._init,
                host_sockets=host_sockets,
                shared=shared,
            )
        self._await_ready()
        self._folders = self._hold_folders()
        if holes:
            self._told, teller = channel.pair()
            listening.append(teller)
        self._say_ready(listening)

    def _say_ready(self, ends: Sequence[socket.socket]) -> None:
        """Hand out what leads to the forwards, in their order."""
        group = self._group.to_wire() if self._group is not None else None
        ready: protocol.Ready = {"kind": "ready", "init": self._init, "cgroup": group}
        self._send(ready, [end.fileno() for end in ends])
        for end in ends:
            end.close()

    def _send(self, message: protocol.WardenMessage, descriptors: Sequence[int] = ()) -> None:
        """Tell the engine."""
        channel.WARDEN_MESSAGES.send(self._control, message, descriptors)

    def _rules(self) -> Rules:
        """What the environment's held calls are judged by."""
        files = self._spec["filesystem"]
        return Rules(
            writable=files["writable"],
            read_only=files["executable"],
            services=files["sockets"],
            programs=files["programs"] if files["allowlist"] else (),
            startable=files["startable"] if files["allowlist"] else (),
            ports=self._spec["network"]["ports"],
            not_started=()
            if self._spec["network"]["host_network"] is not None
            else NO_EXEC_FOLDERS,
            lasting=files["lasting"],
            project=files["project"],
        )

    def _enter(self) -> None:
        """Be where the environment's network is."""
        shared = self._spec["network"]["host_network"] is not None
        _enter_namespaces(self._spec["identity"]["mode"] == "root", own_network=not shared)
        syscalls.sethostname(self._spec["hostname"])
        if not shared:
            dns.raise_link("lo")

    def _order(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        """Pass an order to init."""
        channel.INIT_ORDERS.send(self._orders, order, descriptors)

    def _news(self) -> tuple[protocol.InitMessage, list[int]] | None:
        """What init says; None when it has ended.

        Where it ended without reading what we said, the kernel tells that first.
        """
        try:
            return channel.INIT_MESSAGES.receive(self._orders)
        except ConnectionResetError:
            return channel.INIT_MESSAGES.receive(self._orders)

    def _open_doorways(self) -> list[socket.socket]:
        """A listening socket on the environment's own loopback for each declared service."""
        opened = []
        for door in self._spec["network"]["forwards"]:
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((door["address"], door["port"]))
            listening.listen(512)
            opened.append(listening)
        return opened

    def _open_ways(self) -> list[socket.socket]:
        """On the host's network: a channel for each declared service,
        over which its relay gets whoever was led to it.
        """
        opened = []
        for door in self._spec["network"]["forwards"]:
            mine, theirs = channel.pair()
            self._ways[door["to"]] = mine
            opened.append(theirs)
        return opened

    def _start_init(self) -> int | None:
        """Fork init; returns the listener of its filter where calls are held."""
        self._orders, inner = channel.pair()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            for end in (self._orders, mine, self._control):
                end.detach()
            init.main(self._spec, inner, theirs, self._id_map, self._group)
        self._init, self._pidfd = pid, syscalls.pidfd_open(pid)
        inner.close()
        theirs.close()
        if not self._spec["notify"]:
            mine.close()
            return None
        descriptors: list[int] = []
        with contextlib.suppress(OSError):  # init failed before it came to that, and says why
            _, descriptors, _, _ = socket.recv_fds(mine, 16, 1)
        mine.close()
        if not descriptors:
            self._await_ready()
            raise StartFailed("the filter's listener was not handed over")
        return descriptors[0]

    def _await_ready(self) -> None:
        """Wait for init's word, answering the calls that its own last steps hold."""
        while True:
            watched = [
                self._orders.fileno(),
                *([self._recorder.fileno()] if self._recorder else []),
            ]
            readable, _, _ = select.select(watched, [], [])
            if self._recorder is not None and self._recorder.fileno() in readable:
                self._recorder.ready()
            if self._orders.fileno() in readable:
                arrived = self._news()
                if arrived is None:
                    raise StartFailed("init ended while it started")
                if arrived[0]["kind"] == "failed":
                    raise StartFailed(arrived[0]["why"])
                return

    # --- serving

    def serve(self) -> None:
        """Pass orders and news until the engine or init is gone; then end everything."""
        poll, handlers = self._poll, self._handlers
        handlers |= self._watched()
        for descriptor in handlers:
            poll.register(descriptor, select.POLLIN)
        recorder = self._recorder
        held = recorder.fileno() if recorder is not None else -1
        going = True
        while going:
            for descriptor, events in poll.poll(self._patience()):
                if descriptor == held and events & select.POLLIN:
                    assert recorder is not None
                    recorder.answer()  # nearly all that comes
                elif descriptor in handlers and handlers[descriptor]() is False:
                    going = False
            if recorder is not None:
                recorder.tick()
        self._end()

    def _watched(self) -> dict[int, Callable[[], bool | None]]:
        """What to look at all the time."""
        watched: dict[int, Callable[[], bool | None]] = {
            self._control.fileno(): self._from_engine,
            self._orders.fileno(): self._from_init,
            self._pidfd: lambda: False,
        }
        if self._recorder is not None:
            watched |= dict.fromkeys(self._recorder.filenos(), self._recorder.ready)
        for answerer in self._answerers:
            watched |= dict.fromkeys(answerer.filenos(), answerer.ready)
        if self._told is not None:
            watched[self._told.fileno()] = self._from_relay
        return watched

    def _patience(self) -> int | None:
        """Milliseconds until the recorder has something to say of its own; None when it has not."""
        return self._recorder.patience() if self._recorder is not None else None

    def _from_engine(self) -> bool:
        arrived = channel.WARDEN_ORDERS.receive(self._control)
        if arrived is None:
            return False
        order, descriptors = arrived
        match order["op"]:
            case "kill":
                return False
            case "relay" | "drop":
                self._to_relay(order, descriptors)
            case "dial":
                # The relay is where the service is, and answers the engine itself.
                self._to_relay(order, [self._control.fileno()])
            case "prove":
                self._proving = []
                self._group_proof = self._begin_group_proof() if order["limits"] else list
                if self._recorder is not None:
                    # the kernel has to refuse by itself; the recorder only looks on
                    self._recorder.proving = True
                self._order(order)
            case "exec":
                words = order["argv"]
                self._commands[order["n"]] = {
                    "argv": words,
                    "comm": os.path.basename(words[0]),
                    "cwd": order["cwd"],
                }
                self._order(order, descriptors)
            case "signal" | "left":
                self._order(order, descriptors)
            case _:
                assert_never(order)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _from_init(self) -> bool:
        arrived = self._news()
        if arrived is None:
            return False
        self._tell(arrived[0])
        return True

    def _tell(self, news: protocol.InitMessage) -> None:
        """Pass news on, with what only we can add."""
        match news["kind"]:
            case "canaries":
                self._send({"kind": "proved", "n": news["n"], "results": self._judged(news)})
                return
            case "proof_failed":
                self._end_proof()
            case "started":
                if (command := self._commands.get(news["n"])) is not None:
                    command["pid"] = self._host_pid(news["pid"])
                    command["ns_pid"] = news["pid"]
            case "exited":
                if self._recorder is not None:
                    self._recorder.flush()
                self._report_limits(self._commands.pop(news["n"], None), news["status"])
            case "failed" | "processes":
                pass
            case "restricted":
                return  # it was waited for before we served
            case _:
                assert_never(news)
        self._send(news)

    def _judged(self, news: protocol.CanariesRun) -> list[protocol.CanaryResult]:
        """What canaries found, held against what was recorded, and what the group's found."""
        seen, proven = self._end_proof()
        return [*canaries.judge(news["results"], seen), *news["limits"], *proven]

    def _end_proof(self) -> tuple[list[protocol.Attempt], list[protocol.CanaryResult]]:
        """End the proof; the attempts recorded in it, and what the group's canaries found."""
        if self._recorder is not None:
            self._recorder.flush()
            self._recorder.proving = False
        seen, self._proving = self._proving or [], None
        proven = self._group_proof()
        self._before = self._counters()
        return seen, proven

    def _begin_group_proof(self) -> limit_canaries.Outcome:
        """Begin to prove that the group's limits act, beside the canaries;
        what to ask for the outcome.
        """
        return limit_canaries.GroupProof(self._group).results if self._group is not None else list

    def _from_relay(self) -> None:
        assert self._told is not None
        assert self._recorder is not None, "who has doors outwards is held"
        arrived = channel.RELAY_MESSAGES.receive(self._told)
        if arrived is None:
            self._poll.unregister(self._told.fileno())
        else:
            _, host, port = arrived[0]["to"].split(":", 2)
            self._recorder.refused_outside(host, int(port), arrived[0]["ip"], arrived[0]["source"])

    def _attempt(self, attempt: protocol.Attempt) -> None:
        """Pass an attempt on; while canaries run it is their evidence and no one's violation."""
        if self._proving is not None:
            self._proving.append(attempt)
            return
        self._send({"kind": "attempt", "attempt": attempt})

    def _to_relay(self, order: protocol.RelayOrder, descriptors: Sequence[int]) -> None:
        """Tell the relay, started with the first order."""
        if self._relay is None:
            self._relay = self._start_relay()
            # Should it be killed, phases' connections would wait for ever:
            # a service without its relay ends, and its next life has a new one.
            self._handlers[self._relay.fileno()] = lambda: False
            self._poll.register(self._relay.fileno(), select.POLLIN)
        with contextlib.suppress(OSError):  # it has ended, which the next look will find
            channel.RELAY_ORDERS.send(self._relay, order, descriptors)

    def _start_relay(self) -> socket.socket:
        orders, theirs = channel.pair()
        if self._fork_inside() == 0:
            with contextlib.suppress(BaseException):
                syscalls.set_process_name("relay")
                for end in (self._control, self._orders, orders):
                    end.close()
                self._give_up()
                # A change of credentials clears it.
                syscalls.set_parent_death_signal(signal.SIGKILL)
                relay.Relay(theirs, self._service().dial).serve()
            os._exit(0)
        theirs.close()
        return orders

    def _fork_inside(self) -> int:
        """Fork a child that is in the environment's pid namespace, as all of ours are."""
        return os.fork()

    def _give_up(self) -> None:
        """In the relay: be the environment's user, without any capability."""
        privileges.drop_privileges(self._spec["identity"])

    def _service(self) -> relay.Service:
        return relay.Service(self._folders)

    def _hold_folders(self) -> dict[str, int]:
        """Open the folders of a service's sockets, before anything but init runs in it.

        As root they are opened in the environment's own view, whose mounts show what its user makes
        as its user's. An ordinary user has no such mounts, and may not look into init.
        """
        if self._spec["role"] != "service":
            return {}
        if self._spec["identity"]["mode"] != "root":
            return self._opened_outside()
        root = os.open(f"/proc/{self._init}/root", _HELD)
        try:
            resolve = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
            targets = self._spec["filesystem"]["socket_folders"]
            return {target: syscalls.openat2(root, target, _HELD, resolve) for target in targets}
        finally:
            os.close(root)

    def _opened_outside(self) -> dict[str, int]:
        """Those folders where they lie on the host."""
        shown = self._spec["filesystem"]["socket_folders"].items()
        return {target: os.open(source, _HELD) for target, source in shown}

    # --- accounts

    def _counters(self) -> cgroups.Counters | None:
        return self._group.counters() if self._group is not None else None

    def _report_limits(self, command: protocol.Process | None, status: int) -> None:
        """Limits that acted since the last look, as attempts of the command under which they
        did.
        """
        now, before = self._counters(), self._before
        self._before = now
        if now is not None and before is not None:
            counted = ("cgroup", "counter", "the group's counter")
            self._report_limit(
                "resource.memory",
                "memory",
                now.oom_kills - before.oom_kills,
                "killed",
                counted,
                command,
            )
            self._report_limit(
                "resource.pids",
                "processes",
                now.pids_refused - before.pids_refused,
                "blocked",
                counted,
                command,
            )
        self._report_limit(
            "resource.disk",
            "file of",
            int(status == 128 + signal.SIGXFSZ),
            "killed",
            ("rlimit", "inferred", "the signal"),
            command,
        )

    def _report_limit(
        self,
        rule: str,
        word: str,
        count: int,
        outcome: str,
        how: tuple[str, str, str],
        command: protocol.Process | None,
    ) -> None:
        if count <= 0:
            return
        mechanism, certainty, teller = how
        gap = f"{teller} names no process" + (
            "; this is the command under which it happened" if command else ""
        )
        now = time.time_ns()
        self._attempt(
            {
                "dimension": "resource",
                "rule": rule,
                "outcome": outcome,
                "mechanism": mechanism,
                "certainty": certainty,
                "target": {"limit": f"{word} {self._spec['limits']['shown'][rule]}"},
                "process": command,
                "attribution_gap": gap,
                "syscall": "",
                "errno": "",
                "tags": [],
                "count": count,
                "first_unix_ns": now,
                "last_unix_ns": now,
            }
        )

    def _host_pid(self, inside: int) -> int:
        """The host's number of a child of init; 0 when it has ended already."""
        with contextlib.suppress(OSError, ValueError):
            for pid in Path(f"/proc/{self._init}/task/{self._init}/children").read_text().split():
                numbers = next(
                    line
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                    if line.startswith("NSpid:")
                )
                if int(numbers.split()[-1]) == inside:
                    return int(pid)
        return 0

    def _end(self) -> None:
        """Kill the environment and wait until the kernel has ended all of it."""
        with contextlib.suppress(OSError):
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._finish_recording()
        # The relay too: it is in the pid namespace, whose init ends only when all of it has been
        # waited for (pid_namespaces(7)).
        process_tree.wait_for_children()
        self._say_ended()

    def _finish_recording(self) -> None:
        if self._recorder is not None:
            with contextlib.suppress(OSError):
                self._recorder.flush()
            self._recorder.close()

    def _say_ended(self) -> None:
        with contextlib.suppress(OSError):
            self._report_limits(next(iter(self._commands.values()), None), 0)
            self._send({"kind": "ended"})


def _hand(identity: Identity) -> SocketExecutor:
    return (
        UnprivilegedExecutor(identity["user"], identity["group"])
        if identity["mode"] == "root"
        else DirectExecutor()
    )


def addresses(forwards: Sequence[Forward]) -> dict[str, str]:
    """Where each declared name leads inside."""
    return {forward["service"]: forward["address"] for forward in forwards}


def _outward(forwards: Sequence[Forward]) -> list[Forward]:
    """Those of declared hosts."""
    return [forward for forward in forwards if forward["to"].startswith("out:")]


def _on_the_hosts_network(
    told: HostNetwork, forwards: Sequence[Forward], doors_to: Forwards, hand: SocketExecutor
) -> Shared:
    """Where the environment may go there, and with which means."""
    doors = {(socket.inet_aton(door["address"]), door["port"]): door["to"] for door in forwards}
    hosts = {socket.inet_aton(door["address"]): door["service"] for door in _outward(forwards)}
    families = (
        (socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        for address in told["resolvers"]
    )
    where = HostNetworkPolicy(
        internet=True,
        doors=doors,
        hosts=hosts,
        resolvers=frozenset(socket.inet_pton(*both) for both in families),
        first_port=told["first_port"],
    )
    return Shared(where, doors_to.lead, hand, tuple(told["controls"]))


def _enter_namespaces(as_root: bool, *, own_network: bool) -> None:
    """Root makes them in its own user namespace, which leaves the environment's no right over them;
    others need one to make them at all.
    """
    wanted = NAMESPACES if own_network else NAMESPACES & ~constants.CLONE_NEWNET
    if as_root:
        syscalls.unshare(wanted)
        return
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(wanted | constants.CLONE_NEWUSER)
    privileges.map_own_user(USER_ID, user, group)


def _name_sockets(address: str) -> tuple[socket.socket, socket.socket]:
    """Where names are asked: UDP and TCP on port 53 of one of the environment's own addresses."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    for end in (udp, tcp):
        end.bind((address, 53))
        end.setblocking(False)
    tcp.listen(64)
    return udp, tcp
