"""Canaries: what the policy forbids, tried inside an environment before anything else runs in it.

`run` is called in a forked child of init, under the very same Landlock and filter,
without exec and without reading a module from disk.
A canary passes when it was refused *and*, where detection is claimed, recorded:
`judge` compares with what the recorder saw.
Controls that must work come last, so that a sandbox that refuses everything does not look like a
good one.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.core.beneath import unix_address
from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        AllowlistExpectations,
        Attempt,
        CanaryResult,
        CanaryRun,
        Expectations,
        HostNetworkExpectations,
        Target,
    )

_CONNECT_SECONDS = 0.1
# the answerer shares its process with the recorder; a busy machine is no violation
_ANSWER_SECONDS = 2.0
_REFUSED = ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EACCES", "EPERM")
_NO_CALL = ("EPERM", "ENOSYS")  # ours says the former; a filter around us may say the latter first
_SHELL = "/bin/sh"  # a file that every environment may read
_READ_ONLY = ("EROFS", "EACCES", "EPERM")


class Canary(NamedTuple):
    """One attempt.

    `attempt` returns the target under which a record must appear, or raises the refusal.

    `target` says the same beforehand; empty where nothing records it:
    reads, signals and abstract sockets fail without being held.
    """

    name: str
    rule: str
    expected: tuple[str, ...]  # names of acceptable errnos; empty for a control that must work
    attempt: Callable[[Expectations], None]
    target: Callable[[Expectations], Target] = lambda _: {}


class Unavailable(Exception):
    """The means of the attempt does not exist here, which is a refusal too,
    and none that is recorded.
    """


def run(expect: Expectations) -> list[CanaryRun]:
    """Try everything; one result each, with `seen` as what `judge` looks for."""
    return [verdict(canary, expect, partial(canary.attempt, expect)) for canary in asked(expect)]


def allowlist(expect: Expectations) -> AllowlistExpectations:
    """What the canaries of level High are told."""
    told = expect["allowlist"]
    assert told is not None, "they are asked with it only"
    return told


def host_network(expect: Expectations) -> HostNetworkExpectations:
    """What the canaries of level Low are told."""
    told = expect["host_network"]
    assert told is not None, "they are asked with it only"
    return told


def asked(expect: Expectations) -> tuple[Canary, ...]:
    """The canaries of the level that these expectations are for."""
    if expect["host_network"]:
        return (*SHARED, *(canary for canary in CANARIES if canary.name not in ALLOWED))
    return (*CANARIES, *(LISTED if expect["allowlist"] else ()), *(BARE if expect["bare"] else ()))


def verdict(canary: Canary, expect: Expectations, attempt: Callable[[], None]) -> CanaryRun:
    """What `attempt`, which raises the refusal, says about a canary."""
    hidden = canary.rule == "process.syscalls" and expect["outer_filter"]
    seen: Target = {} if hidden else canary.target(expect)
    found, passed = "it worked", not canary.expected
    try:
        attempt()
    except Unavailable as error:
        found, passed, seen = str(error), True, {}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        found, passed = f"{name}: {os.strerror(error.errno or 0)}", name in canary.expected
    except Exception as error:
        found, passed = f"{type(error).__name__}: {error}", False
    expected = " or ".join(canary.expected) or "works"
    return {**result(canary.name, canary.rule, expected, found, passed), "seen": seen}


def result(name: str, rule: str, expected: str, found: str, passed: bool) -> CanaryResult:
    """What one canary found, in the shape of capability.Canary."""
    return {
        "name": name,
        "dimension": rule.partition(".")[0],
        "rule": rule,
        "expected": expected,
        "found": found,
        "result": "passed" if passed else "failed",
    }


def judge(runs: Sequence[CanaryRun], attempts_seen: Sequence[Attempt]) -> list[CanaryResult]:
    """The results; a canary that was refused and not recorded has failed."""
    return [_judged(run, attempts_seen) for run in runs]


def _judged(run: CanaryRun, attempts_seen: Sequence[Attempt]) -> CanaryResult:
    found, passed = run["found"], run["result"] == "passed"
    if passed and run["seen"] and not any(_matches(run, attempt) for attempt in attempts_seen):
        passed, found = False, f"{found}; refused, but not recorded"
    return result(run["name"], run["rule"], run["expected"], found, passed)


def _matches(run: CanaryRun, attempt: Attempt) -> bool:
    seen, target = run["seen"], attempt["target"]
    return attempt["rule"] == run["rule"] and seen.items() <= target.items()


# --- network


def _connected(family: int, address: tuple[str, int], protocol: int = 0) -> None:
    """Connect without waiting longer than a refusal takes."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        raise Unavailable(f"no such socket: {os.strerror(error.errno or 0)}") from error
    with probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            if not select.select([], [probe], [], _CONNECT_SECONDS)[1]:
                raise TimeoutError(errno.ETIMEDOUT, "no refusal in time") from None
            _raise(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _raise(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _datagram(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"canary", address)


def _reach_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        _connected(socket.AF_INET, server.getsockname())


def _fast_open(address: tuple[str, int], *, by_message: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if by_message:
            probe.sendmsg([b"canary"], [], constants.MSG_FASTOPEN, address)
        else:
            probe.sendto(b"canary", constants.MSG_FASTOPEN, address)


def _family(family: int) -> None:
    socket.socket(
        family, socket.SOCK_STREAM if family == constants.AF_VSOCK else socket.SOCK_RAW
    ).close()


def _unix_path(path: str) -> None:
    """A path that is longer than an address can hold is tried from its folder,
    as a program would.
    """
    if not _too_long(path):
        return _unix(path)
    folder, name = os.path.split(path)
    try:
        held = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"its folder: {error.strerror}") from error
    try:
        return _unix(unix_address(held, name))
    finally:
        os.close(held)


def _too_long(path: str) -> bool:
    return len(os.fsencode(path)) >= constants.UNIX_PATH_MAX


def _unix(address: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        probe.connect(address)


def _name(expect: Expectations) -> None:
    """Only the sink's own address may come back."""
    question = (
        b"".join(bytes((len(label),)) + label.encode() for label in expect["name"].split("."))
        + b"\0\0\1\0\1"
    )
    packet = b"\x43\x52\1\0\0\1\0\0\0\0\0\0" + question
    stream = expect["bare"]  # where names are asked over TCP
    with socket.socket(
        socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    ) as probe:
        probe.connect(("127.0.0.1", 53))
        probe.send(len(packet).to_bytes(2, "big") + packet if stream else packet)
        if not select.select([probe], [], [], _ANSWER_SECONDS)[0]:
            raise TimeoutError(errno.ETIMEDOUT, "no answer")
        answer = probe.recv(514)[2 if stream else 0 :]
    address = answer[-4:]
    if answer[3] & 15 or address[:1] != b"\xc6" or address[1] & 0xFE != 18:
        raise ValueError(f"answered with {socket.inet_ntoa(address)}")


# --- files


def _write_outside(folder: str) -> None:
    path = f"{folder}/cleanroom-canary"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    os.unlink(path)  # it should not have come this far


def _each(expect: Expectations, action: Callable[[str], None]) -> None:
    """Try every folder; one that is writable outweighs the refusals of the others."""
    refusal: OSError | None = None
    for folder in expect["outside"]:
        try:
            action(folder)
        except OSError as error:
            refusal = error
            continue
        return
    if refusal is not None:
        raise refusal


def _chmod_outside(folder: str) -> None:
    os.chmod(folder, os.stat(folder).st_mode & 0o7777)


def _change_open(path: str) -> None:
    """Change the mode of a file that was opened for reading only."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o7777)
    finally:
        os.close(descriptor)


def _read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _write_null(_: Expectations) -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, b"x")
    os.close(descriptor)


def _write_private(expect: Expectations) -> None:
    path = f"{expect['temporary']}/cleanroom-canary-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    os.unlink(path)


# --- processes


def _mount(_: Expectations) -> None:
    syscalls.mount("none", "/tmp", "tmpfs", 0, "size=4k")


def _become_root(_: Expectations) -> None:
    os.setresuid(0, 0, 0)


def _capabilities(_: Expectations) -> None:
    if os.geteuid() and syscalls.capget() == (0, 0, 0):
        raise PermissionError(errno.EPERM, "none")


def _see_engine(expect: Expectations) -> None:
    """The engine is recognised by its start time: another process inside may bear its number."""
    with open(f"/proc/{expect['pid']}/stat", "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[19])
    if start != expect["start"]:
        raise ProcessLookupError(errno.ESRCH, "its number belongs to another process here")


def _signal_engine(expect: Expectations) -> None:
    os.kill(expect["pid"], 0)
    # there the number is the engine's, and that it cannot be looked at must not hide that it can be
    # signalled
    if not expect["bare"]:
        _see_engine(expect)


def _limit_engine(expect: Expectations) -> None:
    resource.prlimit(expect["pid"], resource.RLIMIT_CORE)  # asking is refused too


def _listen(expect: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", allowlist(expect)["port"]))
        probe.listen()


def _listen_unbound(_: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.listen()


def _listen_freely(_: Expectations) -> None:
    """A unix socket without a name, and a datagram socket on a port that the kernel chooses,
    which clients do.
    """
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        local.bind("")
        local.listen()
        client.bind(("127.0.0.1", 0))


def _listen_for_others(expect: Expectations) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("0.0.0.0", host_network(expect)["port"]))  # noqa: S104
        probe.listen()


def _own_program(expect: Expectations) -> str:
    return f"{allowlist(expect)['written']}/cleanroom-canary"


def _start_own(expect: Expectations) -> None:
    path = _own_program(expect)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o700)
    try:
        os.write(descriptor, b"#!/bin/sh\nexit 0\n")
        os.close(descriptor)
        _start(path)
    finally:
        os.unlink(path)


def _start(path: str) -> None:
    """Start a program in a child; what refuses it is the child's status."""
    pid = os.fork()
    if pid == 0:
        status = errno.ECANCELED
        try:
            os.execve(path, [path, "-c", "exit 0"], {})
        except OSError as error:
            status = error.errno or status
        finally:
            os._exit(status)
    _raise(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _file_in_memory(_: Expectations) -> None:
    os.close(syscalls.memfd("canary"))


def _syscall_target(name: str) -> Callable[[Expectations], Target]:
    return lambda _: {"syscall": name}


def _ip_target(ip: str, port: int) -> Callable[[Expectations], Target]:
    return lambda _: {"ip": ip, "port": port}


CANARIES: tuple[Canary, ...] = (
    Canary(
        "tcp",
        "network.egress",
        _REFUSED,
        lambda _: _connected(socket.AF_INET, ("192.0.2.1", 9)),
        _ip_target("192.0.2.1", 9),
    ),
    Canary(
        "tcp over IPv6",
        "network.egress",
        _REFUSED,
        lambda _: _connected(socket.AF_INET6, ("2001:db8::1", 9)),
        _ip_target("2001:db8::1", 9),
    ),
    Canary(
        "metadata service",
        "network.egress",
        _REFUSED,
        lambda _: _connected(socket.AF_INET, ("169.254.169.254", 80)),
        _ip_target("169.254.169.254", 80),
    ),
    Canary(
        "udp",
        "network.egress",
        _REFUSED,
        lambda _: _datagram(("192.0.2.9", 123)),
        _ip_target("192.0.2.9", 123),
    ),
    Canary(
        "tcp fast open",
        "network.egress",
        _REFUSED,
        lambda _: _fast_open(("192.0.2.2", 9), by_message=False),
        _ip_target("192.0.2.2", 9),
    ),
    Canary(
        "tcp fast open by sendmsg",
        "network.egress",
        _REFUSED,
        lambda _: _fast_open(("192.0.2.3", 9), by_message=True),
        _ip_target("192.0.2.3", 9),
    ),
    Canary(
        "mptcp",
        "network.egress",
        _REFUSED,
        lambda _: _connected(socket.AF_INET, ("192.0.2.4", 9), constants.IPPROTO_MPTCP),
        _ip_target("192.0.2.4", 9),
    ),
    Canary(
        "packet socket",
        "network.families",
        ("EAFNOSUPPORT", "EPERM"),
        lambda _: _family(constants.AF_PACKET),
        lambda _: {"proto": "AF_PACKET"},
    ),
    Canary(
        "vsock",
        "network.families",
        ("EAFNOSUPPORT",),
        lambda _: _family(constants.AF_VSOCK),
        lambda _: {"proto": "AF_VSOCK"},
    ),
    Canary(
        "unix socket outside",
        "network.sockets",
        ("ENOENT", "EACCES", "ECONNREFUSED", "EPERM"),
        lambda expect: _unix_path(expect["unix"]),
        lambda expect: (
            {}
            if expect["unix_private"] or _too_long(expect["unix"])
            else {"sun_path": expect["unix"]}
        ),
    ),
    Canary(
        "abstract socket outside",
        "network.sockets",
        ("ECONNREFUSED", "EPERM"),
        lambda expect: _unix(f"\0{expect['abstract']}"),
    ),
    Canary(
        "write outside",
        "filesystem.write",
        _READ_ONLY,
        lambda expect: _each(expect, _write_outside),
        lambda expect: {"path": f"{expect['outside'][-1]}/cleanroom-canary"},
    ),
    Canary(
        "chmod outside",
        "filesystem.metadata",
        _READ_ONLY,
        lambda expect: _each(expect, _chmod_outside),
        lambda expect: {"path": expect["outside"][-1]},
    ),
    Canary(
        "secret of the home folder",
        "filesystem.secrets",
        ("ENOENT", "EACCES"),
        lambda expect: _read(expect["secret"]),
    ),
    Canary("mount", "process.syscalls", _NO_CALL, _mount, _syscall_target("mount")),
    Canary(
        "new namespace",
        "process.syscalls",
        _NO_CALL,
        lambda _: syscalls.unshare(constants.CLONE_NEWUSER),
        _syscall_target("unshare"),
    ),
    Canary("become root", "process.privileges", ("EPERM", "EINVAL"), _become_root),
    Canary("capabilities", "process.privileges", ("EPERM",), _capabilities),
    Canary("see the engine", "process.visibility", ("ENOENT", "ESRCH", "EACCES"), _see_engine),
    Canary("signal the engine", "process.visibility", ("ESRCH", "EPERM", "ENOENT"), _signal_engine),
    Canary("undeclared name", "network.names", (), _name, lambda expect: {"host": expect["name"]}),
    Canary("control: /dev/null is written", "filesystem.write", (), _write_null),
    Canary("control: /tmp is written", "filesystem.write", (), _write_private),
    Canary(
        "control: /dev/urandom is read", "filesystem.write", (), lambda _: _read("/dev/urandom")
    ),
)

# From level High on, in addition.
LISTED: tuple[Canary, ...] = (
    Canary(
        "read what is not listed",
        "filesystem.reads",
        ("ENOENT", "EACCES"),
        lambda expect: _read(allowlist(expect)["unread"]),
        lambda expect: {"path": allowlist(expect)["unread"]},
    ),
    Canary(
        "start what was written",
        "process.exec",
        ("EACCES",),
        _start_own,
        lambda expect: {"path": _own_program(expect)},
    ),
    Canary(
        "file in memory that may be started",
        "process.exec",
        ("ENOSYS",),
        _file_in_memory,
        _syscall_target("memfd_create"),
    ),
    Canary(
        "listen on a port",
        "network.listen",
        ("EACCES",),
        _listen,
        lambda expect: {"port": allowlist(expect)["port"]},
    ),
    Canary(
        "listen without a port",
        "network.listen",
        ("EACCES",),
        _listen_unbound,
        lambda _: {"ip": "0.0.0.0"},  # noqa: S104
    ),
    Canary(
        "control: a listed program is started",
        "process.exec",
        (),
        lambda expect: _start(allowlist(expect)["program"]),
    ),
    Canary("control: a unix socket listens", "network.listen", (), _listen_freely),
)

# Without namespaces, in addition: what no read-only mount,
# no network and no numbers of processes of its own refuses there.
BARE: tuple[Canary, ...] = (
    Canary(
        "port of the host's loopback",
        "network.egress",
        _REFUSED,
        lambda expect: _connected(socket.AF_INET, ("127.0.0.1", expect["port"])),
        lambda expect: {"ip": "127.0.0.1", "port": expect["port"]},
    ),
    Canary(
        "mode of an open file outside",
        "filesystem.metadata",
        _READ_ONLY,
        lambda _: _change_open(_SHELL),
        lambda _: {"path": os.path.realpath(_SHELL)},
    ),
    Canary(
        "limits of the engine",
        "process.visibility",
        ("EPERM", "ESRCH"),
        _limit_engine,
        lambda expect: {"signal_pid": expect["pid"]},
    ),
    Canary("control: an own port is reached", "network.egress", (), lambda _: _reach_own()),
)

# What Low allows has no canary there.
ALLOWED = frozenset(
    (
        "tcp",
        "tcp over IPv6",
        "metadata service",
        "udp",
        "tcp fast open",
        "tcp fast open by sendmsg",
        "mptcp",
        "unix socket outside",
        "abstract socket outside",
        "secret of the home folder",
        "undeclared name",
    )
)

# At Low, where the network is shared with the host.
SHARED: tuple[Canary, ...] = (
    Canary(
        "metadata service",
        "network.local",
        _REFUSED,
        lambda _: _connected(socket.AF_INET, ("169.254.169.254", 80)),
        _ip_target("169.254.169.254", 80),
    ),
    Canary(
        "link-local address",
        "network.local",
        _REFUSED,
        lambda _: _datagram(("169.254.1.1", 9)),
        _ip_target("169.254.1.1", 9),
    ),
    Canary(
        "the host's loopback",
        "network.local",
        _REFUSED,
        lambda expect: _connected(socket.AF_INET, ("127.0.0.1", host_network(expect)["port"])),
        lambda expect: {"ip": "127.0.0.1", "port": host_network(expect)["port"]},
    ),
    Canary(
        "the host's loopback by fast open",
        "network.local",
        _REFUSED,
        lambda expect: _fast_open(("127.0.0.1", host_network(expect)["port"]), by_message=True),
    ),
    Canary(
        "abstract socket outside",
        "network.local",
        ("ECONNREFUSED", "EPERM"),
        lambda expect: _unix(f"\0{expect['abstract']}"),
        lambda expect: {"sun_path": f"@{expect['abstract']}"},
    ),
    Canary(
        "container runtime's socket",
        "network.runtimes",
        ("ENOENT", "EACCES"),
        lambda expect: _unix(host_network(expect)["runtime"]),
        lambda expect: {"sun_path": host_network(expect)["runtime"]},
    ),
    Canary(
        "listen for other machines",
        "network.publish",
        ("EACCES",),
        _listen_for_others,
        lambda expect: {"port": host_network(expect)["port"]},
    ),
    Canary(
        "listen without a port",
        "network.publish",
        ("EACCES",),
        _listen_unbound,
        lambda _: {"ip": "0.0.0.0"},  # noqa: S104
    ),
    Canary(
        "control: a server of one's own is reached", "network.local", (), lambda _: _reach_own()
    ),
)
