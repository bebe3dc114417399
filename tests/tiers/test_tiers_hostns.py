"""Environments without namespaces: what they can do, what they cannot,
and that each attempt is named.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.backends.run_folders import run_areas
from cleanroom.core.beneath import Folder
from cleanroom.model.errors import ArtifactError
from cleanroom.sandbox.filesystem.etc_files import host_name
from support.embedded_harness import on_terminal
from support.tiers_harness import RUN_ID, hostns_environment, processes

pytestmark = [pytest.mark.lower, pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")]


async def test_every_canary_is_stopped_and_seen(project: Path, tmp_path: Path):
    """Those of every environment, and those of what no namespace holds here."""
    async with hostns_environment(project, tmp_path) as place:
        canaries = await place.environment.prove()
    assert {canary.name: canary.found for canary in canaries if canary.result != "passed"} == {}
    assert {
        "port of the host's loopback",
        "mode of an open file outside",
        "limits of the engine",
    } <= {canary.name for canary in canaries}


async def test_a_terminal_is_the_commands_streams_and_its_controlling_one(
    project: Path, tmp_path: Path
):
    """Job control works, and what it shows is on the caller's end."""
    async with hostns_environment(project, tmp_path) as place:
        found = await on_terminal(place.environment)
    assert found == "controlled\r\nexit 3"


async def test_changes_are_those_of_a_copy_and_come_back(project: Path, tmp_path: Path):
    """The project is as it was until they are brought back;
    a new file, a changed one and a deletion then arrive.
    """
    async with hostns_environment(project, tmp_path) as place:
        said = await place.sh("echo more >> file; echo new > sub/new; rm old; cat file; id -u")
        assert said.status == 0
        assert said.out.splitlines()[:2] == ["as it was", "more"]
        assert said.out.splitlines()[2] != "0"
        assert (project / "old").exists()
        changes = await place.workspace.changes()
        assert {(change.path, change.kind) for change in changes} == {
            ("file", "file"),
            ("sub/new", "file"),
            ("old", "deleted"),
        }
        with Folder.at(tmp_path) as run:
            back = await place.workspace.write_back(None, run)
    assert (back.files, back.deleted) == (2, 1)
    assert (project / "file").read_text() == "as it was\nmore\n"
    assert not (project / "old").exists()
    assert (project / "sub/new").stat().st_uid == os.geteuid()


async def test_the_files_of_etc_are_the_environment_s_own(project: Path, tmp_path: Path):
    """Names, users and resolver are what an environment with namespaces finds, not the host's."""
    async with hostns_environment(project, tmp_path) as place:
        said = await place.sh(
            "cat /etc/hosts /etc/hostname /etc/nsswitch.conf; getent passwd $(id -u); cat "
            "/etc/resolv.conf"
        )
    name = host_name(RUN_ID)
    assert f"127.0.1.1 {name}\n{name}\n" in said.out
    assert "hosts: files dns" in said.out
    assert "cleanroom:x:" in said.out
    assert "use-vc" in said.out


async def test_an_own_server_is_reached_whatever_it_is_bound_to(project: Path, tmp_path: Path):
    """By IPv4 and IPv6, bound to one address or to all, and a port that was found free by binding
    it is free.
    """
    code = """
import json, socket
seen = []
for family, bound, asked in {ways}:
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((bound, 0)); server.listen()
    port = server.getsockname()[1]
    client = socket.socket(family); client.settimeout(5); client.connect((asked, port))
    other = server.accept()[0]; other.sendall(b"hello"); other.close()
    seen.append(client.recv(9).decode() + client.recv(9).decode())
    client.close(); server.close()
    first = socket.socket(family); first.bind((bound, 0))
    port = first.getsockname()[1]; first.close()
    again = socket.socket(family); again.bind((bound, port)); again.close()
print(json.dumps(seen))
"""
    ways = [(2, "127.0.0.1", "127.0.0.1"), (2, "", "127.0.0.1"), (10, "::", "::ffff:127.0.0.1")]
    # containers often have none
    if (
        Path("/proc/net/if_inet6").exists()
        and "00000001 " in Path("/proc/net/if_inet6").read_text()
    ):
        ways.append((10, "::", "::1"))
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(code.replace("{ways}", repr(ways))) == ["hello"] * len(ways)
    assert place.targets("network.egress") == []


