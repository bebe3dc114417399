"""A small environment for attacks: namespaces, a read-only root with a writable folder, Landlock,
the filter, and a recorder that serves it.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  before its folder is hidden
import json
import os
import select
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cleanroom.sandbox.kernel import constants, landlock, privileges, syscalls
from cleanroom.sandbox.network import dns
from cleanroom.sandbox.seccomp import bpf, filters
from cleanroom.sandbox.seccomp_notify.emulate import HostNetworkAccess
from cleanroom.sandbox.seccomp_notify.recorder import Environment, Recorder
from cleanroom.sandbox.seccomp_notify.rules import Grants, Rules

USER = 4242
# where programs may be started from in a listed cage
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


@dataclass
class AttackResult:
    """What the attack returned, and the attempts that were recorded."""

    result: Any
    attempts: list[dict[str, Any]] = field(default_factory=list)
    completeness: str = ""
    dropped: int = 0

    def rules(self) -> list[str]:
        return [attempt["rule"] for attempt in self.attempts]

    def only(self) -> dict[str, Any]:
        assert len(self.attempts) == 1, self.attempts
        return self.attempts[0]


def code(action: Callable[[], Any]) -> str:
    """The errno's name that `action` fails with; ok if it does not."""
    import errno

    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"


def written(path: str) -> None:
    """Open `path` for writing, making it if need be."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def attack(
    action: Callable[[str], Any],
    workspace: str,
    *,
    known: dict[str, str] | None = None,
    read_only: tuple[str, ...] = (),
    services: tuple[str, ...] = (),
    hidden: tuple[str, ...] = ("/root", "/run"),
    proving: bool = False,
    listed: bool = False,
    builds: tuple[str, ...] = (),
    ports: tuple[int, ...] = (),
    shared: HostNetworkAccess | None = None,
) -> AttackResult:
    """Run `action(workspace)` in a cage and collect what was recorded;
    `listed` as at High, where programs are those of the system and in `builds`.

    `shared`: on the network of whoever calls this, by its rules.
    """
    given = (
        known or {},
        read_only,
        services,
        hidden,
        proving,
        (*SYSTEM, *builds) if listed else (),
        ports,
        shared,
    )
    results_read, results_write = os.pipe()
    mine, theirs = socket.socketpair()
    news_read, news_write = os.pipe()
    warden = os.fork()
    if warden == 0:
        _guarded(lambda: _warden(action, workspace, given, results_write, news_write, mine, theirs))
    for descriptor in (results_write, news_write):
        os.close(descriptor)
    mine.close()
    theirs.close()
    news = json.loads(_drained(news_read) or b'{"attempts": []}')
    result = _drained(results_read)
    os.waitpid(warden, 0)
    assert "trouble" not in news, news["trouble"]
    caught = AttackResult(json.loads(result) if result else None, **news)
    assert not (isinstance(caught.result, dict) and "trouble" in caught.result), caught.result[
        "trouble"
    ]
    return caught


def _drained(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _guarded(action: Callable[[], None]) -> None:
    try:
        action()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def _resolver() -> tuple[socket.socket, socket.socket]:
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    for end in (udp, tcp):
        end.bind(("127.0.0.1", 53))
        end.setblocking(False)
    tcp.listen(8)
    return udp, tcp


def _warden(action, workspace, given, results, news, mine, theirs) -> None:
    known, read_only, services, hidden, proving, programs, ports, shared = given
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    host_sockets = os.open("/proc/self/net/unix", os.O_RDONLY)
    flags = (
        constants.CLONE_NEWPID | constants.CLONE_NEWIPC | (0 if shared else constants.CLONE_NEWNET)
    )
    user, group = os.geteuid(), os.getegid()
    # while the port is ours: a shared network belongs to whoever is outside
    resolver = _resolver() if shared else None
    if user:
        syscalls.unshare(flags | constants.CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{USER} {user} 1"),
            ("gid_map", f"{USER} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    else:
        syscalls.unshare(flags)
    if not shared:
        dns.raise_link("lo")
    udp, tcp = resolver or _resolver()
    attempts: list[dict[str, Any]] = []
    remembered = dns.NameTable(known)
    answerer = dns.DnsServer(udp, tcp, remembered, attempts.append)
    inside = os.fork()
    if inside == 0:
        os.close(news)
        _guarded(
            lambda: _inside(action, workspace, hidden, programs, results, theirs, not user, shared)
        )
    theirs.close()
    os.close(results)
    _, listener, _, _ = socket.recv_fds(mine, 1, 1)
    grants = Grants(
        writable=(workspace, "/tmp", "/dev/shm"),
        read_only=(*read_only, *programs[: len(SYSTEM)]),
        sockets=services,
        programs=programs,
        ports=ports,
    )
    environment = Environment(Rules(grants), remembered, proc, host_sockets)
    recorder = Recorder(listener[0], environment, attempts.append, shared)
    recorder.proving = proving
    _serve(recorder, answerer, inside)
    recorder.flush()
    os.write(
        news,
        json.dumps(
            {
                "attempts": attempts,
                "completeness": recorder.completeness,
                "dropped": recorder.dropped,
            }
        ).encode(),
    )


def _serve(recorder: Recorder, answerer: dns.DnsServer, inside: int) -> None:
    poll = select.poll()
    for descriptor in (*recorder.filenos(), *answerer.filenos()):
        poll.register(descriptor, select.POLLIN)
    ended = syscalls.pidfd_open(inside)
    poll.register(ended, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll(recorder.timeout_ms()):
            if descriptor == ended:
                return
            if descriptor in recorder.filenos():
                if not recorder.ready():
                    return
            else:
                answerer.ready()
        recorder.tick()


def _inside(action, workspace, hidden, programs, results, channel, as_root, shared) -> None:
    syscalls.unshare(constants.CLONE_NEWNS)
    syscalls.mount(None, "/", None, constants.MS_REC | constants.MS_PRIVATE)
    syscalls.mount("proc", "/proc", "proc", constants.MS_NOSUID)
    for path in (workspace, "/tmp"):
        syscalls.mount(path, path, None, constants.MS_BIND | constants.MS_REC)
    if programs:
        for path in (workspace, "/tmp"):
            syscalls.mount_setattr(
                constants.AT_FDCWD, path, 0, attr_set=constants.MOUNT_ATTR_NOEXEC
            )
        for path in programs[len(SYSTEM) :]:
            syscalls.mount(path, path, None, constants.MS_BIND)
            syscalls.mount_setattr(
                constants.AT_FDCWD, path, 0, attr_clear=constants.MOUNT_ATTR_NOEXEC
            )
    resolver = f"{workspace}/.resolv.conf"
    with open(resolver, "w") as file:
        file.write("nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
    syscalls.mount(resolver, "/etc/resolv.conf", None, constants.MS_BIND)
    for path in hidden:
        syscalls.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    if as_root:
        privileges.drop_bounding_set()
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        syscalls.set_dumpable(True)
    privileges.drop_all_capabilities()
    writable = (workspace, "/tmp", "/dev/shm", "/proc")
    landlock.restrict(("/",), writable, programs or ("/",), run_written=not programs)
    program = filters.phase_filter(
        os.uname().machine,
        allowlist=bool(programs),
        host_network=shared is not None,
        track_sockets=bool(shared and shared.track_sockets),
    )
    bpf.install_and_send(program, channel)
    channel.close()
    os.chdir(workspace)
    try:
        answer = action(workspace)
    except BaseException:
        answer = {"trouble": traceback.format_exc()}
    os.write(results, json.dumps(answer).encode())
