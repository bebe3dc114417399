"""The canaries as lists of system calls, which pid 1 makes in a child, for environments in which
no Python of ours runs.

Each canary of `canaries.CANARIES` and `canaries.ALLOWLIST` has its attempt here as system calls.
Rules, expected refusals and records are taken from there.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.syscall_numbers import number
from cleanroom.sandbox.selftest.canary import Canary, Unavailable, allowlist, verdict

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CanaryRun, Expectations

# no system call: start the program that the first argument names and give its refusal
_START = 0xFFFFFFFF
# AT_FDCWD
_CWD = -100
_NEW = os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_RLIMIT_FSIZE, _SIG_BLOCK, _SIGXFSZ = 1, 0, 25
# Since 2.6.27 socket(2) takes the two flags of its descriptor in the type.
_TYPE = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


class Word(NamedTuple):
    """An argument that is only known inside: "r" is the result of the step `value`, "o" a buffer of
    `value` bytes, whose content is reported.
    """

    letter: str
    value: int


class Datagram(NamedTuple):
    """An argument of sendmsg()."""

    address: bytes
    data: bytes


Argument = int | bytes | Word | Datagram


class Step(NamedTuple):
    """One system call."""

    call: int
    arguments: tuple[Argument, ...]


class Told(NamedTuple):
    """The outcome of a step."""

    # below zero: an errno
    result: int
    room: bytes


class Script(NamedTuple):
    """Steps of which the last one, or the first that fails, decides.

    `check` reads the results and raises the refusal that they mean.
    """

    steps: tuple[Step, ...]
    check: Callable[[Sequence[Told]], None] = lambda _: None


def scripts(expect: Expectations, which: Canary) -> tuple[Script, ...]:
    """The attempts of one canary; one that succeeds outweighs the refusals of the others."""
    return _SCRIPTS[which.name](expect)


def judge(
    which: Canary, expect: Expectations, given: Sequence[tuple[Script, Sequence[Told]]]
) -> CanaryRun:
    """The result of a canary whose scripts were carried out."""

    def replay() -> None:
        refusal: Exception | None = None
        for script, results in given:
            try:
                _outcome(script, results)
            except (OSError, Unavailable, ValueError) as error:
                refusal = error
                continue
            return
        if refusal is not None:
            raise refusal

    return verdict(which, expect, replay)


LIMIT = Canary("one byte too many in a file", "resource.disk", ("EFBIG",), lambda _: None)


def _outcome(script: Script, results: Sequence[Told]) -> None:
    if not results:
        raise ValueError("the process that tried it did not come to its end")
    last = results[-1].result
    if last < 0:
        # Such as EAFNOSUPPORT: without a socket there was no attempt to record.
        if len(results) == 1 and len(script.steps) > 1 and script.steps[0].call == number("socket"):
            raise Unavailable(f"no such socket: {os.strerror(-last)}")
        raise OSError(-last, os.strerror(-last))
    script.check(results)


def _do(name: str, *arguments: Argument) -> Step:
    return Step(number(name), arguments)


def _result(step: int) -> Word:
    return Word("r", step)


def _room(size: int) -> Word:
    return Word("o", size)


def _path(path: str) -> bytes:
    return os.fsencode(path) + b"\0"


def _internet(ip: str, port: int) -> bytes:
    if ":" in ip:
        # struct sockaddr_in6: family, port, flow information, address, scope.
        return (
            struct.pack("=H", socket.AF_INET6)
            + struct.pack(">HI", port, 0)
            + socket.inet_pton(socket.AF_INET6, ip)
            + bytes(4)
        )
    # struct sockaddr_in: the family in the machine's order, the port in the network's.
    return (
        struct.pack("=H", socket.AF_INET)
        + struct.pack(">H", port)
        + socket.inet_aton(ip)
        + bytes(8)
    )


def _local(name: bytes) -> bytes:
    return struct.pack("=H", socket.AF_UNIX) + name


def _open(path: str, flags: int, mode: int = 0) -> Step:
    return _do("openat", _CWD, _path(path), flags | os.O_CLOEXEC, mode)


def _one(
    *steps: Step, check: Callable[[Sequence[Told]], None] = lambda _: None
) -> tuple[Script, ...]:
    return (Script(steps, check),)


def _connect(address: bytes, protocol: int = 0) -> tuple[Script, ...]:
    """Not blocking: an empty network refuses at once, and EINPROGRESS means that something went
    out.
    """
    family = struct.unpack_from("=H", address)[0]
    return _one(
        _do("socket", family, _TYPE, protocol), _do("connect", _result(0), address, len(address))
    )


def _send(address: bytes, kind: int, flags: int) -> tuple[Script, ...]:
    return _one(
        _do("socket", socket.AF_INET, kind, 0),
        _do("sendto", _result(0), b"canary", 6, flags, address, len(address)),
    )


def _unix(path: bytes) -> tuple[Script, ...]:
    # sun_path has 108 bytes (unix(7)). A program reaches a longer path through its folder, so
    # opening that is the attempt.
    if len(path) > 108:
        return _one(
            _do(
                "openat",
                _CWD,
                os.path.dirname(path) + b"\0",
                os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
                0,
            )
        )
    return _connect(_local(path))


def _socket(family: int, kind: int) -> tuple[Script, ...]:
    return _one(_do("socket", family, kind, 0))


def _write(path: str, data: bytes) -> tuple[Script, ...]:
    return _one(
        _open(path, os.O_RDWR | _NEW, 0o600),
        _do("write", _result(0), data, len(data)),
        # unlinkat(2) without AT_REMOVEDIR acts as unlink(2).
        _do("unlinkat", _CWD, _path(path), 0),
    )


def _each(expect: Expectations, make: Callable[[str], Step]) -> tuple[Script, ...]:
    return tuple(Script((make(folder),)) for folder in expect["outside"])


def _engine(expect: Expectations, *before: Step) -> tuple[Script, ...]:
    def verify(results: Sequence[Told]) -> None:
        # proc_pid_stat(5): field 22, starttime; a pid alone may be another process's here.
        if int(results[-1].room.rstrip(b"\0").rpartition(b")")[2].split()[19]) != expect["start"]:
            raise ProcessLookupError(errno.ESRCH, "its number belongs to another process here")

    opened = len(before)
    return _one(
        *before,
        _open(f"/proc/{expect['pid']}/stat", os.O_RDONLY),
        _do("read", _result(opened), _room(512), 511),
        check=verify,
    )


def _capabilities(results: Sequence[Told]) -> None:
    if not any(results[-1].room):
        raise PermissionError(errno.EPERM, "none")


def _name(expect: Expectations) -> tuple[Script, ...]:
    """Only the sink's own address may come back."""
    # RFC 1035: an id, the flag RD, one question; type A, class IN.
    question = b"\x43\x52\1\0\0\1\0\0\0\0\0\0" + b"".join(
        bytes((len(part),)) + part.encode() for part in expect["name"].split(".")
    )
    question += b"\0\0\1\0\1"
    answerer = _internet("127.0.0.1", 53)

    def verify(results: Sequence[Told]) -> None:
        # RCODE is the lower half of byte 3 (RFC 1035); the sink's addresses are in 198.18.0.0/15.
        answer = results[-1].room[: results[-1].result]
        if len(answer) < 4 or answer[3] & 15 or answer[-4] != 198 or answer[-3] & 0xFE != 18:
            raise ValueError(f"answered with {answer[-4:].hex()}")

    return _one(
        _do("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0),
        _do(
            "setsockopt",
            _result(0),
            socket.SOL_SOCKET,
            socket.SO_RCVTIMEO,
            # struct timeval, two seconds: a read(2) that waits longer is EAGAIN.
            struct.pack("=qq", 2, 0),
            16,
        ),
        # connect(2) on a datagram socket sends nothing: it sets the peer of write(2) and read(2).
        _do("connect", _result(0), answerer, len(answerer)),
        _do("write", _result(0), question, len(question)),
        _do("read", _result(0), _room(512), 512),
        check=verify,
    )


def _own_program(expect: Expectations) -> tuple[Script, ...]:
    path, text = f"{allowlist(expect)['written']}/cleanroom-canary", b"#!/bin/sh\nexit 0\n"
    return _one(
        _open(path, os.O_WRONLY | _NEW, 0o700),
        _do("write", _result(0), text, len(text)),
        # execve(2): ETXTBSY for a file that is open for writing.
        _do("close", _result(0)),
        Step(_START, (_path(path),)),
    )


def _listen_freely() -> tuple[Script, ...]:
    anywhere = _internet("127.0.0.1", 0)
    return _one(
        _do("socket", socket.AF_UNIX, _TYPE, 0),
        # unix(7), autobind: an address of the family alone gets an abstract name from the kernel.
        _do("bind", _result(0), _local(b""), 2),
        _do("listen", _result(0), 1),
        _do("socket", socket.AF_INET, socket.SOCK_DGRAM, 0),
        _do("bind", _result(3), anywhere, len(anywhere)),
    )


def _file_too_large() -> tuple[Script, ...]:
    """Write beyond RLIMIT_FSIZE with SIGXFSZ blocked, so that write(2) returns the refusal."""
    path = f"/tmp/.limit-{os.urandom(4).hex()}"
    return _one(
        _do("prlimit64", 0, _RLIMIT_FSIZE, struct.pack("=QQ", 4096, 4096), 0),
        # The kernel's own sigset_t has 8 bytes, unlike libc's.
        _do("rt_sigprocmask", _SIG_BLOCK, struct.pack("=Q", 1 << (_SIGXFSZ - 1)), 0, 8),
        _open(path, os.O_WRONLY | _NEW, 0o600),
        _do("write", _result(2), bytes(4096), 4096),
        # setrlimit(2): a write(2) that begins at the limit is EFBIG, one that crosses it is cut.
        _do("write", _result(2), b"x", 1),
    )


_SCRIPTS: dict[str, Callable[[Expectations], tuple[Script, ...]]] = {
    # 192.0.2.0/24 and 2001:db8::/32 are for documentation: RFC 5737, RFC 3849.
    "tcp": lambda _: _connect(_internet("192.0.2.1", 9)),
    "tcp over IPv6": lambda _: _connect(_internet("2001:db8::1", 9)),
    # Link-local (RFC 3927), where clouds serve credentials.
    "metadata service": lambda _: _connect(_internet("169.254.169.254", 80)),
    "udp": lambda _: _send(_internet("192.0.2.9", 123), socket.SOCK_DGRAM, 0),
    "tcp fast open": lambda _: _send(_internet("192.0.2.2", 9), _TYPE, socket.MSG_FASTOPEN),
    "tcp fast open by sendmsg": lambda _: _one(
        _do("socket", socket.AF_INET, _TYPE, 0),
        _do(
            "sendmsg",
            _result(0),
            Datagram(_internet("192.0.2.3", 9), b"canary"),
            socket.MSG_FASTOPEN,
        ),
    ),
    # 262 is IPPROTO_MPTCP.
    "mptcp": lambda _: _connect(_internet("192.0.2.4", 9), 262),
    # packet(7): needs CAP_NET_RAW.
    "packet socket": lambda _: _socket(socket.AF_PACKET, socket.SOCK_RAW),
    # 40 is AF_VSOCK.
    "vsock": lambda _: _socket(40, socket.SOCK_STREAM),
    "unix socket outside": lambda expect: _unix(_path(expect["unix"])),
    # unix(7): an abstract name starts with a zero byte, and belongs to a network namespace.
    "abstract socket outside": lambda expect: _connect(_local(b"\0" + expect["abstract"].encode())),
    "write outside": lambda expect: _each(
        expect,
        # O_EXCL: nothing that exists is opened, were the folder writable.
        lambda folder: _open(
            f"{folder}/cleanroom-canary", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600
        ),
    ),
    "chmod outside": lambda expect: _each(
        expect, lambda folder: _do("fchmodat", _CWD, _path(folder), 0o755)
    ),
    "secret of the home folder": lambda expect: _one(_open(expect["secret"], os.O_RDONLY)),
    "mount": lambda _: _one(_do("mount", b"none\0", b"/tmp\0", b"tmpfs\0", 0, b"size=4k\0")),
    "new namespace": lambda _: _one(_do("unshare", constants.CLONE_NEWUSER)),
    # EINVAL too: in a user namespace without a map for it uid 0 does not exist (setresuid(2)).
    "become root": lambda _: _one(_do("setresuid", 0, 0, 0)),
    "capabilities": lambda _: _one(
        _do("capget", struct.pack("=Ii", constants.LINUX_CAPABILITY_VERSION_3, 0), _room(24)),
        check=_capabilities,
    ),
    "see the engine": lambda expect: _engine(expect),
    # kill(2): signal 0 only checks the right to send one.
    "signal the engine": lambda expect: _engine(expect, _do("kill", expect["pid"], 0)),
    "undeclared name": _name,
    "control: /dev/null is written": lambda _: _one(
        _open("/dev/null", os.O_WRONLY), _do("write", _result(0), b"x", 1)
    ),
    "control: /tmp is written": lambda _: _write("/tmp/cleanroom-canary", b"x"),
    "control: /dev/urandom is read": lambda _: _one(_open("/dev/urandom", os.O_RDONLY)),
    "read what is not listed": lambda expect: _one(_open(allowlist(expect)["unread"], os.O_RDONLY)),
    "start what was written": _own_program,
    # MFD_CLOEXEC without MFD_NOEXEC_SEAL: the file could be executed.
    "file in memory that may be started": lambda _: _one(
        _do("memfd_create", b"canary\0", constants.MFD_CLOEXEC)
    ),
    "listen on a port": lambda expect: _one(
        _do("socket", socket.AF_INET, _TYPE, 0),
        _do("bind", _result(0), _internet("127.0.0.1", allowlist(expect)["port"]), 16),
        _do("listen", _result(0), 1),
    ),
    # ip(7): the kernel chooses a port, on every interface.
    "listen without a port": lambda _: _one(
        _do("socket", socket.AF_INET, _TYPE, 0), _do("listen", _result(0), 1)
    ),
    "control: a listed program is started": lambda expect: _one(
        Step(_START, (_path(allowlist(expect)["program"]),))
    ),
    "control: a unix socket listens": lambda _: _listen_freely(),
    LIMIT.name: lambda _: _file_too_large(),
}
