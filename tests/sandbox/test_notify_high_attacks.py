"""Attacks on what High holds beyond Medium, from inside a cage:
reads outside the list, programs outside the list, ports that are not declared.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from support.paths import TESTS
from support.sandbox_harness import attack, code

pytestmark = pytest.mark.sandbox
raw = syscalls._call
CWD = constants.AT_FDCWD
LOADER = Path("/lib64/ld-linux-x86-64.so.2")


def seen(caught) -> list[tuple[str, str, str]]:
    return [
        (
            a["rule"],
            a["target"].get("path") or a["target"].get("syscall") or str(a["target"]),
            a["errno"],
        )
        for a in caught.attempts
    ]


def started(*words: str, at: str = "") -> str:
    """Start `words` in a child: the errno's name that it fails with, else its exit status."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, code(lambda: os.execve(at or words[0], list(words), {})).encode())
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        refusal = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return refusal or str(status)


def copied(folder: str, name: str = "tool") -> str:
    """A copy of /bin/true in a folder of the host, which any uid may read."""
    path = f"{folder}/{name}"
    shutil.copy("/bin/true", path)
    os.chmod(path, 0o755)
    return path


@pytest.fixture
def outside() -> Iterator[str]:
    """A folder that the cage hides and that is nobody's temporary folder inside,
    with a file that the host has.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        Path(folder, "file").write_text("x")
        yield folder


# --- reads


def test_a_read_of_what_the_host_has_and_the_list_has_not_is_refused_and_recorded(
    workspace: str, outside: str
):
    """FS-17, FS-19: whichever way the path is written, the record names where it leads."""
    os.symlink(f"{outside}/file", f"{workspace}/link")

    def act(w: str) -> list[str]:
        here = os.open(outside, os.O_PATH)
        return [
            code(lambda: os.open(f"{outside}/file", os.O_RDONLY)),
            code(lambda: os.open(f"{w}/link", os.O_RDONLY)),
            code(lambda: os.open("file", os.O_RDONLY, dir_fd=here)),
            code(lambda: os.open(f"{w}/../../..{outside}/file", os.O_RDONLY)),
        ]

    caught = attack(act, workspace, hidden=("/root", "/run", outside), listed=True)
    assert caught.result[:3] == ["ENOENT"] * 3
    assert {row[:2] for row in seen(caught)} == {("filesystem.reads", f"{outside}/file")}
    assert all(attempt["process"]["ns_pid"] for attempt in caught.attempts)


def test_what_neither_the_host_nor_the_list_has_is_no_attempt(workspace: str, outside: str):
    """Programs look for dozens of files that exist nowhere;
    nobody learns or loses anything by it.
    """
    names = (f"{outside}/none", "/usr/none", f"{workspace}/none", "/proc/none", "/none/none")
    act = lambda _: [code(lambda: os.open(name, os.O_RDONLY)) for name in names]  # noqa: B023, E731
    caught = attack(act, workspace, hidden=("/root", "/run", outside), listed=True)
    assert (caught.result, caught.attempts) == (["ENOENT"] * len(names), [])


def test_looking_at_what_is_not_listed_is_no_attempt(workspace: str, outside: str):
    """FS-20: stat, access and readlink find nothing and leave no record."""

    def act(_: str) -> list[str]:
        return [
            code(lambda: os.stat(f"{outside}/file")),
            code(lambda: os.readlink(f"{outside}/file")),
            str(os.access(f"{outside}/file", 4)),
        ]

    caught = attack(act, workspace, hidden=("/root", "/run", outside), listed=True)
    assert (caught.result, caught.attempts) == (["ENOENT", "ENOENT", "False"], [])


def test_reading_what_is_listed_leaves_no_record(workspace: str):
    """FS-37: files, folders, links, descriptors and one's own /proc are read as ever."""
    (Path(workspace) / "f").write_text("x")
    os.symlink("f", f"{workspace}/l")

    def act(w: str) -> list[str]:
        here = os.open(w, os.O_RDONLY)
        opened = [
            f"{w}/f",
            f"{w}/l",
            "l",
            "/usr/bin/env",
            "/proc/self/stat",
            "/proc/self/status",
            f"/proc/self/fd/{here}",
            "/dev/null",
            "/usr/share",
            "/etc/passwd",
        ]
        return [code(lambda: os.open(name, os.O_RDONLY)) for name in opened] + [  # noqa: B023
            code(lambda: os.open("f", os.O_RDONLY, dir_fd=here))
        ]

    caught = attack(act, workspace, listed=True)
    assert (set(caught.result), caught.attempts) == ({"ok"}, [])


