"""Sockets of an environment on a shared network.

Held calls are performed on duplicates of them, and the kernel's tables tell which listening sockets
are the environment's.
A duplicate comes from pidfd_getfd(2) or, where that is refused, as in an ordinary container, from
the time when the recorder made the socket for the caller.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable
from typing import Protocol

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.network import listeners
from cleanroom.sandbox.network.host_network import SocketKind

# duplicates; past it those of sockets that no process has open any more are closed
_TRACKED_MOST = 512
# inodes that are remembered: more sockets than an environment can have open
_OWNED_MOST = 1 << 16


class Sockets(Protocol):
    """A source of duplicates."""

    def duplicate(self, caller: Caller, descriptor: int) -> socket.socket:
        """A duplicate of the caller's socket, which whoever asked closes.

        Raises:
            OSError: EBADF or ENOTSOCK, it is no socket; EPERM, no duplicate can be had.
        """

    def stop_tracking(self, sock: socket.socket) -> None:
        """Drop what is kept of a socket that is connected or listens: no further call on it is
        performed by the recorder.
        """


class DuplicatedSockets:
    """Duplicates by pidfd_getfd(2)."""

    def duplicate(self, caller: Caller, descriptor: int) -> socket.socket:
        # since 5.6; it needs the right to ptrace(2) the caller (pidfd_getfd(2))
        return caller.borrow(descriptor)

    def stop_tracking(self, sock: socket.socket) -> None: ...


class TrackedSockets:
    """Duplicates from the time when the socket was made.

    None is kept of a connected stream: its peer would not see the end of the connection.
    """

    def __init__(self, proc_fd: int) -> None:
        self._proc_fd = proc_fd
        # by inode
        self._tracked: dict[int, socket.socket] = {}

    def make(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Make the socket that the caller asked for, close-on-exec here, and track it.

        Raises:
            OSError: as socket(2) says.
        """
        if len(self._tracked) >= _TRACKED_MOST:
            self.close_unused()
        made = new_socket(family, kind, protocol)
        self._tracked[inode(made)] = _duplicate(made)
        return made

    def duplicate(self, caller: Caller, descriptor: int) -> socket.socket:
        link = _descriptor_link(caller, descriptor)
        number = _socket_inode(link)
        if number is None:
            raise OSError(errno.ENOTSOCK if link else errno.EBADF, "no socket")
        tracked = self._tracked.get(number)
        if tracked is None:
            raise OSError(errno.EPERM, "no duplicate of it")
        return _duplicate(tracked)

    def is_tracked(self, caller: Caller, descriptor: int) -> bool:
        """Whether there is a duplicate.

        Also True for a descriptor that is no socket, which `duplicate` reports.
        """
        number = _socket_inode(_descriptor_link(caller, descriptor))
        return number is None or number in self._tracked

    def has_datagram_socket(self) -> bool:
        """Whether the environment has a datagram socket now."""
        if self._tracks_datagrams():
            self.close_unused()
        return self._tracks_datagrams()

    def _tracks_datagrams(self) -> bool:
        return any(sock.type == socket.SOCK_DGRAM for sock in self._tracked.values())

    def stop_tracking(self, sock: socket.socket) -> None:
        tracked = self._tracked.pop(inode(sock), None)
        if tracked is not None:
            tracked.close()

    def close_unused(self) -> None:
        """Close the duplicates of sockets that no process has open any more."""
        folder = f"/proc/self/fd/{self._proc_fd}"
        # our own descriptors are the duplicates, which would keep each other
        pids = {int(pid) for pid in os.listdir(folder) if pid.isdigit()}
        open_inodes = inodes_open_in(self._proc_fd, pids - {os.getpid()})
        for number in [number for number in self._tracked if number not in open_inodes]:
            self._tracked.pop(number).close()


class OwnedSockets:
    """Knows by inode which sockets are the environment's: those on which a call was performed.

    Which sockets listen at an address is read from the kernel's tables.
    """

    def __init__(self, proc_fd: int) -> None:
        self._proc_fd = proc_fd
        # insertion order; the oldest is forgotten first
        self._inodes: dict[int, None] = {}

    def add(self, sock: socket.socket) -> None:
        if len(self._inodes) >= _OWNED_MOST:
            del self._inodes[next(iter(self._inodes))]
        self._inodes[inode(sock)] = None

    def own_listener(self, kind: SocketKind, address: bytes, port: int) -> bool:
        """Whether all sockets that receive at this address of the host are the environment's, and
        there is one.
        """
        if not self._inodes:
            return False
        found = self._receivers(kind, address, port)
        return bool(found) and all(number in self._inodes for number in found)

    def is_vacant(self, kind: SocketKind, address: bytes, port: int) -> bool:
        """Whether no socket at all receives there."""
        return not self._receivers(kind, address, port)

    def own_abstract_name(self, name: bytes) -> bool:
        """Whether the abstract unix socket of this name is the environment's."""
        # /proc/net/unix shows each NUL of an abstract name as "@" (unix(7))
        shown = b"@" + name.replace(b"\0", b"@")
        # address, references, protocol, flags, type, state, inode, path
        rows = (line.split(None, 7) for line in _table(self._proc_fd, "unix").splitlines()[1:])
        found = [int(row[6]) in self._inodes for row in rows if len(row) == 8 and row[7] == shown]
        return bool(found) and all(found)

    def _receivers(self, kind: SocketKind, address: bytes, port: int) -> list[int]:
        return receiving_inodes(self._proc_fd, "tcp" if kind.stream else "udp", address, port)


