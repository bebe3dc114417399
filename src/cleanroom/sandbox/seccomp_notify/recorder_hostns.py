"""The recorder of environments without namespaces, where nothing but Landlock refuses by itself.

Sockets are made here and bound to the loopback device, files of /proc are opened here, and metadata
is changed here.
A call continues only where Landlock, or arguments by value alone, decide it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.network.dns import DnsServer
from cleanroom.sandbox.seccomp_notify import (
    emulate,
    metadata,
    open_proxy,
    processes_hostns,
    recorder,
)
from cleanroom.sandbox.seccomp_notify.datagram_sink import DatagramSink
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall, Judge
from cleanroom.sandbox.seccomp_notify.network_hostns import (
    ForwardChannel,
    ForwardsAndNames,
    HostnsNetwork,
    confined_policy,
)
from cleanroom.sandbox.seccomp_notify.response import Response

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Attempt


class HostnsAccess(NamedTuple):
    """Replacements for the mounts and the network namespace of an environment without them."""

    # path inside -> file on the host that is read instead
    texts: Mapping[str, str]
    forwards: Sequence[ForwardChannel]
    answerer: DnsServer


class HostnsRecorder(recorder.Recorder):
    """Answers the notifications of one listener."""

    def __init__(
        self,
        listener: int,
        environment: recorder.Environment,
        emit: Callable[[Attempt], None],
        hostns: HostnsAccess,
    ) -> None:
        forwards = ForwardsAndNames(hostns.forwards, hostns.answerer)
        policy = confined_policy(hostns.forwards, environment.names, forwards)
        access = emulate.HostNetworkAccess(policy, forwards.connect, track_sockets=True)
        super().__init__(listener, environment, emit, access)
        # A call that continues can be raced, and there is no mount to refuse it then.
        self._fast_path = None
        self._judges |= self._hostns_judges(environment, hostns)

    def _datagram_sink(self) -> DatagramSink:
        """On the host's loopback, with sockets that a container lets nobody borrow."""
        return DatagramSink(self._tracked, names_strays=False)

    def _hostns_judges(
        self, environment: recorder.Environment, hostns: HostnsAccess
    ) -> dict[str, Judge]:
        """Name of a call -> who judges it, where that differs from environments with namespaces."""
        assert self._tracked is not None
        assert self._emulator is not None
        network = HostnsNetwork(self._tracked, self._emulator, self._names, self._listener)
        processes = processes_hostns.HostnsProcesses(environment.init_pid)
        self._open_proxy = open_proxy.OpenProxy(
            self._files, self._listener, hostns.texts, processes.belongs, environment.proc_fd
        )
        judges: dict[str, Judge] = {}
        for names, judge in (
            (processes_hostns.NAMES, processes.judge),
            (open_proxy.NAMES, self._judge_open),
            (metadata.NAMES, metadata.Metadata(environment.rules).judge),
            (metadata.UNKNOWN, _answer_unknown),
            (emulate.NAMES, network.judge_call),
        ):
            judges |= dict.fromkeys(names, judge)
        return judges | {
            "socket": network.judge_socket,
            # only pairs of datagram sockets and of other families are held
            "socketpair": network.judge_socketpair,
            "ioctl": _answer_ioctl,
            "clone": network.judge_clone,
            "connect": lambda call: self._or_sink(call, network.judge_call(call)),
        }

    def _judge_open(self, call: HeldCall) -> Response | None:
        """Reading is answered by the proxy or left to Landlock; writing is judged as everywhere."""
        response = self._open_proxy.judge(call)
        if response is not None:
            return response
        # openat2(2) is answered ENOSYS by the filter, so all flags are an argument by value
        flags = call.arguments[1] if call.name == "open" else call.arguments[2]
        return self._files.judge(call) if flags & constants.O_WRITING else None


def _answer_unknown(_: HeldCall) -> Response:
    """As a kernel that lacks the call."""
    return Response(errno.ENOSYS)


def _answer_ioctl(_: HeldCall) -> Response:
    """As a file system without such flags (ioctl_iflags(2))."""
    return Response(errno.ENOTTY)