# --- programs


def test_a_program_of_the_workspace_is_refused_and_one_of_the_build_folder_runs(workspace: str):
    """PROC-01: outside the declared build folder EACCES and a record, inside it runs."""
    build = f"{workspace}/target"
    os.mkdir(build)
    tool, built = copied(workspace), copied(build)
    caught = attack(
        lambda _: [started(tool), started(built), started("/bin/true")],
        workspace,
        listed=True,
        builds=(build,),
    )
    assert caught.result == ["EACCES", "0", "0"]
    assert seen(caught) == [("process.exec", tool, "EACCES")]


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_a_program_of_the_temporary_folders_is_refused(workspace: str, folder: str):
    """PROC-02: what was written there is not started."""
    mine = f"cleanroom-high-{os.getpid()}"

    def act(_: str) -> str:
        path = copied(folder, mine)
        try:
            return started(path)
        finally:
            os.unlink(path)

    caught = attack(act, workspace, listed=True)
    assert (caught.result, seen(caught)) == (
        "EACCES",
        [("process.exec", f"{folder}/{mine}", "EACCES")],
    )


@pytest.mark.skipif(not LOADER.exists(), reason="no glibc loader for x86-64 here")
@pytest.mark.parametrize(
    "words",
    [("{}",), ("--library-path", "/usr/lib", "{}"), ("--argv0", "x", "--inhibit-cache", "{}")],
)
def test_the_loader_is_no_way_round(workspace: str, words: tuple[str, ...]):
    """PROC-03: ld.so is judged by the program that it is to load."""
    tool = copied(workspace)
    caught = attack(
        lambda _: started(str(LOADER), *(word.format(tool) for word in words)),
        workspace,
        listed=True,
    )
    assert (caught.result, seen(caught)) == ("EACCES", [("process.exec", tool, "EACCES")])


@pytest.mark.skipif(not LOADER.exists(), reason="no glibc loader for x86-64 here")
def test_the_kernel_alone_stops_the_loader_too(workspace: str):
    """PROC-03 with the recorder only looking on: a folder without exec maps no code."""
    tool = copied(workspace)
    caught = attack(
        lambda _: [started(str(LOADER), tool), started(str(LOADER), "/bin/true")],
        workspace,
        listed=True,
        proving=True,
    )
    assert caught.result == ["127", "0"]


def test_files_in_memory_and_descriptors_are_no_way_round(workspace: str):
    """PROC-04: a file in memory is not made unless it can never be started;
    a descriptor counts as its path.
    """
    tool = copied(workspace)

    def act(_: str) -> list[str]:
        held = os.open(tool, os.O_RDONLY)
        none = struct.pack("=Q", 0)
        return [
            code(lambda: syscalls.memfd("x")),
            code(lambda: syscalls.memfd("x", constants.MFD_CLOEXEC | constants.MFD_NOEXEC_SEAL)),
            code(lambda: raw("execveat", held, b"", none, none, constants.AT_EMPTY_PATH)),
            started("x", at=f"/proc/self/fd/{held}"),
        ]

    caught = attack(act, workspace, listed=True)
    assert caught.result == ["ENOSYS", "ok", "EACCES", "EACCES"]
    assert [row[:2] for row in seen(caught)][:2] == [
        ("process.exec", "memfd_create"),
        ("process.exec", tool),
    ]


