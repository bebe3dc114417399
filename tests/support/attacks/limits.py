"""11.4: more than the limits allow, in an environment with small ones:
64 processes, 192 MiB, 16 MiB of private folders, 32 MiB a file, 128 open files.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import threading
from contextlib import ExitStack

from support.attacks.suite import ExpectedRecord, Facts, Steps, attack, code, each, in_child

MIB = 1 << 20
PIDS, MEMORY, TMPFS, FILE, OPEN_FILES = 64, 192 * MIB, 16 * MIB, 32 * MIB, 128


@attack("RES-01", "a fork bomb", "L", {"stopped": "EAGAIN", "reached": "below"}, small=True)
def forks(facts: Facts) -> Steps:
    near, far = os.pipe()
    children: list[int] = []

    def bomb() -> None:
        while len(children) < 4 * PIDS:
            pid = os.fork()
            if pid == 0:
                os.close(far)
                os.read(near, 1)
                os._exit(0)
            children.append(pid)

    stopped = code(bomb)
    os.close(far)
    for pid in children:
        os.waitpid(pid, 0)
    return {"stopped": stopped, "reached": "below" if len(children) <= PIDS else str(len(children))}


@attack("RES-02", "a thread bomb", "L", {"stopped": "RuntimeError", "reached": "below"}, small=True)
def threads(facts: Facts) -> Steps:
    going, started, stopped = threading.Event(), [], "none"
    while len(started) < 4 * PIDS:
        thread = threading.Thread(target=going.wait)
        try:
            thread.start()
        except RuntimeError:
            stopped = "RuntimeError"
            break
        started.append(thread)
    going.set()
    for thread in started:
        thread.join()
    return {"stopped": stopped, "reached": "below" if len(started) <= PIDS else str(len(started))}


@attack(
    "RES-04",
    "a child takes more memory than there is, its parent ends well",
    "L",
    "killed-9",
    ExpectedRecord("resource.memory", {}),
    small=True,
)
def child_memory(facts: Facts) -> Steps:
    return {"child": in_child(lambda: bytearray(2 * MEMORY) and None)}


@attack("RES-06", "fill /dev/shm", "L", {"*": "ENOSPC ENOMEM"}, small=True)
def fill_shm(facts: Facts) -> Steps:
    def fill() -> None:
        with open("/dev/shm/large", "wb", buffering=0) as file:
            for _ in range(64):
                file.write(bytes(MIB))

    stopped = code(fill)
    os.unlink("/dev/shm/large")
    return {"fill": stopped}


def memory_file(name: str) -> int:
    """One that can never be started, which every level lets be made;
    before Linux 6.3 there is no such kind.
    """
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | 8)
    except OSError:
        return os.memfd_create(name)


@attack(
    "RES-07",
    "fill memory files",
    "L",
    {"*": "killed-9 ENOMEM"},
    ExpectedRecord("resource.memory", {}),
    small=True,
    may_die=True,
)
def fill_memory_files(facts: Facts) -> Steps:
    def fill() -> None:
        for number in range(16):
            held = memory_file(str(number))
            for _ in range(28):
                os.write(held, bytes(MIB))

    # in the program itself: of two processes either could be chosen, and the other would go on
    return {"fill": code(fill)}


@attack("RES-08", "positive control: reserve much, touch little", "A", "ok", small=True)
def reserve(facts: Facts) -> Steps:
    def it() -> None:
        with mmap.mmap(
            -1, 16 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ
        ) as view:
            view[0]

    return each(reserve=it)


@attack(
    "RES-09",
    "write past the size of a file",
    "L",
    {"write": "EFBIG ENOSPC killed-25", "size": "within"},
    small=True,
)
def large_file(facts: Facts) -> Steps:
    def grow() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open("large", "wb", buffering=0) as file:
            while file.write(bytes(MIB)):
                if file.tell() > 4 * FILE:
                    return

    stopped = in_child(grow)
    size = os.path.getsize("large")
    os.unlink("large")
    return {"write": stopped, "size": "within" if size <= FILE else str(size)}


@attack("RES-10", "truncate to a terabyte", "L", "EFBIG ENOSPC killed-25", small=True)
def sparse(facts: Facts) -> Steps:
    def grow() -> None:
        with open("sparse", "wb") as file:
            os.ftruncate(file.fileno(), 1 << 40)

    return {"truncate": in_child(grow)}


@attack("RES-09b", "fill the private /tmp", "L", "ENOSPC", small=True)
def fill_tmp(facts: Facts) -> Steps:
    def fill() -> None:
        with open("/tmp/large", "wb", buffering=0) as file:
            for _ in range(31):
                file.write(bytes(MIB))

    stopped = code(fill)
    os.unlink("/tmp/large")
    return {"fill": stopped}


@attack(
    "RES-12", "open files without end", "L", {"stopped": "EMFILE", "reached": "below"}, small=True
)
def open_files(facts: Facts) -> Steps:
    with ExitStack() as held:
        count = 0

        def more() -> None:
            nonlocal count
            while count < 4 * OPEN_FILES:
                held.enter_context(open("/dev/null"))
                count += 1

        stopped = code(more)
    return {"stopped": stopped, "reached": "below" if count <= OPEN_FILES else str(count)}


@attack(
    "RES-19",
    "die with a core dump asked for",
    "b",
    {"raise": "ValueError OSError ok EPERM", "died": "killed-11", "core": "none"},
    small=True,
)
def core(facts: Facts) -> Steps:
    def ask() -> str:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (MIB, MIB))
        except ValueError:
            return "ValueError"
        return "raised"

    died = in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    return each(**{"raise": ask}) | {
        "died": died,
        "core": " ".join(name for name in os.listdir(".") if name.startswith("core")) or "none",
    }


@attack("RES-21", "POSIX and SysV shared memory", "A", "ok", small=True)
def shared(facts: Facts) -> Steps:
    def segment() -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.shmget(4711, 4096, 0o1600) < 0:
            raise OSError(ctypes.get_errno(), "shmget")

    return each(sysv=segment, posix=lambda: open("/dev/shm/segment", "wb").close())
