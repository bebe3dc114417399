"""Connecting to a unix socket in a folder that something inside an environment writes.

Whoever writes the folder may put anything in the place of its socket, at any moment: a link to
another socket of the host, or a socket that somebody else's program listens on. So the folder is
held open from before the first command, the socket is opened by no link and connected through that
descriptor, and the kernel says who listens there before a byte is sent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Callable
from typing import NamedTuple

from cleanroom.core.beneath import open_beneath, unix_address
from cleanroom.sandbox.kernel import constants

# a server whose queue stays full for so long is not there
CONNECT_SECONDS = 5.0


class Peer(NamedTuple):
    """The listening process, by the ids of this process's namespaces.

    `pid` is 0 for a process of another pid namespace.
    """

    pid: int
    user: int
    group: int


Belongs = Callable[[socket.socket, Peer], bool]


def connect(
    folder: int,
    path: str,
    belongs: Belongs,
    kind: int = socket.SOCK_STREAM,
) -> socket.socket:
    """Connect to the socket at `path` below the folder of this descriptor, if its listener belongs.

    Raises:
        OSError: ECONNREFUSED where it is no socket, or its listener does not belong; ELOOP, ENOTDIR
            or EXDEV where the path has a link in it or leads out; what open(2) and connect(2) say.
    """
    # Without O_PATH open(2) of a socket fails with ENXIO.
    handle = open_beneath(folder, path, constants.O_PATH)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise OSError(errno.ECONNREFUSED, "no socket", path)
        return _connected(handle, path, belongs, kind)
    finally:
        os.close(handle)


def connect_at(path: str, belongs: Belongs, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """The same where the folder's path is our own word. It may be longer than an address holds.

    Raises:
        OSError: as `connect`.
    """
    folder, name = os.path.split(path)
    held = os.open(folder, constants.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return connect(held, name, belongs, kind)
    finally:
        os.close(held)


def _connected(handle: int, path: str, belongs: Belongs, kind: int) -> socket.socket:
    end = socket.socket(socket.AF_UNIX, kind)
    try:
        seconds = struct.pack("=qq", int(CONNECT_SECONDS), 0)
        # connect(2) waits while the listener's queue is full; on a non-blocking socket, which
        # Python's `settimeout` makes, it would fail with EAGAIN at once (connect(2)).
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        end.connect(unix_address(handle))
        if not belongs(end, peer_of(end)):
            raise OSError(errno.ECONNREFUSED, "another program's socket", path)
    except BaseException:
        end.close()
        raise
    return end


def peer_of(end: socket.socket) -> Peer:
    """The process that listens on the socket to which `end` is connected."""
    # struct ucred, of the moment when the peer called listen(2): it may have ended since
    # (unix(7)).
    return Peer(*struct.unpack("=iII", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


def of_our_user(end: socket.socket, peer: Peer) -> bool:
    """Whether our own user listens."""
    return peer.user == os.geteuid()


def in_our_namespace(end: socket.socket, peer: Peer) -> bool:
    """Whether our own user listens in our own pid namespace: no other process has a number here."""
    return peer.pid > 0 and of_our_user(end, peer)


def living(end: socket.socket, peer: Peer, is_ours: Callable[[int], bool]) -> bool:
    """Whether our own user listens in a living process that `is_ours` accepts.

    For where there is no pid namespace: the number of a process that has ended may be another's.
    """
    try:
        held = _peer_pidfd(end, peer)
    except OSError:
        return False
    try:
        # Judged between opening the pidfd and polling it: a process that lives at the end had its
        # number all the time. A pidfd is readable once its process has ended (pidfd_open(2)).
        accepted = of_our_user(end, peer) and is_ours(peer.pid)
        return accepted and not select.select([held], [], [], 0)[0]
    finally:
        os.close(held)


def _peer_pidfd(end: socket.socket, peer: Peer) -> int:
    # SO_PEERPIDFD (since 6.5) refers to the process that listens, pidfd_open(2) to the one that
    # has its number by now.
    with contextlib.suppress(OSError):
        packed = end.getsockopt(socket.SOL_SOCKET, constants.SO_PEERPIDFD, 4)
        return int.from_bytes(packed, "little", signed=True)
    return os.pidfd_open(peer.pid)