def test_a_script_is_judged_by_its_interpreter(workspace: str):
    """PROC-05: a script of the build folder whose interpreter is not on the list is refused,
    and the record names the interpreter.
    """
    build = f"{workspace}/target"
    os.mkdir(build)
    tool = copied(workspace)
    for name, interpreter in (("good", "/bin/sh"), ("bad", tool), ("far", f"{build}/bad")):
        path = Path(build, name)
        path.write_text(f"#!{interpreter}\n:\n")
        path.chmod(0o755)
    caught = attack(
        lambda _: [started(f"{build}/{name}") for name in ("good", "bad", "far")],
        workspace,
        listed=True,
        builds=(build,),
    )
    assert caught.result == ["0", "EACCES", "EACCES"]
    assert {row[:2] for row in seen(caught)} == {("process.exec", tool)}


def test_a_hidden_program_is_recorded_and_a_missing_one_is_not(workspace: str, outside: str):
    """What the host has and the list has not is named with its place;
    looking along PATH for what is nowhere leaves nothing.
    """
    tool = copied(outside)
    act = lambda _: [  # noqa: E731
        started(tool),
        started("/usr/bin/no-such-program"),
        started(f"{workspace}/none"),
    ]
    caught = attack(act, workspace, hidden=("/root", "/run", outside), listed=True)
    assert (caught.result, seen(caught)) == (["ENOENT"] * 3, [("process.exec", tool, "ENOENT")])


# --- ports


def listening(family: int = socket.AF_INET, protocol: int = 0, *, port: int | None) -> str:
    """`ok`, or at which step and with what it failed."""
    address = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
    with socket.socket(family, socket.SOCK_STREAM, protocol) as made:
        if port is not None and (found := code(lambda: made.bind((address, port)))) != "ok":
            return f"bind {found}"
        found = code(made.listen)
        return found if found == "ok" else f"listen {found}"


@pytest.mark.parametrize(
    ("port", "expected"),
    [(8080, "bind EACCES"), (None, "listen EACCES"), (0, "listen EACCES"), (3000, "ok")],
    ids=["8080", "none", "any", "declared"],
)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("protocol", [0, 262], ids=["tcp", "mptcp"])
def test_only_a_declared_port_is_listened_on(
    workspace: str, family: int, protocol: int, port: int | None, expected: str
):
    """NET-11, NET-12, NET-13: bound or not, TCP or MPTCP, an undeclared port is refused and
    recorded.
    """
    try:
        socket.socket(family, socket.SOCK_STREAM, protocol).close()
    except OSError as error:
        pytest.skip(f"no such socket: {error}")
    caught = attack(
        lambda _: listening(family, protocol, port=port), workspace, listed=True, ports=(3000,)
    )
    assert caught.result == expected
    assert caught.rules() == ([] if expected == "ok" else ["network.listen"])
    if port == 8080:
        assert (caught.only()["target"]["port"], caught.only()["syscall"]) == (8080, "bind")


def test_a_declared_port_is_really_served(workspace: str):
    """What was bound and listened to on the caller's behalf is the caller's own socket:
    it accepts.
    """

    def act(_: str) -> str:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 3000))
            server.listen(5)
            client.connect(("127.0.0.1", 3000))
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"hello")
            return client.recv(16).decode()

    caught = attack(act, workspace, listed=True, ports=(3000,))
    assert (caught.result, caught.attempts) == ("hello", [])


def test_a_port_without_privileges_below_1024_is_no_attempt(workspace: str):
    """NET-13: nobody without privileges could, so nothing is held against the phase."""
    caught = attack(lambda _: listening(port=80), workspace, listed=True)
    assert (caught.result, caught.attempts) == ("bind EACCES", [])


