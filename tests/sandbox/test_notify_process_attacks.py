"""Dangerous system calls from inside a cage: refused and named."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller, Unreadable
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.seccomp import bpf, filters
from support.paths import TESTS
from support.sandbox_harness import attack, code, written

pytestmark = pytest.mark.sandbox
raw = syscalls._call


def test_every_denied_call_is_refused_and_named(workspace: str):
    """PROC-08, 09, 13 to 17, 23, FS-24 to 27: each of the list is EPERM and recorded under its own
    name.
    """
    names = [name for name in filters.DENIED if name in NUMBERS]
    caught = attack(lambda _: [code(partial(raw, name, *[0] * 6)) for name in names], workspace)
    assert caught.result == ["EPERM"] * len(names)
    assert [a["target"]["syscall"] for a in caught.attempts] == names
    assert set(caught.rules()) == {"process.syscalls"}


@pytest.mark.parametrize(
    "flag",
    [
        constants.CLONE_NEWUSER,
        constants.CLONE_NEWNET,
        constants.CLONE_NEWNS,
        constants.CLONE_NEWPID,
    ],
)
def test_no_namespace_is_made(workspace: str, flag: int):
    """PROC-12: unshare and clone with a namespace flag fail; without one unshare works."""

    def act(_: str) -> list[str]:
        return [
            code(lambda: syscalls.unshare(flag)),
            code(lambda: raw("clone", flag | 17, 0, 0, 0, 0)),
            code(lambda: syscalls.unshare(constants.CLONE_FILES)),
        ]

    caught = attack(act, workspace)
    assert caught.result == ["EPERM", "EPERM", "ok"]
    assert [a["target"]["syscall"] for a in caught.attempts] == ["unshare", "clone"]


def test_calls_that_runtimes_do_without_are_absent_and_unrecorded(workspace: str):
    """PROC-21, NET-30: io_uring and clone3 answer ENOSYS, which is no attempt."""
    names = ("io_uring_setup", "clone3", "io_uring_enter")
    caught = attack(lambda _: [code(partial(raw, name, 0, 0)) for name in names], workspace)
    assert (caught.result, caught.attempts) == (["ENOSYS"] * 3, [])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 has foreign ABIs")
def test_foreign_abis_are_absent_and_recorded(workspace: str):
    """PROC-20: x32 numbers and int 0x80 answer ENOSYS and leave a record."""

    def act(_: str) -> list[int]:
        x32 = syscalls.libc.syscall(ctypes.c_long(0x40000000 | 39))
        # mov eax, 20 (getpid); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\x48\x98\xc3")
        function = ctypes.CFUNCTYPE(ctypes.c_long)(
            ctypes.addressof(ctypes.c_char.from_buffer(page))
        )
        return [x32, function()]

    caught = attack(act, workspace)
    assert caught.result == [-1, -38]
    assert {a["target"]["syscall"] for a in caught.attempts} == {"foreign ABI"}
    assert sum(a["count"] for a in caught.attempts) == 2


def test_an_own_listener_is_impossible_and_a_stricter_filter_is_not(workspace: str):
    """PROC-22: EBUSY for the one, success for the other, and the evidence goes on."""
    allow = b"\x06\0\0\0\0\0\xff\x7f"

    def act(_: str) -> list[str]:
        return [
            code(lambda: bpf.install(allow, listener=True)),
            code(lambda: bpf.install(allow, listener=False)),
            code(lambda: written("/etc/x")),
        ]

    caught = attack(act, workspace)
    assert caught.result == ["EBUSY", "ok", "EROFS"]
    assert caught.rules() == ["filesystem.write"]


def test_an_unreadable_caller_is_refused_with_the_gap_named(
    workspace: str, monkeypatch: pytest.MonkeyPatch
):
    """Where the caller's memory may not be read the call fails and the record says why it has no
    path.
    """

    def unreadable(self: Caller, address: int, length: int) -> bytes:
        raise Unreadable("not allowed to look")

    monkeypatch.setattr(Caller, "memory", unreadable)
    monkeypatch.setattr(syscalls, "peek", lambda pid, address: None)
    caught = attack(lambda w: code(lambda: written(f"{w}/x")), workspace)
    assert caught.result == "EPERM"
    assert caught.only()["attribution_gap"] == "Unreadable: not allowed to look"


@pytest.mark.skipif(os.geteuid() != 0, reason="is an ordinary user already")
def test_the_same_holds_for_an_ordinary_user(open_tmp_path: Path):
    """Without root the cage is made in a user namespace, and holds and attributes alike."""
    program = (
        "import os, sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import encodings.idna\n"
        "from support.sandbox_harness import attack, code\n"
        "import socket\n"
        "def act(w):\n"
        "    return [code(lambda: socket.create_connection(('192.0.2.1', 443))), "
        "code(lambda: open('/etc/x', 'w')), code(lambda: open(w + '/x', 'w'))]\n"
        "caught = attack(act, sys.argv[2], hidden=())\n"
        "print(json.dumps([os.geteuid(), caught.result, [[a['rule'], a['process']['ns_pid']] "
        "for a in caught.attempts]]))\n"
    )
    space = open_tmp_path / "space"
    space.mkdir()
    os.chown(space, 1234, 1234)
    command = [
        "setpriv",
        "--reuid=1234",
        "--regid=1234",
        "--clear-groups",
        sys.executable,
        "-c",
        program,
        str(TESTS),
        str(space),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if ran.returncode and "Permission denied" in ran.stderr:
        pytest.skip("this interpreter's folder is closed to other users")
    user, result, attempts = json.loads(ran.stdout)
    assert (user, result) == (1234, ["ECONNREFUSED", "EROFS", "ok"])
    assert [rule for rule, _ in attempts] == ["network.egress", "filesystem.write"]
    assert all(number > 0 for _, number in attempts)