async def test_datagrams_reach_an_own_socket_and_nobody_else(project: Path, tmp_path: Path):
    """Connected or not, by sendto and by sendmsg."""
    code = """
import errno, json, socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0)); server.settimeout(5)
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.sendto(b"one", server.getsockname()); one, back = server.recvfrom(9)
client.sendmsg([b"t", b"wo"], [], 0, server.getsockname()); two = server.recv(9)
server.sendto(b"answer", back); answer = client.recv(9)
try:
    client.sendto(b"x", ("192.0.2.7", 9)); refused = "sent"
except OSError as error:
    refused = errno.errorcode[error.errno]
print(json.dumps([one.decode(), two.decode(), answer.decode(), refused]))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(code) == ["one", "two", "answer", "ENETUNREACH"]
    assert place.targets("network.egress") == ["udp 192.0.2.7:9"]


async def test_a_port_of_the_host_is_refused_and_one_where_nobody_waits_is_not_held_against_anyone(
    project: Path, tmp_path: Path
):
    """Who listens on the host's loopback is not reached; asking whether an own server is there yet
    is no attempt.
    """
    code = """
import errno, json, socket, sys
found = []
for port in ({taken}, 1):
    try:
        socket.create_connection(("127.0.0.1", port), 2); found.append("connected")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
print(json.dumps(found))
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        async with hostns_environment(project, tmp_path) as place:
            assert await place.python(code.format(taken=port)) == ["ECONNREFUSED", "ECONNREFUSED"]
    assert place.targets("network.egress") == [f"tcp 127.0.0.1:{port}"]


async def test_a_process_may_change_itself_by_its_own_number(project: Path, tmp_path: Path):
    """Priority, processors and limits of one's own are no attempt on anybody else; where the number
    means a whole user they are.
    """
    code = """
import errno, json, os, resource
own, found = os.getpid(), []
for act in (
    lambda: os.sched_setaffinity(own, os.sched_getaffinity(0)),
    lambda: os.setpriority(os.PRIO_PROCESS, own, 19),
    lambda: resource.prlimit(own, resource.RLIMIT_NOFILE, (64, 64)),
    lambda: os.setpriority(os.PRIO_USER, own, 19),
):
    try:
        act()
        found.append("")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
print(json.dumps(found))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(code) == ["", "", "", "EPERM"]
    assert [attempt.syscall for attempt in place.attempts] == ["setpriority"]


async def test_a_process_asks_for_its_own_core_limit_by_the_number_zero(
    project: Path, tmp_path: Path
):
    """As every getrlimit and setrlimit of the C library does: no attempt, and the limit stays."""
    code = """
import json, resource
before = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print(json.dumps([before, resource.getrlimit(resource.RLIMIT_CORE)]))
"""
    async with hostns_environment(project, tmp_path) as place:
        before, after = await place.python(code)
    assert before == after
    assert place.attempts == []


# Those that a container's own filter refuses before ours is asked -> a call on oneself.
FILTERED = {"kcmp": 312, "process_vm_readv": 310, "process_vm_writev": 311}


def reaches_us(call: str) -> bool:
    """Whether this machine lets processes compare what they hold, or read each other's memory."""
    me = os.getpid()
    arguments = (me, me, 0, 0, 0) if call == "kcmp" else (me, 0, 0, 0, 0, 0)
    if call not in FILTERED:
        return True
    # A plain int fills half of the last one, which is on the stack.
    words = map(ctypes.c_long, (FILTERED[call], *arguments))
    return bool(ctypes.CDLL(None).syscall(*words) == 0)