def test_clients_and_local_sockets_bind_as_ever(workspace: str):
    """A port that the kernel chooses, a unix socket, netlink,
    and errors that the kernel would give.
    """

    def act(w: str) -> list[str]:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as client,
            socket.socket(socket.AF_UNIX) as local,
            socket.socket(16, socket.SOCK_RAW) as routes,
        ):
            return [
                code(lambda: client.bind(("127.0.0.1", 0))),
                code(lambda: local.bind(f"{w}/s")),
                code(local.listen),
                code(lambda: routes.bind((0, 0))),
                code(lambda: raw("listen", 9999, 1)),
                code(lambda: raw("listen", os.open(w, os.O_RDONLY), 1)),
                code(lambda: client.bind(("127.0.0.1", 0))),
            ]

    caught = attack(act, workspace, listed=True)
    assert (caught.result, caught.attempts) == (
        ["ok", "ok", "ok", "ok", "EBADF", "ENOTSOCK", "EINVAL"],
        [],
    )


def test_ordinary_tools_work_and_leave_no_record(workspace: str):
    """FS-37 at High: shells, pipes, tar and a compiler's like run from the system's folders."""
    script = (
        "set -e; mkdir d; echo x > d/f; tar cf t.tar d; tar tf t.tar; ls -l | cat; cp -a d e; "
        "grep -r x e; find . -name f; rm -rf d e"
    )

    def act(w: str) -> list[object]:
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=w,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        return [done.returncode, done.stderr]

    caught = attack(act, workspace, listed=True)
    assert caught.result == [0, ""]
    assert [a for a in caught.attempts if a["tags"] != ["resolver"]] == []


def test_numbers_of_the_newly_held_calls_are_known():
    """A name without a number would silently not be held."""
    assert {"execve", "execveat", "bind", "listen", "memfd_create"} <= set(NUMBERS)


def test_an_ordinary_user_is_held_alike(open_tmp_path: Path):
    """Without root the cage is made in a user namespace: program,
    port and read are refused and attributed there too.
    """
    if os.geteuid() != 0:
        pytest.skip("is an ordinary user already")
    program = (
        "import os, sys, json; sys.path[:0] = [sys.argv[1], *sys.argv[3:]]\n"
        "import encodings.idna\n"
        "from support.sandbox_harness import attack, code\n"
        "import socket\n"
        "def act(w):\n"
        "    made = socket.socket()\n"
        "    return [code(lambda: os.execv(w + '/tool', ['tool'])), code(lambda: "
        "made.bind(('127.0.0.1', 8080))), code(made.listen),\n"
        "            code(lambda: os.open('/var/lib', os.O_RDONLY)), code(lambda: os.open(w "
        "+ '/tool', os.O_RDONLY)), code(lambda: os.open('/etc/nowhere', 0))]\n"
        "caught = attack(act, sys.argv[2], hidden=('/var',), listed=True)\n"
        "print(json.dumps([os.geteuid(), caught.result, [[a['rule'], a['process']['ns_pid']] "
        "for a in caught.attempts]]))\n"
    )
    space = open_tmp_path / "space"
    space.mkdir()
    copied(str(space))
    os.chown(space, 1234, 1234)
    source = str(Path(syscalls.__file__).parents[2])
    user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    interpreters = [
        name
        for name in (sys.executable, "/usr/bin/python3")
        if not subprocess.run([*user, name, "-c", ""], capture_output=True).returncode
    ]
    if not interpreters:
        pytest.skip("no interpreter here may be read by others")
    command = [
        *user,
        interpreters[0],
        "-c",
        program,
        str(TESTS),
        str(space),
        source,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    who, result, attempts = json.loads(done.stdout)
    assert (who, result) == (1234, ["EACCES", "EACCES", "EACCES", "ENOENT", "ok", "ENOENT"])
    assert [rule for rule, _ in attempts] == [
        "process.exec",
        "network.listen",
        "network.listen",
        "filesystem.reads",
    ]
    assert all(pid for _, pid in attempts)
