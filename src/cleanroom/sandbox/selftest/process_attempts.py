"""Canaries' attempts on privileges, on the engine's process, and to start programs."""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.selftest.canary import allowlist

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Expectations


def mount(_: Expectations) -> None:
    # tmpfs is a file system that user namespaces may mount: only the filter and the lack of
    # CAP_SYS_ADMIN refuse.
    syscalls.mount("none", "/tmp", "tmpfs", 0, "size=4k")


def become_root(_: Expectations) -> None:
    os.setresuid(0, 0, 0)


def read_capabilities(_: Expectations) -> None:
    # capabilities(7): uid 0 gets its capabilities with the next execve(2).
    if os.geteuid() and syscalls.capget() == (0, 0, 0):
        raise PermissionError(errno.EPERM, "none")


def see_engine(expect: Expectations) -> None:
    """The engine is recognised by its start time: another process inside may bear its number."""
    with open(f"/proc/{expect['pid']}/stat", "rb") as file:
        # proc_pid_stat(5): field 22, starttime.
        start = int(file.read().rpartition(b")")[2].split()[19])
    if start != expect["start"]:
        raise ProcessLookupError(errno.ESRCH, "its number belongs to another process here")


def signal_engine(expect: Expectations) -> None:
    # kill(2): signal 0 only checks.
    os.kill(expect["pid"], 0)
    # there the number is the engine's, and that it cannot be looked at must not hide that it can be
    # signalled
    if not expect["bare"]:
        see_engine(expect)


def read_engine_limits(expect: Expectations) -> None:
    # Reading them takes the same right as changing them (prlimit(2)).
    resource.prlimit(expect["pid"], resource.RLIMIT_CORE)


def written_program(expect: Expectations) -> str:
    return f"{allowlist(expect)['written']}/cleanroom-canary"


def start_written_program(expect: Expectations) -> None:
    path = written_program(expect)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o700)
    try:
        os.write(descriptor, b"#!/bin/sh\nexit 0\n")
        # execve(2): ETXTBSY for a file that is open for writing.
        os.close(descriptor)
        start(path)
    finally:
        os.unlink(path)


def start(path: str) -> None:
    """Start a program in a child, whose exit status is the errno of a refusal."""
    pid = os.fork()
    if pid == 0:
        status = errno.ECANCELED
        try:
            # A failing execve(2) returns: its errno becomes the exit status, one byte of it.
            os.execve(path, [path, "-c", "exit 0"], {})
        except OSError as error:
            status = error.errno or status
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def make_executable_memfd(_: Expectations) -> None:
    os.close(syscalls.memfd("canary"))
