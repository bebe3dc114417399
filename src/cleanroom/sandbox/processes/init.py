"""Pid 1 of an environment: makes its mounts, gives up its privileges, starts commands and reaps.

Every process of the environment is a child of this one and inherits its Landlock domain, its
seccomp filter and its lack of privileges. Canaries do too: their proof holds for every command.
Standard library only; forked from the warden, never returns.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import termios
from typing import TYPE_CHECKING, NoReturn, assert_never

from cleanroom.sandbox import channel
from cleanroom.sandbox.filesystem import copy_up, mounts
from cleanroom.sandbox.filesystem.constants import USER_ID
from cleanroom.sandbox.kernel import (
    cgroups,
    constants,
    landlock,
    privileges,
    process_tree,
    syscalls,
)
from cleanroom.sandbox.seccomp import bpf, filters, filters_hostns
from cleanroom.sandbox.selftest import canaries
from cleanroom.sandbox.selftest import limit_canaries as limits

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        CanariesRun,
        CopyUp,
        Execute,
        InitMessage,
        InitOrder,
        Limits,
        LivingProcess,
        Prove,
        SandboxSpec,
    )

# Nobody sees this exit status: init ends by a signal, or after its warden.
READY = 0


def main(
    spec: SandboxSpec,
    orders: socket.socket,
    handover: socket.socket,
    id_map: int,
    group: cgroups.Group | None,
) -> NoReturn:
    """Run pid 1 of the environment that `spec` describes, in its control group.

    `orders` is the warden's channel, `handover` the socket for the listener of the filter.
    """
    bare = spec["host_namespaces"] is not None
    try:
        # The keeper's command line names folders of the engine.
        syscalls.set_command_line("init")
        # First, so that no process of the environment ever runs outside its group.
        # cgroups(7): a child starts in the group of its parent.
        if group is not None:
            group.join()
        if bare:
            _restrict_hostns(spec, orders, handover)
        else:
            _restrict(spec, orders, handover, id_map)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        channel.INIT_MESSAGES.send(orders, {"kind": "failed", "why": why})
        os._exit(1)
    channel.INIT_MESSAGES.send(orders, {"kind": "restricted"})
    try:
        _Init(orders).serve()
        if bare and spec["landlock"] and landlock.abi() >= landlock.SCOPES_SINCE:
            # The warden is gone. LANDLOCK_SCOPE_SIGNAL keeps this within our Landlock domain.
            os.kill(-1, signal.SIGKILL)
    finally:
        os._exit(READY)


def _restrict(
    spec: SandboxSpec, orders: socket.socket, handover: socket.socket, id_map: int
) -> None:
    """Make the mounts and give up every privilege, in the one order that works: mounts, limits,
    credentials, Landlock, seccomp.
    """
    _die_with_warden(orders)
    _hide_group()
    os.umask(0o022)
    identity = spec["identity"]
    as_root = identity["mode"] == "root"
    user, group = (identity["user"], identity["group"]) if as_root else (USER_ID, USER_ID)
    files = spec["filesystem"]
    # Needs CAP_SYS_ADMIN, which the change of the user takes.
    mounts.build(files["mounts"], files["root"], mounts.Owner(user, group, id_map))
    # Hard limits that an ordinary user cannot raise again (setrlimit(2)).
    _limit(spec["limits"])
    # landlock(7): a descriptor that was opened before keeps all its rights.
    syscalls.close_range(3 + _move_to_front(orders, handover))
    if as_root:
        _become(identity["user"], identity["group"])
    # user_namespaces(7): the first process of a new namespace has every capability in it.
    privileges.drop_all_capabilities()
    # Before Landlock (EPERM without it) and before the filter (EACCES without it).
    syscalls.set_no_new_privileges()
    listed = files["allowlist"]
    readable, executable = files["readable"], files["executable"]
    if listed:
        readable, executable = [*readable, *executable], files["startable"]
    # The modes of the files of /proc decide.
    writable = [*files["writable"], "/proc"]
    if spec["landlock"]:
        landlock.restrict(readable, writable, executable, listable=["/"], run_written=not listed)
    # The filter comes last: it refuses mount(2), unshare(2) and others that were needed until here.
    machine = os.uname().machine
    if spec["notify"]:
        shared = spec["network"]["host_network"] is not None
        program = filters.phase_filter(
            machine, allowlist=listed, hold_exec=not shared, host_network=shared
        )
        bpf.install_and_send(program, handover)
    else:
        bpf.install(filters.service_filter(machine), listener=False)
    handover.close()
    # /proc/1 tells nothing to its children, which have the same uid (proc(5), PR_SET_DUMPABLE).
    syscalls.set_dumpable(False)
    # The change of credentials has cleared the parent death signal (prctl(2)).
    _die_with_warden(orders)


def _restrict_hostns(spec: SandboxSpec, orders: socket.socket, handover: socket.socket) -> None:
    """Give up every privilege in the host's namespaces: Landlock and held calls are all there is.

    Nothing is mounted. Orphans become children of this subreaper and stay in its tree.
    """
    # prctl(2), since 3.4: not inherited by fork(2).
    syscalls.set_child_subreaper()
    os.umask(0o022)
    files, given = spec["filesystem"], spec["host_namespaces"]
    assert given is not None, "only such an environment comes here"
    _limit(spec["limits"])
    syscalls.close_range(3 + _move_to_front(orders, handover))
    # Landlock and the filter need no privilege after it, only PR_SET_NO_NEW_PRIVS.
    privileges.drop_privileges(spec["identity"])
    if spec["landlock"]:
        devices = given["devices"]
        landlock.restrict(
            files["readable"], files["writable"], files["executable"], devices=devices
        )
    service = spec["role"] != "phase"
    program = filters_hostns.hostns_filter(os.uname().machine, service=service, init=os.getpid())
    if spec["notify"]:
        bpf.install_and_send(program, handover)
    handover.close()
    syscalls.set_dumpable(False)


def _hide_group() -> None:
    """Make our control group the root that is shown inside; see cgroup_namespaces(7)."""
    # A kernel without such namespaces, before 4.6, shows the group's path.
    with contextlib.suppress(OSError):
        syscalls.unshare(constants.CLONE_NEWCGROUP)


def _die_with_warden(orders: socket.socket) -> None:
    """Ask the kernel to kill this process with the warden.

    A warden that died before has closed its end of the channel: then this process ends at once.
    """
    syscalls.set_parent_death_signal(signal.SIGKILL)
    # After prctl(2): a parent that ended before it sends no signal.
    readable, _, _ = select.select([orders], [], [], 0)
    if readable and orders.recv(1, socket.MSG_PEEK) == b"":
        os._exit(1)


def _move_to_front(*sockets: socket.socket) -> int:
    """Move these sockets to the descriptors from 3 on; returns their number."""
    for number, held in enumerate(sockets, start=3):
        if held.fileno() != number:
            for other in sockets:
                if other.fileno() == number:
                    # dup2(2) closes what is open under the number that it is given.
                    moved = os.dup(number)
                    other.detach()
                    other.__init__(fileno=moved)  # type: ignore[misc]
            os.dup2(held.fileno(), number, inheritable=False)
            os.close(held.detach())
            held.__init__(fileno=number)  # type: ignore[misc]
    return len(sockets)


def _limit(limits: Limits) -> None:
    values = limits["rlimits"].items()
    syscalls.set_limits({getattr(resource, name): value for name, value in values})
    if limits["processors"]:
        # Runtimes count the processors that they may use (sched_getaffinity(2)).
        os.sched_setaffinity(0, limits["processors"])


def _become(user: int, group: int) -> None:
    """Change from root to the environment's user, in a user namespace of its own.

    RLIMIT_NPROC counts the processes of a user in one user namespace (since 5.14).
    """
    # Before the namespace: in it no other uid has a map, so the change would be EINVAL.
    privileges.switch_user(user, group)
    # Else /proc/self belongs to root, and the id maps cannot be written.
    syscalls.set_dumpable(True)
    privileges.enter_user_namespace(USER_ID, user, group)


class _Init:
    """Carries out the warden's orders until its channel ends."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        # Number of the order by the pid of its process: commands, and runs of canaries.
        self._commands: dict[int, int] = {}
        self._proofs: dict[int, int] = {}

    def serve(self) -> None:
        reaper = process_tree.Reaper()
        while True:
            # pid_namespaces(7): pid 1 becomes the parent of every orphan.
            readable, _, _ = select.select([self._orders.fileno(), reaper.fileno()], [], [])
            if reaper.fileno() in readable:
                for pid, status in reaper.reap():
                    self._report_end(pid, status)
            if self._orders.fileno() in readable:
                arrived = channel.INIT_ORDERS.receive(self._orders)
                if arrived is None:
                    return
                self._execute_order(*arrived)

    def _send(self, message: InitMessage) -> None:
        channel.INIT_MESSAGES.send(self._orders, message)

    def _execute_order(self, order: InitOrder, descriptors: list[int]) -> None:
        match order["op"]:
            case "exec":
                self._start(order, descriptors)
            case "prove":
                self._prove(order)
            case "signal":
                for pid, running in self._commands.items():
                    # setsid(2) made the command the leader of a group whose number is its pid.
                    if running == order["n"]:
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.killpg(pid, order["signal"])
            case "left":
                self._send({"kind": "processes", "n": order["n"], "processes": _other_processes()})
            case "copy_up":
                _copy_up(order)
                self._send({"kind": "copied_up"})
            case _:
                assert_never(order)
        for descriptor in descriptors:
            os.close(descriptor)

    def _start(self, order: Execute, descriptors: list[int]) -> None:
        number = order["n"]
        try:
            pid = os.fork()
        except OSError:
            # EAGAIN: pids.max or RLIMIT_NPROC is reached, both of which count threads.
            self._send({"kind": "exited", "n": number, "status": 126})
            return
        if pid == 0:
            _execute(order, descriptors)
        self._commands[pid] = number
        self._send({"kind": "started", "n": number, "pid": pid})

    def _prove(self, order: Prove) -> None:
        pid = os.fork()
        if pid:
            self._proofs[pid] = order["n"]
            return
        status = 1
        try:
            _reset_signals()
            # The warden reads the arguments of held calls from this process's memory.
            syscalls.set_dumpable(True)
            expect = order["expect"]
            results = canaries.run(expect)
            proven = limits.prove_inside(expect["temporary"]) if order["limits"] else []
            run: CanariesRun = {
                "kind": "canaries",
                "n": order["n"],
                "results": results,
                "limits": proven,
            }
            self._send(run)
            status = 0
        finally:
            os._exit(status)

    def _report_end(self, pid: int, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        proof = self._proofs.pop(pid, None)
        if proof is not None and status:
            why = f"their process ended with {code}"
            self._send({"kind": "proof_failed", "n": proof, "why": why})
        command = self._commands.pop(pid, None)
        if command is not None:
            # A signal leaves no exit status: a shell shows 128 and its number.
            shell_status = code if code >= 0 else 128 - code
            self._send({"kind": "exited", "n": command, "status": shell_status})


def _copy_up(order: CopyUp) -> None:
    """What cannot be copied up stays as it is, and the kernel answers the call."""
    # A child that ends meanwhile would end a rename of ours, which is held too (EINTR).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        for names in order["names"]:
            with contextlib.suppress(OSError, ValueError):
                copy_up.join_names(names)
        for path in order["folders"]:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                copy_up.own_folder(path)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reset_signals() -> None:
    """In a child of init: default signal actions, an empty mask, and a session of its own."""
    signal.set_wakeup_fd(-1)
    # signal(7): execve(2) resets handlers, but keeps what is ignored and what is blocked.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()


def _execute(order: Execute, descriptors: list[int]) -> NoReturn:
    """In a child of init: execute the command.

    Its exit status is a shell's where that fails: 127 if it is not found, 126 if not executable.
    """
    status = 126
    try:
        _reset_signals()
        for target, descriptor in enumerate(descriptors):
            # dup2(2) leaves the copy without close-on-exec.
            os.dup2(descriptor, target)
        syscalls.close_range(3)
        if os.isatty(0):
            _take_terminal()
        _raise_oom_score()
        os.chdir(order["cwd"])
        _execute_along_path(order["argv"], order["env"])
    except OSError as error:
        status = 127 if error.errno == errno.ENOENT else 126
        with contextlib.suppress(OSError):
            os.write(
                2,
                f"{error.filename or order['argv'][0]}: {error.strerror}\n".encode(
                    errors="replace"
                ),
            )
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{error!r}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _take_terminal() -> None:
    """Make standard input the controlling terminal of this session, so that job control works."""
    # The second argument 0 steals it from no other session (ioctl_tty(2)).
    with contextlib.suppress(OSError):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _execute_along_path(words: list[str], variables: dict[str, str]) -> NoReturn:
    """Execute the program, along PATH only where a file is: each execve(2) is a held call, and PATH
    may have a dozen folders before the one with `sh`.
    """
    name = words[0]
    for folder in os.get_exec_path(variables) if "/" not in name else ():
        if os.path.exists(path := os.path.join(folder, name)):
            with contextlib.suppress(OSError):
                os.execve(path, words, variables)
    os.execvpe(name, words, variables)


def _raise_oom_score() -> None:
    """Raise the command's oom_score_adj, so that the OOM killer takes it before init, whose death
    ends the environment.
    """
    # Else /proc/self belongs to root. The execve(2) that follows makes it dumpable anyway.
    syscalls.set_dumpable(True)
    # proc_pid_oom_score_adj(5): raising needs no privilege; fork(2) and execve(2) keep it.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _other_processes() -> list[LivingProcess]:
    """Every running process of this pid namespace but init."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    return [found for number in numbers if (found := describe(number)) is not None]


def describe(pid: int) -> LivingProcess | None:
    """Name and arguments of a process; None if it has ended (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read().decode(errors="replace")
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    # Z is a zombie, X a dead process.
    if stat.rpartition(")")[2].split()[0] in "ZX":
        return None
    return {
        "ns_pid": pid,
        "comm": stat.partition("(")[2].rpartition(")")[0],
        "argv": [word.decode(errors="replace") for word in words],
    }