def new_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """As socket(2) makes it, with the flags that `kind` carries; close-on-exec here."""
    # non-blocking is a flag of the open file, close-on-exec one of the descriptor (fcntl(2))
    made = socket.socket(family, kind & constants.SOCK_TYPE_MASK, protocol)
    made.setblocking(not kind & socket.SOCK_NONBLOCK)
    return made


def _duplicate(sock: socket.socket) -> socket.socket:
    """As dup(2) makes it, with nothing of the open file changed.

    Python's `dup` also sets O_NONBLOCK as the object had it last, and the caller may have set it
    otherwise since.
    """
    return socket.socket(fileno=os.dup(sock.fileno()))


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def kind_of(sock: socket.socket) -> SocketKind:
    """Family, type and protocol of a socket."""
    protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    return SocketKind(sock.family, sock.type & constants.SOCK_TYPE_MASK, protocol)


def inodes_open_in(proc_fd: int, pids: Iterable[int]) -> set[int]:
    """Inodes of the sockets that these processes have open, as far as we may look into them."""
    return {number for pid in pids for number in descriptors_of_sockets(proc_fd, pid)}


def descriptors_of_sockets(proc_fd: int, pid: int) -> dict[int, int]:
    """The sockets that a process has open, as far as we may look: inode -> descriptor."""
    links = _links(proc_fd, str(pid))
    numbers = ((_socket_inode(link), descriptor) for descriptor, link in links.items())
    return {number: descriptor for number, descriptor in numbers if number is not None}


def has_socket_at(proc_fd: int, pid: int, descriptor: int, number: int) -> bool:
    """Whether this descriptor of a process is the socket of this inode."""
    try:
        link = os.readlink(f"{pid}/fd/{descriptor}", dir_fd=proc_fd)
    except OSError:
        return False
    return _socket_inode(link) == number


def receiving_inodes(proc_fd: int, protocol: str, address: bytes, port: int) -> list[int]:
    """Inodes of the sockets that receive at an address, by "tcp" or "udp", IPv6 included.

    A TCP socket receives where it listens, a UDP socket where it is bound.
    """
    if protocol == "tcp":
        with contextlib.suppress(OSError):
            return [
                each.inode for each in listeners.listeners(port) if _receives(each.address, address)
            ]
    found = []
    # an IPv6 socket may receive for an IPv4 address too (ipv6(7))
    for table in (protocol, f"{protocol}6"):
        for bound_to, state, number in _rows(proc_fd, table, port):
            receives = state == constants.TCP_LISTEN or protocol == "udp"
            if receives and _receives(bound_to, address):
                found.append(number)
    return found


def _receives(bound_to: bytes, address: bytes) -> bool:
    """Whether a socket that is bound to an address receives at another one."""
    return not any(bound_to) or _unmapped(bound_to) == _unmapped(address)


def _rows(proc_fd: int, table: str, port: int) -> list[tuple[bytes, int, int]]:
    """Local address, state and inode of the sockets at a port."""
    ending = f":{port:04X}".encode()
    rows = []
    for line in _table(proc_fd, table).splitlines()[1:]:
        # most lines are other ports', and are not split
        if ending not in line:
            continue
        columns = line.decode().split()
        address, _, bound_port = columns[1].partition(":")
        if int(bound_port, 16) == port:
            # each 32-bit word is in the machine's byte order
            words = bytes.fromhex(address)
            swapped = (words[at : at + 4][::-1] for at in range(0, len(words), 4))
            rows.append((b"".join(swapped), int(columns[3], 16), int(columns[9])))
    return rows


def _table(proc_fd: int, name: str) -> bytes:
    try:
        descriptor = os.open(f"self/net/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
    except FileNotFoundError:
        # a kernel without IPv6
        return b""
    with open(descriptor, "rb") as file:
        return file.read()


def _links(proc_fd: int, pid: str) -> dict[int, str]:
    """Targets of a process's descriptors."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    found = {}
    # it has just ended
    with contextlib.suppress(OSError):
        folder = os.open(f"{pid}/fd", flags, dir_fd=proc_fd)
        try:
            for name in os.listdir(folder):
                # it has just closed this one
                with contextlib.suppress(OSError):
                    found[int(name)] = os.readlink(name, dir_fd=folder)
        finally:
            os.close(folder)
    return found


def _descriptor_link(caller: Caller, descriptor: int) -> str:
    return caller.link(f"fd/{descriptor & constants.UINT_MAX}")


def _socket_inode(link: str) -> int | None:
    """The inode in "socket:[12345]"; None for another file."""
    return int(link[8:-1]) if link.startswith("socket:[") else None


def _unmapped(address: bytes) -> bytes:
    """The IPv4 address of an IPv4-mapped one; of the unspecified address the loopback's, where a
    connection to it arrives.
    """
    if len(address) == 16 and address[:12] == constants.V4MAPPED_PREFIX:
        address = address[12:]
    if not any(address):
        return b"\x7f\0\0\1" if len(address) == 4 else bytes(15) + b"\1"
    return address
