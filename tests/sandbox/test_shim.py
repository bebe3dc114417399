"""Pid 1 of containers, run here as an ordinary child: its messages, its commands,
and the canaries in the kernel's words.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.protocol import Expectations
from cleanroom.sandbox.selftest import canaries
from cleanroom.sandbox.shim import build, calls, wire

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(
        not any(map(shutil.which, build.COMPILERS)),
        reason="pid 1 of containers is built from C, and there is no compiler",
    ),
]

EXPECT: Expectations = {
    "unix": "/nowhere/socket",
    "abstract": "nobody",
    "secret": "/nowhere/secret",
    "outside": ["/usr", "/etc"],
    "pid": 1,
    "start": 0,
    "unix_private": False,
    "name": "unknown.canary.example",
    "temporary": "/tmp",
    "port": 0,
    "bare": False,
    "outer_filter": False,
    "host_network": None,
    "allowlist": {"unread": "/nowhere", "port": 47_800, "program": "/bin/sh", "written": "/tmp"},
}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(tmp_path_factory.mktemp("shim"))


class Shim:
    """The program as a child, and its socket."""

    def __init__(self, program: Path, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(folder / "s"))
            listening.listen(1)
            self.process = subprocess.Popen([program, str(folder / "s")], stdin=subprocess.DEVNULL)
            end, _ = listening.accept()
        self.link = wire.ShimSocket(end)

    def news(self) -> wire.ShimMessage:
        assert select.select([self.link.fileno()], [], [], 10)[0], "nothing was said"
        arrived = self.link.receive()
        assert arrived is not None
        return arrived[0]

    def tried(self, *scripts: calls.Script) -> list[list[calls.Told]]:
        found = []
        for script in scripts:
            self.link.send(wire.attempt(1, script.steps))
            found.append(self.news()["told"])
        return found


@pytest.fixture
def shim(program: Path, tmp_path: Path) -> Iterator[Shim]:
    made = Shim(program, tmp_path)
    yield made
    made.link.close()
    made.process.wait(10)


def execute(
    shim: Shim, number: int, *argv: str, cwd: str = "/", env: dict[str, str] | None = None
) -> bytes:
    """Start a command and give what it says."""
    reading, writing = os.pipe()
    order = {
        "op": "exec",
        "n": number,
        "argv": list(argv),
        "env": {"PATH": "/usr/bin:/bin"} if env is None else env,
        "cwd": cwd,
    }
    shim.link.order(order, [writing, writing, writing])
    os.close(writing)
    with open(reading, "rb") as said:
        return said.read()


PT_INTERP = 3


def segments(program: Path) -> list[int]:
    """The types of an ELF program's segments."""
    image = program.read_bytes()
    wide = image[4] == 2
    (begin,) = struct.unpack_from("<Q" if wide else "<I", image, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", image, 54 if wide else 42)
    return [struct.unpack_from("<I", image, begin + number * size)[0] for number in range(count)]


def test_a_program_with_a_loader_would_be_seen():
    """This Python asks for one."""
    assert PT_INTERP in segments(Path(sys.executable).resolve())


def test_it_is_small_static_and_built_once(program: Path):
    """A second build is the same file; it asks for no loader, so that it starts in any image."""
    before = program.stat().st_mtime_ns
    assert build.build(program.parent).stat().st_mtime_ns == before
    assert program.stat().st_size < 1 << 20
    assert PT_INTERP not in segments(program)


def test_without_a_compiler_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And which ones were looked for; one that only the caller's PATH has is not started."""
    planted = tmp_path / "cleanroom-cc"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(build, "COMPILERS", (planted.name,))
    with pytest.raises(build.NotBuilt, match=planted.name):
        build.build(tmp_path / "cache")
    assert not (tmp_path / "started").exists()


def test_a_command_has_exactly_what_it_was_given(shim: Shim):
    """Words, variables, folder and streams; its end is told with its number."""
    said = execute(
        shim,
        7,
        "sh",
        "-c",
        'pwd; echo "$A|$#|$1"',
        "x",
        "a b\n",
        cwd="/usr",
        env={"PATH": "/bin", "A": "é=1"},
    )
    assert said.decode() == "/usr\né=1|1|a b\n\n"
    assert shim.news()["n"] == 7
    assert shim.news() == {"kind": "exited", "n": 7, "status": 0}


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -9 $$"), 137),
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
        (("/usr",), 126),
    ],
)
def test_how_a_command_ended_is_told_as_a_shell_does(
    shim: Shim, argv: tuple[str, ...], status: int
):
    """Its own status, 128+n for a signal, 127 for a program that is not there,
    126 for one that cannot be started.
    """
    execute(shim, 1, *argv)
    assert shim.news()["kind"] == "started"
    assert shim.news() == {"kind": "exited", "n": 1, "status": status}


