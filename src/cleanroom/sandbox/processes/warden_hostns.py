"""Environments where no namespace can be made: an ordinary container,
or a host that keeps them from ordinary users.

Files are held by Landlock on the host's own paths, the network by sockets that are made and used on
the environment's behalf, the process tree by subreapers:
the warden, init and the keeper each end what the others leave.
The warden takes on the environment's user, since it may read its processes' memory only then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import privileges, process_tree, syscalls
from cleanroom.sandbox.network import dns, peers, relay
from cleanroom.sandbox.processes import init, warden
from cleanroom.sandbox.seccomp_notify import sockets
from cleanroom.sandbox.seccomp_notify.recorder_hostns import Door, HostnsRecorder
from cleanroom.sandbox.seccomp_notify.rules import Rules

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.selftest import limit_canaries

# Between looks for a server's shared memory: it makes it as it starts,
# and again should it have to recover.
# A look reads all of /proc.
_LOOK_SECONDS, _LOOKS_AT_FIRST, _LATER_SECONDS = 0.1, 30, 2.0


class HostnsWarden(warden.Warden):
    """Its parent's death does not kill it: it sees it, and ends what nothing else would end
    then.
    """

    _looks, _next_look = 0, 0.0

    def start(self) -> None:
        """Open what leads out, start init and wait until it has given up every privilege."""
        syscalls.set_child_subreaper()
        self._keeper = syscalls.pidfd_open(os.getppid())
        self._own_pid = os.getpid()
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        doors, outside = self._open_doors()
        self._folders = self._hold_folders()
        listener = self._start_init()
        self._proof = super()._begin_group_proof()()  # as long as we may make a group
        privileges.drop_privileges(self._spec["identity"])
        syscalls.set_dumpable(False)
        emit = (
            self._attempt if self._spec["role"] == "phase" else lambda _: None
        )  # services are refused the same, and not watched, as in every tier
        forwards = self._spec["network"]["forwards"]
        known = dns.Names(warden.addresses(forwards))
        answerer = dns.Answerer(None, None, known, emit)
        self._answerers = [answerer]
        if listener is not None:
            files, given = self._spec["filesystem"], self._spec["host_namespaces"]
            assert given is not None, "the keeper chose this warden for it"
            rules = Rules(
                writable=files["writable"],
                read_only=files["executable"],
                services=files["sockets"],
                devices=given["devices"],
                lasting=files["lasting"],
                project=files["project"],
            )
            self._recorder = HostnsRecorder(
                listener,
                rules,
                emit,
                names=known,
                proc_fd=self._proc,
                own=self._init,
                texts=given["texts"],
                doors=doors,
                answerer=answerer,
            )
        self._await_ready()
        self._say_ready(outside)

    def _open_doors(self) -> tuple[list[Door], list[socket.socket]]:
        """For each declared service a channel on which connections will be handed to its relay:
        what we keep of it, and what goes out.
        """
        doors, outside = [], []
        for given in self._spec["network"]["forwards"]:
            mine, theirs = channel.pair()
            doors.append(
                Door(
                    given["address"],
                    given["port"],
                    given["service"] if given["to"].startswith("out:") else "",
                    mine,
                )
            )
            outside.append(theirs)
        return doors, outside

    def _hold_folders(self) -> dict[str, int]:
        """On the host's own paths: nothing is mounted."""
        return self._opened_outside()

    def _give_up(self) -> None:
        """We have given up everything ourselves."""

    def _service(self) -> relay.Service:
        """Its sockets and ports are told from the host's by the processes that have them."""
        return relay.Service(self._folders, self._belongs, self._owns_port)

    def _belongs(self, end: socket.socket, peer: peers.Peer) -> bool:
        """Whoever listens is one of its processes, or its warden, which listens on their behalf."""

        def is_ours(pid: int) -> bool:
            return pid == self._own_pid or process_tree.within(pid, self._init)

        return peers.living(end, peer, is_ours)

    def _owns_port(self, port: int) -> bool:
        listening = sockets.listeners(self._proc, "tcp", socket.inet_aton("127.0.0.1"), port)
        ours = sockets.open_in(self._proc, self._tree())
        return bool(listening) and ours.issuperset(listening)

    def _watched(self) -> dict[int, Callable[[], bool | None]]:
        return super()._watched() | {self._keeper: lambda: False}

    def _patience(self) -> int | None:
        """A server's shared memory is looked for beside everything else, often while it starts."""
        waits = super()._patience()
        if self._spec["role"] != "service":
            return waits
        now = time.monotonic()
        if now >= self._next_look:
            process_tree.release_segments(self._tree(), attached=True)
            self._looks += 1
            self._next_look = now + (
                _LOOK_SECONDS if self._looks < _LOOKS_AT_FIRST else _LATER_SECONDS
            )
        look = int((self._next_look - now) * 1000) + 1
        return look if waits is None else min(waits, look)

    def _begin_group_proof(self) -> limit_canaries.Outcome:
        return lambda: self._proof

    def _tree(self) -> list[int]:
        return [self._init, *process_tree.descendants(self._init)]

    def _host_pid(self, inside: int) -> int:
        return inside

    def _order(self, order: protocol.InitOrder, descriptors: Sequence[int] = ()) -> None:
        """What outlived its command is found from outside, since init sees no processes."""
        if order["op"] != "left":
            super()._order(order, descriptors)
            return
        found = [
            described
            for pid in process_tree.descendants(self._init)
            if (described := init.described(pid)) is not None
        ]
        self._send({"kind": "processes", "n": order["n"], "processes": found})

    def _end(self) -> None:
        """Kill the environment, then whatever it left to us, until nothing is there."""
        makers = self._tree()
        self._finish_recording()
        with contextlib.suppress(OSError):
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        process_tree.end(os.getpid())
        process_tree.release_segments(makers, attached=False)
        process_tree.wait_for_children()
        self._say_ended()
