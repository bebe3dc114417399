"""Canaries of the limits: each mechanism is proven at a small scale,
since "limit plus a tenth" of gigabytes does not fit the start of a run.

`prove_inside` runs in a canary's process inside the environment and tightens only its own limits.
`GroupProof` uses a small group beside the environment's own, made and removed here,
in a process of its own beside the canaries; where it is killed meanwhile,
the keeper removes the group.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import resource
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import cgroups, constants, syscalls
from cleanroom.sandbox.selftest.canary import result

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CanaryResult

    Outcome = Callable[[], list[CanaryResult]]

# four times a forked child's own pages; each page more is one to fill and to give back
SMALL_MEMORY = 1024 * mmap.PAGESIZE


def prove_inside(temporary: str) -> list[CanaryResult]:
    """A process and a byte of a file beyond a limit are refused.

    Lowers this process's limits for good.
    `temporary`: where a file may be made.
    """
    return [
        # RLIMIT_NPROC does not bind CAP_SYS_RESOURCE or CAP_SYS_ADMIN (setrlimit(2)).
        _refused(
            "one process too many", "resource.pids", errno.EAGAIN, resource.RLIMIT_NPROC, 1, _fork
        ),
        _refused(
            "one byte too many in a file",
            "resource.disk",
            errno.EFBIG,
            resource.RLIMIT_FSIZE,
            4096,
            lambda: _write_file(temporary),
        ),
    ]


def _refused(
    name: str, rule: str, expected: int, limit: int, value: int, attempt: Callable[[], None]
) -> CanaryResult:
    try:
        # The hard limit too: the process ends after these attempts, and needs none of it back.
        resource.setrlimit(limit, (value, value))
        attempt()
        found, passed = "it worked", False
    except OSError as error:
        found, passed = (
            errno.errorcode.get(error.errno or 0, str(error.errno)),
            error.errno == expected,
        )
    return result(name, rule, errno.errorcode[expected], found, passed)


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _write_file(temporary: str) -> None:
    # setrlimit(2): with the signal ignored, write(2) itself is EFBIG.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = f"{temporary}/.limit-{os.getpid()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"x" * 4096)
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
        os.unlink(path)


class GroupProof:
    """The running proof of a group's limits. `results` must be called: it reaps the process."""

    def __init__(self, group: cgroups.Group) -> None:
        self._read_end, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                syscalls.set_parent_death_signal(signal.SIGKILL)
                os.write(write_end, json.dumps(prove_group(group)).encode())
            finally:
                os._exit(0)
        os.close(write_end)

    def results(self) -> list[CanaryResult]:
        """Wait for the end and return the results, once. An interrupted proof has failed."""
        with os.fdopen(self._read_end, "rb") as file:
            output = file.read()
        os.waitpid(self._pid, 0)
        found: list[CanaryResult] = (
            json.loads(output)
            if output
            else [result("a group for the limits", "resource.pids", "made", "no answer", False)]
        )
        return found


def prove_group(group: cgroups.Group) -> list[CanaryResult]:
    """In a small group: a process past the number is refused,
    memory past the limit ends its process, and both are counted.
    """
    small = group.beside()
    try:
        small.make(memory_bytes=SMALL_MEMORY, pids=1, cpus=0)
    except OSError as error:
        return [
            result("a group for the limits", "resource.pids", "made", f"{error.strerror}", False)
        ]
    try:
        # pids.max is 1: the process itself is counted, so its first fork(2) is EAGAIN.
        refused = _in_group(small, _fork_status)
        killed = _in_group(small, _touch_memory)
        counted = small.counters()
    finally:
        small.remove()
    return [
        result(
            "a process past the group's number",
            "resource.pids",
            "EAGAIN, counted",
            _with_counter(refused, counted.pids_refused),
            refused == errno.EAGAIN and counted.pids_refused > 0,
        ),
        result(
            "memory past the group's limit",
            "resource.memory",
            "killed, counted",
            _with_counter(killed, counted.oom_kills),
            killed == -signal.SIGKILL and counted.oom_kills > 0,
        ),
    ]


def _with_counter(status: int, counted: int) -> str:
    shown = f"signal {-status}" if status < 0 else errno.errorcode.get(status, "it worked")
    return f"{shown}, counter {counted}"


def _in_group(group: cgroups.Group, attempt: Callable[[], int]) -> int:
    """The exit status of a child that tries something inside the group; negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            syscalls.set_parent_death_signal(signal.SIGKILL)
            # cgroups(7): later children are counted here too.
            group.join()
            status = attempt()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork_status() -> int:
    try:
        _fork()
    except OSError as error:
        return error.errno or 255
    return 0


def _touch_memory() -> int:
    area = mmap.mmap(
        -1, 4 * SMALL_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | constants.MAP_POPULATE
    )
    # where the kernel did not care to fill them
    for at in range(0, 4 * SMALL_MEMORY, mmap.PAGESIZE):
        area[at] = 1
    return 0
