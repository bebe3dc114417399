"""A held caller is given a descriptor, also by a kernel that cannot give it and answer in one step
(before Linux 5.14).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from types import SimpleNamespace

import pytest

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.seccomp_notify import addfd
from cleanroom.sandbox.selftest import probe_hostns
from support.sandbox_harness import attack

pytestmark = pytest.mark.sandbox
RECEIVE, ADD, AND_ANSWER = 0xC0502100, 0x40182103, 2


@pytest.fixture(params=["this kernel", "before Linux 5.14"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The real ioctl; for an older kernel one that knows no SECCOMP_ADDFD_FLAG_SEND and says so as
    the kernel does.
    """

    def older(listener: int, command: int, form: bytearray) -> int:
        if command == ADD and struct.unpack_from("=QI", form)[1] & AND_ANSWER:
            raise OSError(errno.EINVAL, "no such flag")
        return fcntl.ioctl(listener, command, form)

    if request.param != "this kernel":
        monkeypatch.setattr(addfd, "fcntl", SimpleNamespace(ioctl=older))
    return str(request.param)


def test_a_socket_that_is_made_for_a_caller_has_the_wanted_number(workspace: str, kind: str):
    """A netlink socket lands among the high numbers, is close-on-exec as it was asked for,
    and answers.
    """

    def act(_: str) -> list[object]:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as link:
            link.bind((0, 0))
            return [
                link.fileno() >= 960,
                os.get_inheritable(link.fileno()),
                link.getsockname()[0] != 0,
            ]

    assert attack(act, workspace).result == [True, False, True]


def test_a_descriptor_is_given_with_its_number(kind: str):
    """The call returns the number under which the caller has the file."""
    said, say = os.pipe()
    given = os.memfd_create("given")
    os.write(given, b"what was given")

    def act() -> None:
        number = syscalls._call("fchown", 0, -1, -1)
        os.write(say, os.pread(number, 100, 0))

    pid, listener = probe_hostns._held_child("fchown", act)
    held = bytearray(80)
    fcntl.ioctl(listener, RECEIVE, held)
    identifier = int.from_bytes(held[:8], "little")
    answer = addfd.inject_fd(listener, identifier, given, close_on_exec=True)
    assert answer.errno == 0
    assert answer.pending is (kind == "this kernel")
    if not answer.pending:
        fcntl.ioctl(
            listener, 0xC0182101, bytearray(struct.pack("=QqiI", identifier, answer.value, 0, 0))
        )
    os.close(listener)
    os.waitpid(pid, 0)
    assert os.read(said, 100) == b"what was given"
    for descriptor in (said, say, given):
        os.close(descriptor)
