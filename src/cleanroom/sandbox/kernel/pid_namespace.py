"""Forking one child into another pid namespace."""

from __future__ import annotations

import contextlib
import os
import time

from cleanroom.sandbox.kernel import constants, syscalls

# Between two looks at the child's parent. Its pid 1 adopts it when the process between has ended.
ADOPTED_SECONDS = 0.001


def fork_into(namespace: int) -> int:
    """Fork a child into the pid namespace of this descriptor; returns 0 in the child.

    In the caller it returns the pid of a process between, which has ended.

    setns(2) with CLONE_NEWPID applies to later children only, so it is undone at once: nobody else
    whom the caller forks is meant.
    The namespace's pid 1 adopts and reaps the child. A process of the namespace that nobody outside
    has waited for keeps pid 1 from ending, which it would be where the caller is killed.

    Raises:
        OSError: the namespace cannot be joined.
    """
    # The process's own namespace; that of its children is ns/pid_for_children, since 4.12.
    with open("/proc/self/ns/pid", "rb") as own:
        syscalls.setns(namespace, constants.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            # The child cannot leave the namespace, and need not.
            if pid:
                syscalls.setns(own.fileno(), constants.CLONE_NEWPID)
    if pid:
        os.waitpid(pid, 0)
        return pid
    # Without the child its service is lost, as with one that ends.
    with contextlib.suppress(OSError):
        # A second fork: only an orphan is adopted, so the process between ends at once.
        if os.fork() == 0:
            _wait_until_adopted()
            return 0
    os._exit(0)


def _wait_until_adopted() -> None:
    """Wait until pid 1 is the parent: a parent death signal that is set before would be sent at the
    end of the process between.
    """
    while os.getppid() != 1:
        time.sleep(ADOPTED_SECONDS)
