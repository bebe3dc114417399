"""The warden of one environment: a monitor that makes its namespaces, starts its init, answers its
held calls, and passes orders and messages between engine and init.

One process per environment, forked from the keeper, outside the environment's pid and mount
namespaces but inside its network namespace.
There it opens the listening sockets of declared services, and connects to the service on request.
If it dies, the kernel ends the environment with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import cgroups, process_tree, syscalls
from cleanroom.sandbox.network import dns
from cleanroom.sandbox.network.dial import Outside, Service
from cleanroom.sandbox.processes import forward_sockets, service_relay
from cleanroom.sandbox.processes.init_process import InitProcess
from cleanroom.sandbox.processes.limit_reports import LimitReports
from cleanroom.sandbox.processes.proofs import Proofs
from cleanroom.sandbox.processes.service_relay import ServiceRelay
from cleanroom.sandbox.processes.warden_start import (
    StartFailed,
    enter_namespaces,
    fork_init,
    rules_of,
    socket_executor,
    stacks_of,
)
from cleanroom.sandbox.seccomp_notify.copy_ups import CopyUps
from cleanroom.sandbox.seccomp_notify.emulate import HostNetworkAccess
from cleanroom.sandbox.seccomp_notify.forward import Forwards
from cleanroom.sandbox.seccomp_notify.recorder import Environment, Recorder
from cleanroom.sandbox.seccomp_notify.rules import Rules
from cleanroom.sandbox.selftest import limit_canaries

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.protocol import SandboxSpec

# Called when its descriptor is readable; False ends the environment.
Handler = Callable[[], bool | None]


def main(
    spec: SandboxSpec, control: socket.socket, id_map: int, warden_class: type[Warden]
) -> NoReturn:
    """Run the warden of the environment that `spec` describes until that has ended.

    `control` is the engine's channel, `id_map` a descriptor of the id map or 0.
    """
    status = 1
    try:
        syscalls.set_process_name(f"warden {spec['id']}")
        warden = warden_class(spec, control, id_map)
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


class Warden:
    """Makes one environment and serves it.

    `warden_container.py` and `warden_hostns.py` override the steps that differ in a container and
    without namespaces.
    """

    def __init__(self, spec: SandboxSpec, control: socket.socket, id_map: int) -> None:
        self._spec = spec
        self._control = control
        self._id_map = id_map
        group = spec["limits"]["cgroup"]
        self._group = cgroups.Group.from_wire(group) if group is not None else None
        self._limits = LimitReports(self._group, spec["limits"]["shown"], self._report_attempt)
        self._recorder: Recorder | None = None
        self._resolvers: list[dns.DnsServer] = []
        self._relay: ServiceRelay | None = None
        # Relays of declared hosts report here which connections they refused.
        self._egress_reports: socket.socket | None = None
        self._forward_channels: dict[str, socket.socket] = {}
        # Folders of a service's sockets, by their paths inside.
        self._socket_folders: dict[str, int] = {}
        self._poll = select.poll()
        self._handlers: dict[int, Handler] = {}
        self._init: InitProcess
        # By the order's number, for limits whose counters name no process.
        self._commands: dict[int, protocol.Process] = {}
        # Ends of commands that are reported once init has copied up what it began to.
        self._ends: list[protocol.Exited] = []
        self._proofs = Proofs(self._limits)

    # --- start

    def start(self) -> None:
        """Make the environment, and return when init has given up its privileges.

        Raises:
            StartFailed: init or the container could not be started.
            OSError: the kernel refused a step.
        """
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Of the host's network namespace, also after this process has left it.
        host_sockets = os.open("/proc/self/net/unix", os.O_RDONLY | os.O_CLOEXEC)
        network = self._spec["network"]
        forwards, host_network = network["forwards"], network["host_network"]
        # Forked before there is a pid namespace in which it would be visible.
        executor = socket_executor(self._spec["identity"]) if host_network else None
        self._enter_network()
        if host_network is None:
            self._forward_channels, forward_ends = forward_sockets.open_ends(forwards)
        else:
            self._forward_channels, forward_ends = forward_sockets.open_channels(forwards)
        egress = [
            (forward["service"], forward["address"], forward["port"])
            for forward in forward_sockets.egress(forwards)
        ]
        patterns = forward_sockets.patterns(forwards)
        names = dns.NameTable(forward_sockets.addresses(forwards), egress=egress, patterns=patterns)
        if self._spec["notify"] and host_network is None:
            self._start_resolvers(names)
        listener = self._start_init()
        if listener is not None:
            access, channels = None, Forwards(self._forward_channels)
            if executor is not None and host_network is not None:
                policy = forward_sockets.host_network_policy(host_network, forwards)
                controls = tuple(host_network["controls"])
                access = HostNetworkAccess(policy, channels.connect, executor, controls)
            environment = Environment(
                self._rules(),
                names,
                self._proc,
                host_sockets,
                self._init.pid,
                channels,
                self._spec["limits"]["memory_bytes"],
                self._copy_ups(),
            )
            self._recorder = Recorder(listener, environment, self._report_attempt, access)
        self._await_ready()
        self._socket_folders = self._open_socket_folders()
        if egress or patterns:
            self._egress_reports, relay_end = channel.pair()
            forward_ends.append(relay_end)
        self._send_ready(forward_ends)

    def _enter_network(self) -> None:
        """Enter the environment's network namespace."""
        shared = self._spec["network"]["host_network"] is not None
        enter_namespaces(self._spec["identity"]["mode"] == "root", own_network=not shared)
        syscalls.sethostname(self._spec["hostname"])
        if not shared:
            dns.raise_link("lo")

    def _start_resolvers(self, names: dns.NameTable) -> None:
        for address in forward_sockets.RESOLVERS:
            udp, tcp = forward_sockets.resolver_sockets(address)
            self._resolvers.append(dns.DnsServer(udp, tcp, names, self._report_attempt))

    def _rules(self) -> Rules:
        """The rules by which the environment's held calls are judged."""
        return rules_of(self._spec)

    def _copy_ups(self) -> CopyUps | None:
        """What init copies up ahead of held calls."""
        return CopyUps(stacks_of(self._spec), self._send_to_init)

    def _start_init(self) -> int | None:
        """Start init; the listener of its filter where calls are held, else None."""
        self._init, listener = fork_init(self._spec, self._control, self._id_map, self._group)
        if listener is None and self._spec["notify"]:
            # An init that failed earlier has sent its reason.
            self._await_ready()
            raise StartFailed("the filter's listener was not handed over")
        return listener

    def _await_ready(self) -> None:
        """Wait for init's first message, answering the calls that its own last steps hold."""
        while True:
            watched = [self._init.fileno()]
            if self._recorder is not None:
                watched.append(self._recorder.fileno())
            readable, _, _ = select.select(watched, [], [])
            if self._recorder is not None and self._recorder.fileno() in readable:
                self._recorder.ready()
            if self._init.fileno() in readable:
                arrived = self._receive_from_init()
                if arrived is None:
                    raise StartFailed("init ended while it started")
                if arrived[0]["kind"] == "failed":
                    raise StartFailed(arrived[0]["why"])
                return

    def _open_socket_folders(self) -> dict[str, int]:
        """Open the folders of a service's sockets before any command runs in it.

        As root in the environment's own view, whose mounts map what its user makes to that user. An
        ordinary user has no such mounts, and may not look into init.
        """
        if self._spec["role"] != "service":
            return {}
        folders = self._spec["filesystem"]["socket_folders"]
        if self._spec["identity"]["mode"] == "root":
            return service_relay.open_folders_inside(self._init.pid, list(folders))
        return service_relay.open_folders_outside(folders)

    # --- channels

    def _send(self, message: protocol.WardenMessage, descriptors: Sequence[int] = ()) -> None:
        channel.WARDEN_MESSAGES.send(self._control, message, descriptors)

    def _send_ready(self, forward_ends: Sequence[socket.socket]) -> None:
        """Send the engine the ends of the forwards, in their order."""
        group = self._group.to_wire() if self._group is not None else None
        ready: protocol.Ready = {"kind": "ready", "init": self._init.pid, "cgroup": group}
        ends = [end.fileno() for end in forward_ends]
        while len(ends) > channel.DESCRIPTORS_MAX:
            self._send({"kind": "forward_ends"}, ends[: channel.DESCRIPTORS_MAX])
            del ends[: channel.DESCRIPTORS_MAX]
        self._send(ready, ends)
        for end in forward_ends:
            end.close()

    def _report_attempt(self, attempt: protocol.Attempt) -> None:
        """Send an attempt to the engine, or keep it as evidence while canaries run."""
        if not self._proofs.take(attempt):
            self._send({"kind": "attempt", "attempt": attempt})

    def _send_to_init(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        self._init.send(order, descriptors)

    def _receive_from_init(self) -> tuple[protocol.InitMessage, list[int]] | None:
        return self._init.receive()

    def _send_to_relay(self, order: protocol.RelayOrder, descriptors: Sequence[int]) -> None:
        """Pass an order to the service's relay, which starts with the first one."""
        if self._relay is None:
            self._relay = self._start_relay()
            # Connections through a killed relay would hang. The service ends with its relay, and
            # starts again with another one.
            self._handlers[self._relay.fileno()] = self._handle_service_relay
            self._poll.register(self._relay.fileno(), select.POLLIN)
        self._relay.send(order, descriptors)

    def _start_relay(self) -> ServiceRelay:
        service = Service(self._socket_folders)
        inherited = (self._control, self._init.end)
        return ServiceRelay(service, self._spec["identity"], inherited)

    # --- serving

    def serve(self) -> None:
        """Serve until the engine or init is gone, then end the environment."""
        poll, handlers = self._poll, self._handlers
        handlers |= self._initial_handlers()
        for descriptor in handlers:
            poll.register(descriptor, select.POLLIN)
        recorder = self._recorder
        listener = recorder.fileno() if recorder is not None else -1
        going = True
        while going:
            for descriptor, events in poll.poll(self._timeout_ms()):
                # Nearly every event is a held call.
                if descriptor == listener and events & select.POLLIN:
                    assert recorder is not None
                    recorder.answer()
                elif descriptor in handlers and handlers[descriptor]() is False:
                    going = False
            if recorder is not None:
                recorder.tick()
        self._end()

    def _initial_handlers(self) -> dict[int, Handler]:
        handlers: dict[int, Handler] = {
            self._control.fileno(): self._handle_order,
            self._init.fileno(): self._handle_init_message,
            self._init.pidfd: lambda: False,
        }
        if self._recorder is not None:
            handlers |= dict.fromkeys(self._recorder.filenos(), self._recorder.ready)
        for resolver in self._resolvers:
            handlers |= dict.fromkeys(resolver.filenos(), resolver.ready)
        if self._egress_reports is not None:
            handlers[self._egress_reports.fileno()] = self._handle_egress_report
        return handlers

    def _timeout_ms(self) -> int | None:
        """Milliseconds until the recorder has something due; None when it has not."""
        return self._recorder.timeout_ms() if self._recorder is not None else None

    def _handle_order(self) -> bool:
        """Carry out one order of the engine; False to end the environment."""
        arrived = channel.WARDEN_ORDERS.receive(self._control)
        if arrived is None:
            return False
        order, descriptors = arrived
        match order["op"]:
            case "kill":
                return False
            case "relay" | "drop":
                self._send_to_relay(order, descriptors)
            case "dial":
                # The relay is where the service is, and answers the engine itself.
                self._send_to_relay(order, [self._control.fileno()])
            case "prove":
                self._begin_proof(order)
            case "exec":
                if self._recorder is not None:
                    self._recorder.resume_copy_ups()
                words = order["argv"]
                self._commands[order["n"]] = {
                    "argv": words,
                    "comm": os.path.basename(words[0]),
                    "cwd": order["cwd"],
                }
                self._send_to_init(order, descriptors)
            case "signal" | "left":
                self._send_to_init(order, descriptors)
            case _:
                assert_never(order)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _handle_init_message(self) -> bool:
        """Take one message of init; False when init has ended."""
        arrived = self._receive_from_init()
        if arrived is None:
            return False
        self._forward_message(arrived[0])
        return True

    def _forward_message(self, message: protocol.InitMessage) -> None:
        """Forward init's message, adding host pids, canary verdicts and limit reports."""
        match message["kind"]:
            case "canaries":
                results = self._proofs.judge(message)
                self._send({"kind": "proved", "n": message["n"], "results": results})
                return
            case "proof_failed":
                self._proofs.abandon()
            case "started":
                if (command := self._commands.get(message["n"])) is not None:
                    command["pid"] = self._init.host_pid(message["pid"])
                    command["ns_pid"] = message["pid"]
            case "exited":
                if self._recorder is not None:
                    self._recorder.flush()
                self._limits.report(self._commands.pop(message["n"], None), message["status"])
                if self._waits_for_copy_up():
                    self._ends.append(message)
                    return
            case "failed" | "processes":
                pass
            case "restricted":
                # `_await_ready` has waited for it.
                return
            case "copied_up":
                if self._recorder is not None:
                    self._recorder.copied_up()
                while self._ends and not self._waits_for_copy_up():
                    self._send(self._ends.pop(0))
                return
            case _:
                assert_never(message)
        self._send(message)

    def _waits_for_copy_up(self) -> bool:
        """Whether the last command has ended while init copies something up for a process it left.

        The engine ends the environment next, and its layer would have half of a moved folder.
        """
        return not self._commands and self._recorder is not None and self._recorder.pause_copy_ups()

    def _handle_egress_report(self) -> None:
        assert self._egress_reports is not None
        assert self._recorder is not None, "calls of an environment with egress are held"
        arrived = channel.RELAY_MESSAGES.receive(self._egress_reports)
        if arrived is None:
            self._poll.unregister(self._egress_reports.fileno())
            return
        report = arrived[0]
        match report["kind"]:
            case "full":
                self._limits.report_connections(report["to"], report["connections"])
            case "refused":
                to, source = Outside.parsed(report["to"]), report["source"]
                self._recorder.record_relay_refusal(to.host, to.port, report["ip"], source)

    def _handle_service_relay(self) -> bool:
        """Take a report of the service's relay; False when that has ended."""
        assert self._relay is not None, "its descriptor is watched"
        report = self._relay.receive()
        if report is not None and report["kind"] == "full":
            self._limits.report_connections(report["to"], report["connections"])
        return report is not None

    # --- proofs

    def _begin_proof(self, order: protocol.Prove) -> None:
        group_results = self._begin_group_proof() if order["limits"] else list
        self._proofs.begin(self._recorder, group_results)
        self._send_to_init(order)

    def _begin_group_proof(self) -> limit_canaries.Outcome:
        """Start the canaries of the control group's limits beside those of init."""
        return limit_canaries.GroupProof(self._group).results if self._group is not None else list

    # --- end

    def _end(self) -> None:
        """Kill the environment, and report its end once the kernel has ended all of it."""
        self._kill()
        self._close_recorder()
        # The relay too: it is in the pid namespace, whose init ends only when every process in it
        # has been waited for (pid_namespaces(7)).
        process_tree.wait_for_children()
        self._await_end()
        with contextlib.suppress(OSError):
            self._limits.report(next(iter(self._commands.values()), None), 0)
            self._send({"kind": "ended"})

    def _kill(self) -> None:
        self._init.kill()

    def _close_recorder(self) -> None:
        """Send what is recorded and not sent yet, and close the listener; once."""
        if self._recorder is not None:
            with contextlib.suppress(OSError):
                self._recorder.flush()
            self._recorder.close()
            self._recorder = None

    def _await_end(self) -> None:
        """Wait for what is no child of this process: nothing here."""
