"""11.3: other processes, privileges, and system calls that reach beyond the environment."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading

from support.attacks.suite import (
    READ_ONLY,
    ExpectedRecord,
    Facts,
    Steps,
    attack,
    code,
    each,
    in_child,
    raw,
    system,
)


def call(name: str) -> ExpectedRecord:
    return ExpectedRecord("process.syscalls", {"syscall": name})


def calls(facts: Facts, *names: str) -> Steps:
    """Each call with harmless nonsense for arguments."""
    return {name: code(lambda name=name: system(facts, name, -1, 0, 0, 0, 0)) for name in names}


def runs(*argv: str) -> str:
    return "ok" if subprocess.run(argv, stdout=subprocess.DEVNULL).returncode == 0 else "failed"


def copied(path: str) -> str:
    shutil.copy("/bin/true", path)
    os.chmod(path, 0o755)
    return path


@attack("PROC-01", "run a copy of a program in the workspace", "A")
def own_program(facts: Facts) -> Steps:
    return each(run=lambda: runs(copied("./mine")))


@attack("PROC-02", "run a program in /tmp", "A")
def from_tmp(facts: Facts) -> Steps:
    return each(tmp=lambda: runs(copied("/tmp/mine")))


@attack(
    "PROC-02b",
    "run a program in /dev/shm",
    "B",
    "EACCES",
    ExpectedRecord("process.exec", {"path": "/dev/shm/mine"}),
)
def from_shm(facts: Facts) -> Steps:
    return each(shm=lambda: runs(copied("/dev/shm/mine")))


@attack("PROC-03", "the loader as a program", "A")
def loader(facts: Facts) -> Steps:
    found = next(
        path
        for path in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/usr/bin/true")
        if os.path.exists(path)
    )
    return each(run=lambda: runs(found, copied("./loaded")))


@attack("PROC-04", "a program in memory only", "A")
def memory_program(facts: Facts) -> Steps:
    def run() -> str:
        held = os.memfd_create("mine", 0)
        with open("/bin/true", "rb") as file:
            os.write(held, file.read())
        pid = os.fork()
        if pid == 0:
            os.execve(held, ["mine"], {})
        return "ok" if os.waitpid(pid, 0)[1] == 0 else "failed"

    return each(run=run)


@attack("PROC-06", "setuid programs keep the caller's user", "b", "same")
def setuid(facts: Facts) -> Steps:
    with open("/proc/self/status") as file:
        privileges = dict(line.split(":", 1) for line in file)
    return {"no new privileges": "same" if privileges["NoNewPrivs"].strip() == "1" else "gained"}


def of_init(name: str) -> ExpectedRecord:
    return ExpectedRecord("process.visibility", {"syscall": f"{name} of init"})


OUTSIDE = ("engine", "stranger")


@attack(
    "PROC-08",
    "trace another process",
    "B",
    {"*": "EPERM"} | dict.fromkeys(OUTSIDE, "ESRCH EPERM"),
    of_init("ptrace"),
)
def trace(facts: Facts) -> Steps:
    attach, seize = 16, 0x4206
    return {
        "attach to init": code(lambda: system(facts, "ptrace", attach, 1, 0, 0)),
        "seize init": code(lambda: system(facts, "ptrace", seize, 1, 0, 0)),
    } | {
        name: code(lambda name=name: system(facts, "ptrace", attach, facts[name], 0, 0))
        for name in OUTSIDE
    }


@attack(
    "PROC-09",
    "another process's memory",
    "B",
    {"*": "EPERM EACCES ENOENT", "read stranger": "ESRCH EPERM", "write engine": "ESRCH EPERM"},
    of_init("process_vm_readv"),
    of_init("process_vm_writev"),
    ExpectedRecord("process.visibility", {"path": "/proc/1/mem"}),
)
def memory(facts: Facts) -> Steps:
    here = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(64)), 64)

    def copy(name: str, pid: int) -> str:
        return code(lambda: system(facts, name, pid, here, 1, here, 1, 0))

    return {
        "read init": copy("process_vm_readv", 1),
        "write init": copy("process_vm_writev", 1),
        "read stranger": copy("process_vm_readv", facts["stranger"]),
        "write engine": copy("process_vm_writev", facts["engine"]),
    } | each(mem=lambda: os.close(os.open("/proc/1/mem", os.O_RDWR)))


@attack(
    "PROC-10",
    "kill the engine and everyone",
    "b",
    {"engine": "ESRCH EPERM", "stranger": "ESRCH EPERM", "all": "ok ESRCH", "parent": "init"},
)
def killing(facts: Facts) -> Steps:
    return each(
        engine=lambda: os.kill(facts["engine"], signal.SIGKILL),
        stranger=lambda: os.kill(facts["stranger"], signal.SIGKILL),
        all=lambda: os.kill(-1, signal.SIGKILL),
        parent=lambda: "init" if os.getppid() in (0, 1) else "other",
    )


@attack("PROC-11", "list /proc", "b", "few")
def listing(facts: Facts) -> Steps:
    return {
        "processes": "few" if sum(name.isdigit() for name in os.listdir("/proc")) < 10 else "many"
    }


@attack(
    "PROC-12",
    "new namespaces by unshare, clone and clone3",
    "B",
    {"*": "EPERM", "clone3": "ENOSYS"},
    call("unshare"),
    call("clone"),
)
def namespaces(facts: Facts) -> Steps:
    flags = {"user": 0x10000000, "net": 0x40000000, "mount": 0x20000, "pid": 0x20000000}
    steps = {
        f"unshare {name}": code(lambda flag=flag: system(facts, "unshare", flag))
        for name, flag in flags.items()
    }
    steps |= {
        f"clone {name}": code(
            lambda flag=flag: system(facts, "clone", flag | signal.SIGCHLD, 0, 0, 0, 0)
        )
        for name, flag in flags.items()
    }
    return steps | each(clone3=lambda: system(facts, "clone3", bytes(88), 88))


@attack("PROC-13", "setns by a namespace's file and by a pidfd", "B", "EPERM", call("setns"))
def setns(facts: Facts) -> Steps:
    own, myself = os.open("/proc/self/ns/mnt", os.O_RDONLY), os.pidfd_open(os.getpid())
    return each(
        file=lambda: system(facts, "setns", own, 0),
        pidfd=lambda: system(facts, "setns", myself, 0x20000),
    )


KERNEL = ("bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key")


@attack(
    "PROC-14", "bpf, perf, userfaultfd and keys", "B", "EPERM", *(call(name) for name in KERNEL)
)
def kernel_calls(facts: Facts) -> Steps:
    return calls(facts, *KERNEL)


LOADING = ("init_module", "finit_module", "kexec_load", "kexec_file_load")


@attack(
    "PROC-15", "kernel modules and kernels", "B", "EPERM ENOSYS", *(call(name) for name in LOADING)
)
def loading(facts: Facts) -> Steps:
    return calls(facts, *LOADING)


MACHINE = ("reboot", "swapon", "acct", "syslog")


@attack(
    "PROC-16",
    "reboot, swap, accounting, the kernel's log",
    "B",
    "EPERM",
    *(call(name) for name in MACHINE),
)
def machine_calls(facts: Facts) -> Steps:
    return calls(facts, *MACHINE)


CLOCKS = ("clock_settime", "settimeofday", "adjtimex")


@attack("PROC-17", "set the clock", "B", "EPERM", *(call(name) for name in CLOCKS))
def clocks(facts: Facts) -> Steps:
    return calls(facts, *CLOCKS)


@attack(
    "PROC-18",
    "become root, take groups and capabilities",
    "b",
    {"*": "EPERM EINVAL", "sets": "empty"},
)
def privileges(facts: Facts) -> Steps:
    header = struct.pack("=Ii", 0x20080522, 0)
    with open("/proc/self/status") as file:
        sets = {
            line.split()[0]: int(line.split()[1], 16) for line in file if line.startswith("Cap")
        }
    return each(
        setuid=lambda: os.setresuid(0, 0, 0),
        setgid=lambda: os.setresgid(0, 0, 0),
        groups=lambda: os.setgroups([0]),
        capset=lambda: system(facts, "capset", header, b"\xff" * 24),
        ambient=lambda: system(facts, "prctl", 47, 2, 21, 0, 0),
    ) | {"sets": "empty" if not any(sets.values()) else str(sets)}


@attack(
    "PROC-19", "raise one's limits; change those of others", "b", "EPERM ESRCH EACCES ValueError"
)
def limits(facts: Facts) -> Steps:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def raise_files() -> str:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
        except ValueError:
            return "ValueError"
        return "raised"

    return each(
        files=raise_files,
        engine=lambda: resource.prlimit(facts["engine"], resource.RLIMIT_NOFILE, (1, 1)),
        priority=lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
        affinity=lambda: os.sched_setaffinity(facts["engine"], {0}),
    )


@attack(
    "PROC-20",
    "system calls of other ABIs",
    "B",
    {"*": "ENOSYS", "int80": "ENOSYS killed-31 none"},
    call("foreign ABI"),
)
def foreign(facts: Facts) -> Steps:
    def int80() -> str:
        if platform.machine() != "x86_64":
            return "none"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        result = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        if result < 0:
            raise OSError(-result, "int 0x80")
        return "worked"

    return each(x32=lambda: raw(0x40000000 + 39)) | {"int80": in_child(int80)}


@attack("PROC-21", "io_uring_setup", "b", "ENOSYS")
def uring(facts: Facts) -> Steps:
    return each(setup=lambda: system(facts, "io_uring_setup", 8, bytes(120)))


@attack(
    "PROC-22",
    "a filter of one's own: with a listener, and a stricter one",
    "b",
    {"listener": "EBUSY", "stricter": "ok"},
)
def own_filter(facts: Facts) -> Steps:
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)
    program = struct.pack("=H6xQ", 1, ctypes.addressof(allow))
    return each(
        listener=lambda: system(facts, "seccomp", 1, 8, program),
        stricter=lambda: system(facts, "seccomp", 1, 0, program),
    )


@attack("PROC-23", "pidfd_getfd on another process", "B", "EPERM", call("pidfd_getfd"))
def steal(facts: Facts) -> Steps:
    return each(steal=lambda: system(facts, "pidfd_getfd", os.pidfd_open(1), 0, 0))


@attack("PROC-24", "type into the caller's terminal", "b", "ENXIO ENOTTY EIO EPERM")
def terminal(facts: Facts) -> Steps:
    return each(
        open=lambda: os.close(os.open("/dev/tty", os.O_RDWR)),
        stdin=lambda: fcntl.ioctl(0, 0x5412, b"x"),
    )


@attack("PROC-25", "leave the parent: no death signal, own subreaper, own session", "A")
def orphan(facts: Facts) -> Steps:
    return each(
        signal=lambda: system(facts, "prctl", 1, 0, 0, 0, 0),
        subreaper=lambda: system(facts, "prctl", 36, 1, 0, 0, 0),
    ) | {"session": in_child(lambda: os.setsid() and None)}


def on_init(name: str) -> ExpectedRecord:
    return ExpectedRecord("process.visibility", {"signal_pid": 1, "syscall": f"{name} of init"})


SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")


@attack(
    "PROC-26",
    "stop or kill whoever supervises, in every way that there is",
    "B",
    {"*": "EPERM", "warden": "ESRCH EPERM", "asked": "ok"},
    *(on_init(name) for name in SIGNALS),
)
def supervisor(facts: Facts) -> Steps:
    queued = struct.pack("=iii", signal.SIGKILL, 0, -1) + bytes(116)
    init = os.pidfd_open(1)
    return each(
        stop=lambda: os.kill(1, signal.SIGSTOP),
        kill=lambda: os.kill(1, signal.SIGKILL),
        tkill=lambda: system(facts, "tkill", 1, signal.SIGKILL),
        tgkill=lambda: system(facts, "tgkill", 1, 1, signal.SIGKILL),
        rt_sigqueueinfo=lambda: system(facts, "rt_sigqueueinfo", 1, signal.SIGKILL, queued),
        rt_tgsigqueueinfo=lambda: system(facts, "rt_tgsigqueueinfo", 1, 1, signal.SIGKILL, queued),
        pidfd_send_signal=lambda: system(facts, "pidfd_send_signal", init, signal.SIGKILL, None, 0),
        asked=lambda: os.kill(1, 0),
        warden=lambda: (
            os.kill(facts["engine"] + 1, signal.SIGSTOP) if facts["engine"] > 100000 else "ESRCH"
        ),
    )


@attack("PROC-28", "the caller's variables", "b", {"planted": "absent", "others": "none"})
def variables(facts: Facts) -> Steps:
    return {
        "planted": "absent" if "PLANTED_TOKEN" not in os.environ else "there",
        "others": " ".join(sorted(set(os.environ) - {"PATH", "HOME", "LC_ALL", "LC_CTYPE", "PWD"}))
        or "none",
    }


@attack(
    "PROC-30",
    "two thousand refused opens in a loop",
    "B",
    READ_ONLY,
    ExpectedRecord("filesystem.write", {"path": "{outside}/again"}),
)
def loop(facts: Facts) -> Steps:
    path = f"{facts['outside']}/again"
    return {
        "all": " ".join(
            {code(lambda: os.open(path, os.O_CREAT | os.O_WRONLY)) for _ in range(2000)}
        )
    }


@attack(
    "PROC-31",
    "a write outside from a thread before and after exec",
    "B",
    READ_ONLY,
    ExpectedRecord("filesystem.write", {"path": "/usr/by-thread"}),
    ExpectedRecord("filesystem.write", {"path": "/usr/after-exec"}),
)
def threads(facts: Facts) -> Steps:
    said: Steps = {}

    def write(name: str) -> None:
        said[name] = code(lambda: os.close(os.open(f"/usr/{name}", os.O_CREAT | os.O_WRONLY)))

    thread = threading.Thread(target=write, args=("by-thread",))
    thread.start()
    thread.join()
    program = (
        "import os, threading, errno\ndef f():\n"
        " try: os.open('/usr/after-exec', os.O_CREAT | os.O_WRONLY)\n"
        " except OSError as e: print(errno.errorcode[e.errno], end='')\n"
        "t = threading.Thread(target=f); t.start(); t.join()"
    )
    said["exec"] = (
        subprocess.run(
            [sys.executable, "-S", "-c", program, "PROC-31"], capture_output=True, text=True
        ).stdout
        or "worked"
    )
    return said


@attack(
    "PROC-32",
    "what a program could know a sandbox by",
    "A",
    {"hostname": "plain", "dockerenv": "ENOENT"},
)
def fingerprint(facts: Facts) -> Steps:
    name = os.uname().nodename
    return {
        "hostname": "plain"
        if name not in ("box", "sandbox", "localhost") and name != facts["hostname"]
        else name
    } | each(dockerenv=lambda: os.stat("/.dockerenv"))


ON_INIT = (
    "prlimit64",
    "sched_setaffinity",
    "sched_setscheduler",
    "sched_setattr",
    "setpriority",
    "ioprio_set",
    "kcmp",
    "move_pages",
    "migrate_pages",
    "get_robust_list",
)


@attack(
    "PROC-33",
    "limits, processors and priority of init, which would end or slow the environment",
    "B",
    {"*": "EPERM", "own": "ok", "score": "EACCES"},
    *(on_init(name) for name in ON_INIT),
)
def limit_init(facts: Facts) -> Steps:
    zero, scheduling = bytes(16), struct.pack("=IIQiIQQQ", 48, 0, 0, 0, 0, 0, 0, 0)
    given = {
        "prlimit64": (1, 0, zero, None),
        "sched_setaffinity": (1, 8, b"\1" + bytes(7)),
        "sched_setscheduler": (1, 3, bytes(4)),
        "sched_setattr": (1, scheduling, 0),
        "setpriority": (0, 1, 19),
        "ioprio_set": (1, 1, 3 << 13),
        "kcmp": (os.getpid(), 1, 0, 0, 0),
        "move_pages": (1, 0, None, None, None, 0),
        "migrate_pages": (1, 64, bytes(8), bytes(8)),
        "get_robust_list": (1, bytes(8), bytes(8)),
    }
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    return each(
        users=lambda: os.setpriority(os.PRIO_USER, 0, 19),
        own=lambda: resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, limits) and None,
        score=lambda: open("/proc/1/oom_score_adj", "w").close(),
        **{name: lambda name=name: system(facts, name, *given[name]) for name in ON_INIT},
    )


ADMINISTRATION = ("sethostname", "setdomainname", "vhangup", "quotactl")


@attack(
    "PROC-34",
    "the machine's names, quotas and terminals",
    "B",
    "EPERM",
    *(call(name) for name in ADMINISTRATION),
)
def administration(facts: Facts) -> Steps:
    return calls(facts, *ADMINISTRATION)


@attack(
    "PROC-35",
    "a core limit with which a crash would start the host's handler",
    "b",
    {"lower": "ok", "raise": "EPERM", "now": "1/1", "told": "1/1"},
)
def core_limit(facts: Facts) -> Steps:
    old = ctypes.create_string_buffer(16)
    lower = code(lambda: system(facts, "setrlimit", resource.RLIMIT_CORE, bytes(16)))
    raising = struct.pack("=QQ", 2, 2)
    raised = code(lambda: system(facts, "prlimit64", 0, resource.RLIMIT_CORE, raising, None))
    system(facts, "prlimit64", os.getpid(), resource.RLIMIT_CORE, bytes(16), old)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    return {
        "lower": lower,
        "raise": raised,
        "now": f"{soft}/{hard}",
        "told": "/".join(map(str, struct.unpack("=QQ", old.raw))),
    }


@attack(
    "PROC-36",
    "where the engine's folders and groups are, from what /proc tells of init and of oneself",
    "b",
    {"cmdline": "nothing ENOENT", "environ": "EACCES ENOENT", "cgroup": "root"},
)
def traces(facts: Facts) -> Steps:
    def told(name: str) -> str:
        with open(f"/proc/1/{name}", "rb") as file:
            found = file.read(65536)
        return "the engine's" if b"/" in found else "nothing"

    with open("/proc/self/cgroup") as file:
        paths = {line.rstrip("\n").split(":", 2)[2] for line in file}
    return each(cmdline=lambda: told("cmdline"), environ=lambda: told("environ")) | {
        "cgroup": "root" if paths <= {"/"} else " ".join(paths)
    }
