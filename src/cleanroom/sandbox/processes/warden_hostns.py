"""The warden of an environment in the host's namespaces: where none can be made, as in an ordinary
container, or on a host that keeps them from ordinary users.

Landlock holds files, on the host's own paths; the recorder holds the network, by making and using
sockets on the environment's behalf; subreapers hold the process tree: the warden, init and the
keeper each end what the others leave.
The warden takes on the environment's user: only then may it read the memory of its processes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import privileges, process_tree, syscalls
from cleanroom.sandbox.network import dns, peers
from cleanroom.sandbox.network.dial import Service
from cleanroom.sandbox.processes import forward_sockets, init, service_relay, warden
from cleanroom.sandbox.processes.port_owners import PortOwners
from cleanroom.sandbox.processes.service_relay import ServiceRelay
from cleanroom.sandbox.seccomp_notify.network_hostns import ForwardChannel
from cleanroom.sandbox.seccomp_notify.recorder import Environment
from cleanroom.sandbox.seccomp_notify.recorder_hostns import HostnsAccess, HostnsRecorder
from cleanroom.sandbox.seccomp_notify.rules import Grants, Rules

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.selftest import limit_canaries

# A service makes its shared memory as it starts, and again when it recovers. Looking for it reads
# all of /proc: often at first, then rarely.
_SCAN_SECONDS, _FIRST_SCANS, _LATER_SCAN_SECONDS = 0.1, 30, 2.0


class HostnsWarden(warden.Warden):
    """Outlives a killed keeper just long enough to end what nobody else would end."""

    _scans, _next_scan = 0, 0.0

    def start(self) -> None:
        """Start the environment, and return when init has given up its privileges.

        Raises:
            StartFailed: init could not be started.
            OSError: the kernel refused a step.
        """
        syscalls.set_child_subreaper()
        self._keeper = syscalls.pidfd_open(os.getppid())
        self._own_pid = os.getpid()
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        forwards, relay_ends = self._open_forwards()
        self._socket_folders = self._open_socket_folders()
        listener = self._start_init()
        # Only root may make a group, so the limits are proven before the proof is asked for.
        self._group_results = super()._begin_group_proof()()
        privileges.drop_privileges(self._spec["identity"])
        syscalls.set_dumpable(False)
        # As in every tier, a service is refused the same, and its attempts are not reported.
        emit = self._report_attempt if self._spec["role"] == "phase" else lambda _: None
        declared = self._spec["network"]["forwards"]
        egress = [
            (forward["service"], forward["address"], forward["port"])
            for forward in forward_sockets.egress(declared)
        ]
        patterns = forward_sockets.patterns(declared)
        addresses = forward_sockets.addresses(declared)
        names = dns.NameTable(addresses, egress=egress, patterns=patterns)
        resolver = dns.DnsServer(None, None, names, emit)
        self._resolvers = [resolver]
        if listener is not None:
            host = self._spec["host_namespaces"]
            assert host is not None, "the keeper chose this warden for it"
            environment = Environment(
                self._rules(),
                names,
                self._proc,
                init_pid=self._init.pid,
                memory_bytes=self._spec["limits"]["memory_bytes"],
            )
            access = HostnsAccess(host["texts"], forwards, resolver)
            self._recorder = HostnsRecorder(listener, environment, emit, access)
        self._await_ready()
        if egress or patterns:
            self._egress_reports, reports_end = channel.pair()
            relay_ends.append(reports_end)
        self._send_ready(relay_ends)

    def _rules(self) -> Rules:
        files, host = self._spec["filesystem"], self._spec["host_namespaces"]
        assert host is not None, "the keeper chose this warden for it"
        grants = Grants(
            writable=files["writable"],
            read_only=files["executable"],
            sockets=files["sockets"],
            devices=host["devices"],
            lasting=files["lasting"],
            project=files["project"],
            tracing=True,
        )
        return Rules(grants)

    def _open_forwards(self) -> tuple[list[ForwardChannel], list[socket.socket]]:
        """A channel per forward, over which connected sockets reach its relay: ours and theirs."""
        forwards = self._spec["network"]["forwards"]
        channels, relay_ends = forward_sockets.open_channels(forwards)
        ours = []
        for forward in forwards:
            host = forward["service"] if forward["to"].startswith("out:") else ""
            address = forward["address"] or forward["to"]
            relay = channels[forward["to"]]
            ours.append(ForwardChannel(address, forward["port"], host, relay))
        return ours, relay_ends

    def _open_socket_folders(self) -> dict[str, int]:
        """On the host's own paths: nothing is mounted."""
        return service_relay.open_folders_outside(self._spec["filesystem"]["socket_folders"])

    def _start_relay(self) -> ServiceRelay:
        """A service's sockets and ports are told from the host's by the processes that own them.

        This process has given up its privileges, so the relay has none.
        """
        owners = PortOwners(self._proc, self._init.pid)
        service = Service(self._socket_folders, self._belongs, owners.owns)
        return ServiceRelay(service, None, (self._control, self._init.end))

    def _belongs(self, end: socket.socket, peer: peers.Peer) -> bool:
        """Whether a process of the environment listens, or this warden on behalf of one."""

        def is_ours(pid: int) -> bool:
            return pid == self._own_pid or process_tree.within(pid, self._init.pid)

        return peers.living(end, peer, is_ours)

    def _initial_handlers(self) -> dict[int, warden.Handler]:
        return super()._initial_handlers() | {self._keeper: lambda: False}

    def _timeout_ms(self) -> int | None:
        """For a service, at most until the next scan for its shared memory, which is made here."""
        recorder_ms = super()._timeout_ms()
        if self._spec["role"] != "service":
            return recorder_ms
        now = time.monotonic()
        if now >= self._next_scan:
            process_tree.release_segments(self._tree(), attached=True)
            self._scans += 1
            pause = _SCAN_SECONDS if self._scans < _FIRST_SCANS else _LATER_SCAN_SECONDS
            self._next_scan = now + pause
        scan_ms = int((self._next_scan - now) * 1000) + 1
        return scan_ms if recorder_ms is None else min(recorder_ms, scan_ms)

    def _begin_group_proof(self) -> limit_canaries.Outcome:
        return lambda: self._group_results

    def _tree(self) -> list[int]:
        return [self._init.pid, *process_tree.descendants(self._init.pid)]

    def _send_to_init(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        """Pass an order on; living processes are listed here, since init sees none."""
        if order["op"] != "left":
            super()._send_to_init(order, descriptors)
            return
        found = [
            process
            for pid in process_tree.descendants(self._init.pid)
            if (process := init.describe(pid)) is not None
        ]
        self._send({"kind": "processes", "n": order["n"], "processes": found})

    def _kill(self) -> None:
        """Kill init, then every process that becomes a child of this subreaper, until none is left.

        The listener is closed first: nobody answers a held call of a process that still runs.
        """
        tree = self._tree()
        self._close_recorder()
        super()._kill()
        process_tree.end(os.getpid())
        process_tree.release_segments(tree, attached=False)
