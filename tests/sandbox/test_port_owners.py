"""Claims about whose a TCP port of the host is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cleanroom.sandbox.network import listeners
from cleanroom.sandbox.processes.port_owners import PortOwners
from cleanroom.sandbox.seccomp_notify import sockets

LOOPBACK = socket.inet_aton("127.0.0.1")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's tables")


@pytest.fixture
def proc() -> Iterator[int]:
    descriptor = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def has_six() -> bool:
    """Whether the machine's loopback has ::1: that of a container may not."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "family",
    [
        socket.AF_INET,
        pytest.param(
            socket.AF_INET6, marks=pytest.mark.skipif(not has_six(), reason="no ::1 here")
        ),
    ],
)
def test_the_kernel_names_those_that_listen_and_no_connection(family: socket.AddressFamily):
    """Neither a bound socket nor a client."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((host, port)):
            (found,) = listeners.listeners(port)
            expected = (socket.inet_pton(family, host), inode(listening))
            assert (found.address, found.inode) == expected
    assert listeners.listeners(port) == []


def test_the_tables_say_the_same_where_the_kernel_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, proc: int
):
    """As in an environment that refuses such a socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        asked = sockets.receiving_inodes(proc, "tcp", LOOPBACK, port)

        def refused(_: int) -> list[listeners.Listener]:
            raise PermissionError

        monkeypatch.setattr(listeners, "listeners", refused)
        assert asked == sockets.receiving_inodes(proc, "tcp", LOOPBACK, port) == [inode(listening)]


def test_a_port_is_its_tree_s_across_descriptors_and_nobody_else_s(proc: int):
    """The descriptor that was found first is closed, and another one is the same socket."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        ours, theirs = PortOwners(proc, os.getpid()), PortOwners(proc, stranger.pid)
        first = socket.create_server(("127.0.0.1", 0))
        port = first.getsockname()[1]
        assert ours.owns(port)
        assert not theirs.owns(port)
        second = first.dup()
        first.close()
        assert ours.owns(port)
        second.close()
        assert not ours.owns(port)
        stranger.kill()


def test_a_port_that_others_share_is_not_owned(proc: int):
    """SO_REUSEPORT: the kernel would choose between both."""
    code = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', int(sys.argv[1])), reuse_port=True)\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listening:
        port = listening.getsockname()[1]
        words = [sys.executable, "-c", code, str(port)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            other.stdout.readline()
            assert PortOwners(proc, os.getpid()).owns(port)
            assert not PortOwners(proc, other.pid).owns(port)
            other.stdin.close()
