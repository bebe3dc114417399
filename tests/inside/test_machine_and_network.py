"""Claims that programs find the machine and the network inside as they are used to outside.

The real command on a project of one phase, which is one small program.
"""

from __future__ import annotations

import shutil
import subprocess
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
        "as many processors as the limit says",
        "import os, subprocess\n"
        "told = int(subprocess.check_output(['nproc']))\n"
        "assert told == len(os.sched_getaffinity(0)) == os.cpu_count() == 1, told\n",
        {"limits": "{ cpus = 1 }"},
    ),
    Program(
        "as much memory as the limit says, by the C library and by /proc",
        "import os\n"
        "pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')\n"
        "line = next(l for l in open('/proc/meminfo') if l.startswith('MemTotal'))\n"
        "assert pages == int(line.split()[1]) * 1024 == 256 << 20, (pages, line)\n",
        {"limits": '{ memory = "256MiB" }'},
    ),
    Program(
        "sixteen terabytes may be reserved and not touched",
        "import mmap\n"
        "noreserve = 0x4000\n"
        "flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve\n"
        "mmap.mmap(-1, 1 << 44, flags=flags)\n",
    ),
    Program(
        "a child that was started here may be traced, stopped and let go",
        LIBC
        + "libc.ptrace.argtypes = [ctypes.c_long] * 4\n"
        + "child = os.fork()\n"
        + "child or signal.pause()\n"
        + "assert libc.ptrace(16, child, 0, 0) == 0, ctypes.get_errno()\n"
        + "assert os.WIFSTOPPED(os.waitpid(child, 0)[1])\n"
        + "assert libc.ptrace(17, child, 0, 0) == 0, ctypes.get_errno()\n"
        + "os.kill(child, 9)\n",
    ),
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
    Program(
        "names below .invalid and .test are nobody's",
        "import socket\n"
        "for name in ('a.invalid', 'b.c.test'):\n"
        "    try: print(socket.getaddrinfo(name, 80)); raise SystemExit(1)\n"
        "    except socket.gaierror as error: assert error.errno == socket.EAI_NONAME, error\n",
    ),
    Program(
        "a name below .localhost is this machine",
        "import socket\nassert socket.gethostbyname('shop.localhost') == '127.0.0.1'\n",
    ),
    Program(
        "connecting a datagram socket tells one's own address",
        "import socket\n"
        "for family, host in ((socket.AF_INET, '8.8.8.8'), (socket.AF_INET6, '2001:db8::1')):\n"
        "    with socket.socket(family, socket.SOCK_DGRAM) as it:\n"
        "        it.connect((host, 80))\n"
        "        assert it.getsockname()[0] in ('127.0.0.1', '::1'), it.getsockname()\n",
    ),
    Program(
        "sockets that neither this environment nor the host has are looked for in vain",
        "import socket\n"
        "for path in ('/run/dbus/no-such', '/var/run/no-such/socket', '/tmp/.X11-unix/X97'):\n"
        "    try: socket.socket(socket.AF_UNIX).connect(path); raise SystemExit(1)\n"
        "    except (FileNotFoundError, ConnectionRefusedError): pass\n",
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


@pytest.mark.parametrize("checker", ["address", "thread"])
def test_a_program_with_a_sanitizer_runs(project: Project, checker: str):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = project.root / "clean.c"
    source.write_text("#include <stdlib.h>\nint main(void) { free(malloc(9)); return 0; }\n")
    probe = ["cc", f"-fsanitize={checker}", "-o", project.home / "probe", source]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip(f"no {checker} sanitizer")
    project.write({"test": f"cc -fsanitize={checker} -o /tmp/clean clean.c && /tmp/clean"})
    answer = project.call("run", "test")
    assert answer.code == 0, answer.err[-2000:]


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