def test_a_signal_reaches_the_whole_group_of_a_command(shim: Shim):
    """What it started, too."""
    reading, writing = os.pipe()
    shim.link.order(
        {
            "op": "exec",
            "n": 5,
            "argv": ["sh", "-c", "echo x; sleep 100 & wait"],
            "env": {"PATH": "/bin"},
            "cwd": "/",
        },
        [writing] * 3,
    )
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.read(1) == b"x"
        assert shim.news()["kind"] == "started"
        shim.link.order({"op": "signal", "n": 5, "signal": signal.SIGTERM})
        said.read()  # ends when nobody holds it any more
    assert shim.news() == {"kind": "exited", "n": 5, "status": 143}


def test_it_ends_with_the_other_side(shim: Shim):
    """Nobody is left to take orders from."""
    shim.link.close()
    assert shim.process.wait(10) == 0


def test_what_it_does_not_know_ends_it(shim: Shim):
    """A letter that is none, and a field that is longer than its message."""
    shim.link.send(b"?")
    assert shim.process.wait(10) == 0


def test_a_field_that_lies_about_its_length_ends_it(shim: Shim):
    """Nothing beyond the message is ever read."""
    shim.link.send(b"X" + (1 << 31).to_bytes(4, "little") + b"abc")
    assert shim.process.wait(10) == 0


def test_it_gives_up_what_it_is_told(shim: Shim, tmp_path: Path):
    """Landlock and a filter hold for itself and for every command."""
    if not syscalls.landlock_abi():
        pytest.skip("this kernel has no Landlock")
    from cleanroom.sandbox.kernel import landlock
    from cleanroom.sandbox.seccomp import filters

    attributes, rules = landlock.rules([], [str(tmp_path)], ["/"])
    shim.link.send(
        wire.restrict(attributes, rules, filters.service_filter(os.uname().machine), hold=False)
    )
    assert shim.news() == {"kind": "restricted"}
    said = execute(
        shim,
        1,
        "sh",
        "-c",
        (
            f"echo x > {tmp_path}/ok && cat {tmp_path}/ok; echo x > /var/tmp/not-ok; grep -E "
            "'NoNew|Seccomp:' /proc/self/status"
        ),
    )
    assert b"x\n" in said
    assert b"Permission denied" in said
    assert said.split()[-4:] == [b"NoNewPrivs:", b"1", b"Seccomp:", b"2"]


def test_every_canary_can_be_tried_without_python():
    """Those of Medium and of High, by their names; a canary that is added has to be added there."""
    for which in (*canaries.asked(EXPECT), calls.LIMIT):
        for script in calls.scripts(EXPECT, which):
            assert 0 < len(script.steps) <= 16, which.name
            assert wire.attempt(1, script.steps)


@pytest.mark.parametrize(
    "name", ["secret of the home folder", "unix socket outside", "abstract socket outside"]
)
def test_a_canary_that_is_refused_passes(shim: Shim, name: str):
    """The kernel's own word, brought out."""
    which = next(one for one in canaries.CANARIES if one.name == name)
    scripts = calls.scripts(EXPECT, which)
    result = calls.judge(which, EXPECT, list(zip(scripts, shim.tried(*scripts), strict=True)))
    assert (result["result"], result["name"]) == ("passed", name)


@pytest.mark.parametrize("name", ["see the engine", "signal the engine", "write outside"])
def test_a_canary_that_is_not_refused_fails(shim: Shim, name: str, tmp_path: Path):
    """Outside of any cage, our own process is seen and a folder of ours is written."""
    from cleanroom.sandbox.journal import start_time

    expect = {
        **EXPECT,
        "pid": os.getpid(),
        "start": start_time(os.getpid()),
        "outside": ["/nowhere", str(tmp_path)],
    }
    which = next(one for one in canaries.CANARIES if one.name == name)
    scripts = calls.scripts(expect, which)
    result = calls.judge(which, expect, list(zip(scripts, shim.tried(*scripts), strict=True)))
    assert (result["result"], result["found"]) == ("failed", "it worked")


def test_a_file_beyond_its_limit_is_refused_without_ending_the_canary(shim: Shim):
    """The call says so, since the signal is blocked."""
    scripts = calls.scripts(EXPECT, calls.LIMIT)
    assert (
        calls.judge(calls.LIMIT, EXPECT, list(zip(scripts, shim.tried(*scripts), strict=True)))[
            "result"
        ]
        == "passed"
    )


def test_a_canary_whose_process_died_has_not_passed():
    """Whatever it was about to say."""
    which = next(one for one in canaries.CANARIES if one.name == "mount")
    (script,) = calls.scripts(EXPECT, which)
    assert calls.judge(which, EXPECT, [(script, [])])["result"] == "failed"
