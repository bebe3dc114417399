"""The suite's commands for the memory backend, which runs no program: the effect of each."""

from __future__ import annotations

from cleanroom.backends.memory.programs import Inside, forever, succeed
from cleanroom.backends.memory.script import Script
from cleanroom.model.capability import Attempt, Process, Target
from cleanroom.testing.checks import (
    ADDRESS,
    ALLOCATE,
    ASK,
    ASK_BY_NAME,
    BINARY,
    CONNECT,
    DELETE,
    EXIT,
    FORK,
    HIDE,
    KILLED,
    LARGE,
    LARGE_BYTES,
    LEAVE,
    OUTPUT,
    PORT,
    READ,
    SEEK,
    SERVE,
    TOGETHER,
    WAIT,
    WRITE,
)


async def _output(inside: Inside) -> int:
    inside.write(b"abc")
    inside.write(b"x", "stderr")
    return 0


async def _variables(inside: Inside) -> int:
    inside.write(b"".join(f"{name}={value}\0".encode() for name, value in inside.variables.items()))
    return 0


async def _where(inside: Inside) -> int:
    inside.write(inside.working_directory.encode() + b"\n")
    return 0


async def _read(inside: Inside) -> int:
    inside.write(inside.read_file("made.txt") or b"")
    return 0


async def _delete(inside: Inside) -> int:
    inside.delete_file("old.txt")
    return 0


async def _hide(inside: Inside) -> int:
    inside.environment.private["only-here"] = b"mine"
    return 0


async def _seek(inside: Inside) -> int:
    return 0 if "only-here" in inside.environment.private else 1


async def _wait(inside: Inside) -> int:
    inside.write(b"started\n")
    return await forever(inside)


async def _leave(inside: Inside) -> int:
    inside.leave("sleep 1000")
    return 0


async def _connect(inside: Inside) -> int:
    inside.attempt(egress_attempt(ADDRESS, PORT))
    return 1


async def _large(inside: Inside) -> int:
    inside.write(b"x" * LARGE_BYTES)
    return 0


async def _ask(inside: Inside) -> int:
    if not inside.environment.spec.port_forwards:
        return 1
    inside.write(b"hello\n")
    return 0


async def _allocate(inside: Inside) -> int:
    inside.killed_for = "memory"
    return 137


async def _fork(inside: Inside) -> int:
    refused = Attempt(
        environment="",
        dimension="resource",
        rule="resource.pids",
        outcome="blocked",
        mechanism="script",
        certainty="counter",
        target=Target(limit="processes 16"),
        attribution_gap="a script names none",
    )
    inside.attempt(refused)
    return 2


def egress_attempt(ip: str, port: int) -> Attempt:
    """A refused connection, as a backend that attributes attempts reports it."""
    return Attempt(
        environment="",
        dimension="network",
        rule="network.egress",
        outcome="blocked",
        mechanism="script",
        certainty="held_syscall",
        target=Target(ip=ip, port=port, proto="tcp"),
        process=Process(pid=4242, exe="/usr/bin/python3", comm="python3"),
        syscall="connect",
        errno="ECONNREFUSED",
    )


CHECK_SCRIPT = Script(
    programs={
        EXIT: succeed(exit_code=7),
        KILLED: succeed(exit_code=137),
        OUTPUT: _output,
        BINARY: succeed(b"\0\xff\xfe"),
        LARGE: _large,
        "env -0": _variables,
        "pwd": _where,
        WRITE: succeed(files={"made.txt": b"kept\n"}),
        READ: _read,
        DELETE: _delete,
        HIDE: _hide,
        SEEK: _seek,
        WAIT: _wait,
        TOGETHER: succeed(b"together\n"),
        LEAVE: _leave,
        CONNECT: _connect,
        SERVE: _wait,
        ASK: _ask,
        ASK_BY_NAME: _ask,
        ALLOCATE: _allocate,
        FORK: _fork,
    },
)
