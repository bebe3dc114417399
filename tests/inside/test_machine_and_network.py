"""What lies behind the rows on the machine, its processes and its network.

The real command on a project of one phase, which is one small program.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from support.command_harness import Project, project

__all__ = ["project"]
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(120)]


class Program(NamedTuple):
    """A program that ends with 0 where the claim holds."""

    claim: str
    text: str
    # further keys of the phase
    settings: dict[str, str] = {}


LIBC = "import ctypes, os, signal, socket, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
PROGRAMS = (
    Program(
        "an orphan that asks its parent, pid 1, to trace it leaves the environment whole",
        LIBC
        + "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        + "if os.fork() == 0:\n"
        + "    if os.fork() == 0:\n"
        + "        while os.getppid() != 1: pass\n"
        + "        libc.ptrace(0, 0, 0, 0)\n"
        + "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        + "    os._exit(0)\n"
        + "os.wait()\n"
        + "import time; time.sleep(0.3)\n",
    ),
    Program(
        "a netlink socket has a number that select takes",
        "import select, socket\n"
        "it = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
        "select.select([it], [], [], 0)\n",
        {"limits": "{ open_files = 4096 }", "reason": '"as many as the login has"'},
    ),
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.claim)
def test_a_program_finds_what_it_finds_outside(project: Project, program: Program):
    (project.root / "program.py").write_text(program.text)
    project.write({"test": "/usr/bin/python3 program.py"}, **program.settings)
    answer = project.call("run", "test")
    assert answer.code == 0, answer.err[-2000:]
    assert [v for v in answer.result["violations"] if v["severity"] == "violation"] == []


def test_a_datagram_that_is_sent_after_connecting_is_named(project: Project):
    (project.root / "program.py").write_text(
        "import socket\n"
        "it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "it.connect(('192.0.2.7', 4711))\n"
        "it.send(b'out')\n"
    )
    project.write({"test": "/usr/bin/python3 program.py"})
    answer = project.call("run", "test")
    assert answer.code == 1
    found = answer.violation("network.egress")
    assert (found["target"]["ip"], found["target"]["port"]) == ("192.0.2.7", 4711)


def test_a_debugger_may_not_reach_pid_1(project: Project):
    (project.root / "program.py").write_text(
        LIBC
        + "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        + "assert libc.ptrace(0x4206, 1, 0, 0) == -1\n"
    )
    project.write({"test": "/usr/bin/python3 program.py"})
    answer = project.call("run", "test")
    assert answer.code == 1
    assert answer.violation("process.visibility")["target"]["syscall"] == "ptrace of init"


def test_at_high_a_child_may_not_be_traced(project: Project):
    (project.root / "program.py").write_text(
        LIBC
        + "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        + "assert libc.ptrace(0, 0, 0, 0) == -1\n"
    )
    project.write({"test": "/usr/bin/python3 program.py"}, policy='"High"')
    answer = project.call("run", "test")
    assert answer.code == 1
    assert answer.violation("process.syscalls")["target"]["syscall"] == "ptrace"


def test_a_service_is_reached_by_both_addresses_of_localhost(project: Project):
    (project.root / "serve.py").write_text(
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 7007))\n"
        "while True:\n"
        "    end, _ = server.accept()\n"
        "    end.sendall(b'here'); end.close()\n"
    )
    (project.root / "ask.py").write_text(
        "import socket\n"
        "found = socket.getaddrinfo('localhost', 7007, type=socket.SOCK_STREAM)\n"
        "assert len(found) == 2\n"
        "for family, *_, address in found:\n"
        "    with socket.socket(family) as end:\n"
        "        end.connect(address)\n"
        "        assert end.recv(4) == b'here', address\n"
    )
    project.write({"test": "/usr/bin/python3 ask.py"}, containers='["count"]')
    project.add(
        "[cleanroom.services.count]\n"
        'command = ["/usr/bin/python3", "serve.py"]\nready = { tcp = 7007 }\n'
    )
    answer = project.call("run", "test")
    assert answer.code == 0, answer.err[-2000:]


def test_the_job_server_of_a_make_around_the_engine_stays_outside(project: Project):
    project.caller["MAKEFLAGS"] = "k -j4 --jobserver-auth=3,4 -- V=1"
    project.write(
        {"test": "test \"$MAKEFLAGS\" = 'k -- V=1'"}, policy='"Low"', reason='"as the caller"'
    )
    answer = project.call("run", "test")
    assert answer.code == 0, answer.err[-2000:]
