"""What the warden of a container does on this side of it, without an engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import constants, pid_namespace, syscalls

as_root = sys.platform == "linux" and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not as_root, reason="needs Linux and root, as containers do")


def namespace_of(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def test_a_relay_of_a_container_is_in_its_pid_namespace_and_no_other_child_is():
    """So that the kernel numbers the container's own listeners for it, and nobody else's.

    Pid 1 there reaps it.
    """
    alive, gone = os.pipe()
    pid = os.fork()
    if pid == 0:  # a child that makes a pid namespace, and its first process
        try:
            os.close(gone)
            syscalls.unshare(constants.CLONE_NEWPID)
            first = os.fork()
            if first == 0:
                os.read(alive, 1)
            else:
                os.waitpid(first, 0)
        finally:
            os._exit(0)
    os.close(alive)
    try:
        told = Path(f"/proc/{pid}/task/{pid}/children")
        while not (children := told.read_text().split()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pytest.skip("no pid namespace can be made here")
        namespace = os.open(f"/proc/{children[0]}/ns/pid", os.O_RDONLY)
        inside = namespace_of(int(children[0]))
        reading, writing = os.pipe()
        child = pid_namespace.fork_into(namespace)
        if child == 0:
            os.write(writing, f"{namespace_of('self')} {os.getppid()}".encode())
            os._exit(0)
        other = os.fork()
        if other == 0:
            os._exit(0 if namespace_of("self") != inside else 1)
        assert os.read(reading, 100).decode() == f"{inside} 1"
        assert os.waitpid(other, 0)[1] == 0
    finally:
        os.close(gone)
        os.waitpid(pid, 0)