ATTACKS = {
    "a file of the home folder": ("open({secret!r}).read()", ""),
    "a file of /proc that is the engine's": ("open('/proc/{engine}/cmdline').read()", ""),
    "memory of the engine": ("open('/proc/{engine}/mem', 'rb')", ""),
    "a signal to the engine": ("os.kill({engine}, 0)", ""),
    "limits of the engine": (
        "resource.prlimit({engine}, resource.RLIMIT_NOFILE, (9, 9))",
        "process.visibility",
    ),
    "priority of the engine": (
        "os.setpriority(os.PRIO_PROCESS, {engine}, 19)",
        "process.visibility",
    ),
    "priority of all of the user's": (
        "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
        "process.visibility",
    ),
    "a file outside written": ("open({outside!r} + '/new', 'w')", "filesystem.write"),
    "a file outside deleted": ("os.unlink({secret!r})", "filesystem.write"),
    "a file outside linked": ("os.link({secret!r}, 'mine')", ""),
    "a file outside moved in": ("os.rename({secret!r}, 'mine')", "filesystem.write"),
    "the mode of a file outside": ("os.chmod({secret!r}, 0o777)", "filesystem.metadata"),
    "the times of a file outside": ("os.utime({secret!r}, (1, 1))", "filesystem.metadata"),
    "the mode through a link": (
        "os.symlink({secret!r}, 'link'); os.chmod('link', 0o777)",
        "filesystem.metadata",
    ),
    "an attribute of a file outside": (
        "os.setxattr({secret!r}, 'user.x', b'1')",
        "filesystem.metadata",
    ),
    "the mode of an open tool": (
        "os.fchmod(os.open('/bin/sh', os.O_RDONLY), 0o777)",
        "filesystem.metadata",
    ),
    "flags of an open tool": (
        "fcntl.ioctl(os.open('/bin/sh', os.O_RDONLY), 0x40086602, bytes(8))",
        "",
    ),
    "a terminal of the user's": ("open('/dev/pts/0', 'w')", ""),
    "a unix socket outside": ("socket.socket(1).connect({unix!r})", "network.sockets"),
    "a unix datagram outside": ("socket.socket(1, 2).sendto(b'x', {unix!r})", "network.sockets"),
    "a pair of datagram sockets": ("socket.socketpair(1, 2)", ""),
    "an abstract socket": ("socket.socket(1).connect({abstract!r})", "network.sockets"),
    "a raw socket": ("socket.socket(2, socket.SOCK_RAW, 1)", "network.families"),
    "diagnosis of sockets": ("socket.socket(16, 3, 4)", "network.families"),
    "another device": ("s = socket.socket(); s.setsockopt(1, 25, b'eth0')", ""),
    "shared memory": (
        "ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o600) != -1 or err()",
        "",
    ),
    "tracing": (
        "ctypes.CDLL(None, use_errno=True).ptrace(16, {engine}, 0, 0) != -1 or err()",
        "process.syscalls",
    ),
    "tracing from the start of a stop": (
        "ctypes.CDLL(None, use_errno=True).ptrace(0x4206, {engine}, 0, 0) != -1 or err()",
        "process.syscalls",
    ),
    "reading memory": (
        "ctypes.CDLL(None, use_errno=True).syscall(310, {engine}, 0, 0, 0, 0, 0) != -1 or err()",
        "process.syscalls"
        if os.uname().machine == "x86_64" and reaches_us("process_vm_readv")
        else "",
    ),
    "writing the engine's memory": ("open('/proc/{engine}/mem', 'r+b', 0)", ""),
    "a bit of the owner's rights": ("os.chmod('file', 0o4755)", "filesystem.metadata"),
    "one of the group's, of an open file": (
        "os.fchmod(os.open('file', os.O_RDONLY), 0o2755)",
        "filesystem.metadata",
    ),
    "one from the start": ("os.open('new', os.O_CREAT | os.O_RDWR, 0o4755)", "filesystem.metadata"),
    "a program's own privileges": (
        "os.setxattr('file', 'security.capability', b'x')",
        "filesystem.metadata",
    ),
    "the engine's folder moved": ("os.mkdir('.ggen'); os.rename('.ggen', 'x')", "filesystem.write"),
    "the engine's folder removed": ("os.mkdir('.ggen'); os.rmdir('.ggen')", "filesystem.write"),
    "the engine's folder a link": ("os.symlink({outside!r}, '.ggen')", "filesystem.write"),
    "a socket outside": ("socket.socket(1).bind({outside!r} + '/mine')", "filesystem.write"),
    "a name": (
        (
            "socket.getaddrinfo('db.example.org', 80) and "
            "socket.create_connection(('db.example.org', 80), 2)"
        ),
        "network.egress",
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_refused_and_named(project: Path, tmp_path: Path, name: str):
    """It raises the refusal, and where a rule stands beside it, the rule has recorded it."""
    code, rule = ATTACKS[name]
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    secret = outside / "secret"
    secret.write_text("secret")
    secret.chmod(0o666)
    abstract = f"\0tiers-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as hidden:
        listening.bind(str(outside / "unix"))
        (outside / "unix").chmod(0o777)
        hidden.bind(abstract)
        listening.listen()
        hidden.listen()
        filled = code.format(
            engine=os.getpid(),
            secret=str(secret),
            outside=str(outside),
            unix=str(outside / "unix"),
            abstract=abstract,
        )
        program = f"""
import ctypes, fcntl, json, os, resource, socket
def err():
    raise OSError(ctypes.get_errno(), "refused")
try:
    {filled}
    print(json.dumps("it worked"))
except OSError as error:
    print(json.dumps("refused"))
"""
        async with hostns_environment(project, tmp_path) as place:
            assert await place.python(program) == "refused"
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o666
    assert not (project / "file").stat().st_mode & 0o6000
    assert not rule or rule in {attempt.rule for attempt in place.attempts}, place.attempts


ON_INIT = {
    "kill": ("os.kill(init, 9)", "kill"),
    "kill of its group": ("os.kill(-os.getpgid(init), 9)", "kill"),
    "kill of a thread": ("system(200, init, 9)", "tkill"),
    "kill of a thread of a process": ("system(234, init, init, 9)", "tgkill"),
    "a queued signal": ("system(129, init, 9, bytes(128))", "rt_sigqueueinfo"),
    "a descriptor of it": ("os.pidfd_open(init)", "pidfd_open"),
    "who gets a file's signals": ("fcntl.fcntl(0, fcntl.F_SETOWN, init)", "fcntl"),
    "its processor time": ("resource.prlimit(init, resource.RLIMIT_CPU, (0, 0))", "prlimit64"),
    "a comparison": ("system(312, os.getpid(), init, 0, 0, 0)", "kcmp"),
    "tracing": ("system(101, 16, init, 0, 0)", "ptrace"),
    "its memory read": ("system(310, init, 0, 0, 0, 0, 0)", "process_vm_readv"),
    "its memory written": ("system(311, init, 0, 0, 0, 0, 0)", "process_vm_writev"),
    "its memory as a file": ("open(f'/proc/{init}/mem', 'rb')", ""),
    "its memory as a file to write": ("open(f'/proc/{init}/mem', 'r+b', 0)", ""),
    "its command line": ("open(f'/proc/{init}/cmdline')", ""),
    "its score for the killer": ("open(f'/proc/{init}/oom_score_adj', 'w')", ""),
}


@pytest.mark.parametrize("name", ON_INIT)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
async def test_a_phase_does_nothing_to_its_init(project: Path, tmp_path: Path, name: str):
    """Here init is a process like any other: what would end or slow it is refused and named."""
    action, call = ON_INIT[name]
    program = f"""
import ctypes, fcntl, json, os, resource
def system(*words):
    if ctypes.CDLL(None, use_errno=True).syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), "refused")
init = os.getpid()
try:
    while True:
        rows = open(f"/proc/{{init}}/status").read().splitlines()
        init = next(int(row.split()[1]) for row in rows if row.startswith("PPid"))
except OSError:
    pass
try:
    {action}
    print(json.dumps("it worked"))
except OSError as error:
    print(json.dumps("refused"))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(program) == "refused"
        assert (await place.sh("echo it lives")).out == "it lives\n"
    seen = [a.target.syscall for a in place.attempts if a.rule == "process.visibility"]
    if not reaches_us(call):
        assert seen == []
        return
    assert seen == ([f"{call} of init"] if call and call != "prlimit64" else seen)
    assert not call or seen


async def test_a_signal_to_all_reaches_the_environment_s_own(project: Path, tmp_path: Path):
    """kill(-1) ends what the phase left, and neither the caller nor init."""
    code = """
import json, os, subprocess
left = subprocess.Popen(["sleep", "600"], start_new_session=True)
os.kill(-1, 15)
print(json.dumps(left.wait()))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert (await place.sh(f"exec python3 - <<'END'\n{code}\nEND")).out.strip() == "-15"
        assert (await place.sh("echo it lives")).out == "it lives\n"
    assert place.attempts == []


async def test_a_datagram_socket_that_is_connected_has_tried_nothing_until_it_sends(
    project: Path, tmp_path: Path
):
    """Programs learn their own address so; what is sent then, in any way, names the target.

    What somebody outside sends to the socket of ours behind it is nobody's attempt here.
    """
    code = """
import json, os, socket
far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
far.connect(("192.0.2.7", 9))
sink = far.getpeername()
{send}
print(json.dumps(sink))
"""
    async with hostns_environment(project, tmp_path) as place:
        sink = await place.python(code.format(send=""))
        assert place.attempts == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
            outside.sendto(b"stray", tuple(sink))
        for send in ("far.send(b'x')", "os.write(far.fileno(), b'x')", "far.sendmsg([b'x'])"):
            await place.python(code.format(send=send))
    assert set(place.targets("network.egress")) == {"udp 192.0.2.7:9"}
    assert sum(attempt.count for attempt in place.attempts) == 3


async def test_an_orphan_that_asks_init_to_trace_it_is_not_traced(project: Path, tmp_path: Path):
    """PTRACE_TRACEME names no process: its parent is init by then, which lets it stop and end."""
    code = """
import ctypes, json, os, signal, time
parent = os.getpid()
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() == parent or os.path.exists(f"/proc/{os.getppid()}"):
            time.sleep(0.01)
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
os.wait()
time.sleep(0.2)
print(json.dumps("done"))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(code) == "done"
        assert (await place.sh("echo it lives")).out == "it lives\n"
    assert place.attempts == []


SHARING = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
ours, theirs = socket.socketpair()
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
{share}
try:
    ours.sendmsg([b"word"])
    print(json.dumps(theirs.recv(4).decode()))
except OSError:
    print(json.dumps("refused"))
"""


@pytest.mark.parametrize(
    ("share", "answer"),
    [("", "word"), ("libc.syscall(56, 0x400 | 17, 0, 0, 0, 0) or os._exit(0)", "refused")],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
async def test_who_shared_descriptors_sends_no_more_on_what_could_be_exchanged(
    project: Path, tmp_path: Path, share: str, answer: str
):
    """Another process could put the datagram socket in the place of the pair meanwhile."""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(SHARING.format(share=share)) == answer
    assert bool(place.attempts) == (answer == "refused")


async def test_what_is_done_to_ones_own_is_done(project: Path, tmp_path: Path):
    """Modes, times and attributes of one's own files, by path, descriptor, link and /proc,
    are those that were asked for.
    """
    code = """
import json, os, stat
os.chmod("file", 0o640); os.utime("file", ns=(1_000_000_007, 2_000_000_009))
held = os.open("file", os.O_RDONLY)
seen = [oct(stat.S_IMODE(os.stat("file").st_mode)), os.stat("file").st_mtime_ns]
os.fchmod(held, 0o600); seen.append(oct(stat.S_IMODE(os.stat("file").st_mode)))
os.chmod(f"/proc/self/fd/{held}", 0o604); seen.append(oct(stat.S_IMODE(os.stat("file").st_mode)))
os.symlink("file", "link"); os.utime("link", ns=(1, 2), follow_symlinks=False)
os.chmod("link", 0o644)
seen.append(os.lstat("link").st_mtime_ns); seen.append(oct(stat.S_IMODE(os.stat("file").st_mode)))
os.chown("file", os.getuid(), os.getgid()); os.utime("file")
seen.append(os.stat("file").st_mtime_ns > 10**18)
print(json.dumps(seen))
"""
    async with hostns_environment(project, tmp_path) as place:
        assert await place.python(code) == [
            "0o640",
            2_000_000_009,
            "0o600",
            "0o604",
            2,
            "0o644",
            True,
        ]
    assert [a for a in place.attempts if "resolver" not in a.tags] == []


async def test_the_processes_of_an_environment_are_seen_and_no_others(
    project: Path, tmp_path: Path
):
    """/proc shows what is the environment's own."""
    code = """
import json, os
seen = []
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            seen.append(open(f"/proc/{name}/comm").read().strip())
        except OSError:
            pass
name = open("/proc/self/status").readline().split()[1]
print(json.dumps([sorted(set(seen)), name, len(open("/proc/meminfo").read()) > 0]))
"""
    async with hostns_environment(project, tmp_path) as place:
        seen, own, memory = await place.python(code)
    assert own in seen
    assert memory
    assert set(seen) <= {"sh", "python3", own, "cleanroom-keep", "warden phase"} - {
        "cleanroom-keep"
    }


async def test_nothing_of_an_environment_outlives_it(project: Path, tmp_path: Path):
    """Not what left its session and its parent, ignores signals, or makes children without end."""
    marker = f"tiers-left-{os.getpid()}"
    async with hostns_environment(project, tmp_path) as place:
        await place.sh(
            "setsid python3 -c 'import signal,sys,time; signal.signal(15, signal.SIG_IGN); "
            f"time.sleep(600)' {marker} > /dev/null 2>&1 &"
        )
        await place.sh(
            f"(setsid sh -c 'while :; do sh -c \"sleep 0.01\" {marker} & sleep 0.01; done' "
            f"{marker} > /dev/null 2>&1 &)"
        )
        assert processes(marker)
        assert await place.environment.left_over()
    assert processes(marker) == []


async def test_nobody_else_reads_the_copy_of_the_workspace(project: Path, tmp_path: Path):
    """Another user of the machine comes into no folder of the run,
    whatever the modes of the project's files are.
    """
    tmp_path.chmod(0o755)
    (project / "file").chmod(0o644)
    async with hostns_environment(project, tmp_path) as place:
        copy = Path((await place.sh("pwd -P")).out.strip())
        assert (copy / "file").read_text() == "as it was\n"
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
        ground = place.backend.tier.decoy_folder
        assert not stat.S_IMODE(ground.stat().st_mode) & 0o007
        if os.geteuid() == 0:
            asked = [
                "setpriv",
                "--reuid=54321",
                "--regid=54321",
                "--clear-groups",
                "cat",
                str(copy / "file"),
            ]
            assert (
                "Permission denied" in subprocess.run(asked, capture_output=True, text=True).stderr
            )


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's lies in the cache")
async def test_a_folder_that_somebody_made_in_the_place_of_a_run_s_is_refused(
    project: Path, tmp_path: Path
):
    """By a named error; what is there stays as it is."""
    taken = run_areas(RUN_ID)[0]
    taken.mkdir()
    try:
        with pytest.raises(ArtifactError, match="cannot be used: File exists"):
            async with hostns_environment(project, tmp_path):
                pass
        assert stat.S_IMODE(taken.stat().st_mode) & 0o777 == 0o755
    finally:
        taken.rmdir()
