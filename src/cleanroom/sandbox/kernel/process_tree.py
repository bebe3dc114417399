"""Children that end, and process trees without a pid namespace.

A tree's root is a child subreaper (prctl(2)): an orphan below becomes the root's child and stays in
the tree.
The kernel ends a pid namespace with its first process. Without one, `end` lists and kills until a
listing is empty: a process that a signal has reached makes no more children, and one made
meanwhile is in the next listing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator

from cleanroom.sandbox.kernel import constants, syscalls

# A hundred times the time that a tree of a thousand took. Beyond it some process cannot be killed,
# which the ledger reports.
END_SECONDS = 5.0
_SEGMENTS = "/proc/sysvipc/shm"


class Reaper:
    """Reports ended children through a descriptor, so that select(2) can wait for them.

    One per process: the wake-up descriptor and the handler of SIGCHLD are the process's.
    """

    def __init__(self) -> None:
        # signal.set_wakeup_fd() refuses a descriptor that blocks.
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        # SIG_DFL and SIG_IGN would never write to the descriptor.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def fileno(self) -> int:
        """Readable after a child has ended."""
        return self._wake

    def reap(self) -> Iterator[tuple[int, int]]:
        """Each child that has ended: its pid and its status as wait(2) gives it."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        with contextlib.suppress(ChildProcessError):
            while True:
                # signal(7): SIGCHLD does not queue, so one of them may stand for many children.
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                # A child that has made us its tracer has only stopped (ptrace(2), PTRACE_TRACEME).
                if not os.WIFSTOPPED(status):
                    yield pid, status


def stop_reaping() -> None:
    """In a forked child: undo what its parent's `Reaper` set up."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def wait_for_children() -> None:
    """Block until this process has no child left."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def parents() -> dict[int, int]:
    """The parent of each process that this one may see in /proc, zombies left out."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent(name)):
            found[int(name)] = parent
    return found


def _parent(name: str) -> int:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            # proc_pid_stat(5): the name in parentheses may have spaces and parentheses of its own.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    # Zombies and dead: no signal reaches them, and they make no children.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[1])


def descendants(root: int, spare: Collection[int] = ()) -> list[int]:
    """All running processes below `root`, without those in `spare` and their descendants."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    pending = [root]
    while pending:
        below = [pid for pid in children.get(pending.pop(), ()) if pid not in spare]
        found += below
        pending += below
    return found


def within(pid: int, root: int) -> bool:
    """Whether `pid` is `root` or descends from it."""
    seen = 0
    # Deeper than any tree under a limit of processes; parents that change could make a circle.
    while pid > 1 and seen < 4096:
        if pid == root:
            return True
        pid, seen = _parent(str(pid)), seen + 1
    return False


def tasks_of(user: int) -> int:
    """The number of a user's threads: without a user namespace RLIMIT_NPROC counts them all."""
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                # The folder's owner is the effective uid, for an undumpable process root.
                if os.stat(f"/proc/{name}").st_uid == user:
                    found += len(os.listdir(f"/proc/{name}/task"))
    return found


def end(root: int, spare: Collection[int] = (), seconds: float = END_SECONDS) -> list[int]:
    """Kill every process below `root` until a listing is empty; returns those that resisted.

    Children of the caller among them are waited for.
    """
    deadline = time.monotonic() + seconds
    while left := descendants(root, spare):
        for pid in left:
            _kill(pid)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                # ECHILD for a process that is no child of this one.
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.001)
    return []


def _kill(pid: int) -> None:
    """Send SIGKILL by pidfd: the pid may be reused between opening and sending, the pidfd not."""
    with contextlib.suppress(OSError):
        held = syscalls.pidfd_open(pid)
        try:
            syscalls.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)


def release_segments(makers: Iterable[int], *, attached: bool) -> None:
    """Let the System V shared memory that these processes made end with its last user.

    `attached`: only segments that are in use.
    PostgreSQL makes one to notice a second server on the same data. Without an ipc namespace it
    would outlive a killed server. shmctl(2): IPC_RMID destroys it once the last process detaches.
    """
    numbers = set(makers)
    with contextlib.suppress(OSError), open(_SEGMENTS) as file:
        for row in file.readlines()[1:]:
            # sysvipc(7): 1 is shmid, 4 cpid (the maker), 6 nattch.
            fields = row.split()
            if int(fields[4]) in numbers and (int(fields[6]) or not attached):
                syscalls.libc.shmctl(int(fields[1]), constants.IPC_RMID, ctypes.c_void_p())
