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
from cleanroom.sandbox.kernel.constants import SECCOMP_ADDFD_FLAG_SEND, SECCOMP_IOCTL_NOTIF_ADDFD
from cleanroom.sandbox.seccomp.filters import FIRST_NETLINK
from cleanroom.sandbox.seccomp_notify import addfd
from cleanroom.sandbox.seccomp_notify.listener import Listener
from cleanroom.sandbox.selftest import probe_hostns
from support.sandbox_harness import attack

pytestmark = pytest.mark.sandbox


@pytest.fixture(params=["this kernel", "before Linux 5.14"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The real ioctl; for an older kernel one that knows no SECCOMP_ADDFD_FLAG_SEND and says so as
    the kernel does.
    """

    def older(listener: int, command: int, form: bytearray) -> int:
        flags = struct.unpack_from("=QI", form)[1]
        if command == SECCOMP_IOCTL_NOTIF_ADDFD and flags & SECCOMP_ADDFD_FLAG_SEND:
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
                link.fileno() >= FIRST_NETLINK,
                os.get_inheritable(link.fileno()),
                link.getsockname()[0] != 0,
            ]

    assert attack(act, workspace).result == [True, False, True]


def test_a_descriptor_is_given_with_its_number(kind: str):
    """The call returns the number under which the caller has the file."""
    received, sent = os.pipe()
    given = os.memfd_create("given")
    os.write(given, b"what was given")

    def act() -> None:
        number = syscalls._call("fchown", 0, -1, -1)
        os.write(sent, os.pread(number, 100, 0))

    pid, descriptor = probe_hostns._held_child("fchown", act)
    listener = Listener(descriptor)
    notification = listener.receive()
    assert notification is not None
    identifier = notification[0]
    assert listener.is_valid(identifier)
    response = addfd.inject_fd(descriptor, identifier, given, close_on_exec=True)
    assert response.errno == 0
    assert response.pending is (kind == "this kernel")
    if not response.pending:
        listener.respond(identifier, response.value, 0)
    os.waitpid(pid, 0)
    assert not listener.is_valid(identifier)
    listener.close()
    assert os.read(received, 100) == b"what was given"
    for end in (received, sent, given):
        os.close(end)
