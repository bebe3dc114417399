"""The sockets of an environment on a shared network: copies of them,
on which calls are carried out, and which of those that wait are its own.

A copy is borrowed (pidfd_getfd) or, where that is refused, as in an ordinary container,
kept from when the socket was made on the caller's behalf.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from typing import Protocol

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.network.host_network import Kind

_KEPT_MOST = 512  # copies of sockets; past it those that nobody else holds any more are closed
_OWN_MOST = 1 << 16  # inodes that are remembered: more sockets than an environment can have open
_LISTENING = "0A"


class Sockets(Protocol):
    """Where copies come from."""

    def of(self, caller: Caller, descriptor: int) -> socket.socket:
        """A copy of the caller's socket, for the caller of this to close.

        Raises:
            OSError: it is none (EBADF, ENOTSOCK), or no copy can be had (EPERM).
        """

    def settled(self, end: socket.socket) -> None:
        """Nothing more will be done to this socket on anyone's behalf:
        it is connected, or listens.
        """


class DuplicatedSockets:
    """Copies by pidfd_getfd."""

    def of(self, caller: Caller, descriptor: int) -> socket.socket:
        return caller.borrow(descriptor)

    def settled(self, end: socket.socket) -> None: ...


class TrackedSockets:
    """Copies from when the socket was made.

    One of a connected stream is not kept: its end would not be seen by the other side.
    """

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._kept: dict[int, socket.socket] = {}

    def make(self, family: int, kind: int, protocol: int) -> socket.socket:
        """The socket that the caller asked for, close-on-exec here; a copy is kept.

        Raises:
            OSError: as socket(2) says.
        """
        if len(self._kept) >= _KEPT_MOST:
            self.sweep()
        made = new_socket(family, kind, protocol)
        self._kept[inode(made)] = made.dup()
        return made

    def of(self, caller: Caller, descriptor: int) -> socket.socket:
        found = caller.link(f"fd/{descriptor & constants.UINT_MAX}")
        if not found.startswith("socket:["):
            raise OSError(errno.ENOTSOCK if found else errno.EBADF, "no socket")
        kept = self._kept.get(int(found[8:-1]))
        if kept is None:
            raise OSError(errno.EPERM, "no copy of it")
        return kept.dup()

    def knows(self, caller: Caller, descriptor: int) -> bool:
        """Whether there is a copy of it; what is no socket at all is for `of` to say."""
        found = caller.link(f"fd/{descriptor & constants.UINT_MAX}")
        return not found.startswith("socket:[") or int(found[8:-1]) in self._kept

    def datagrams(self) -> bool:
        """Whether the environment has a datagram socket now."""
        if any(end.type == socket.SOCK_DGRAM for end in self._kept.values()):
            self.sweep()
        return any(end.type == socket.SOCK_DGRAM for end in self._kept.values())

    def settled(self, end: socket.socket) -> None:
        kept = self._kept.pop(inode(end), None)
        if kept is not None:
            kept.close()

    def sweep(self) -> None:
        """Close the copies of what no process has open any more."""
        pids = {int(pid) for pid in os.listdir(f"/proc/self/fd/{self._proc}") if pid.isdigit()}
        held = open_in(self._proc, pids - {os.getpid()})
        for number in [number for number in self._kept if number not in held]:
            self._kept.pop(number).close()


def new_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """As socket(2) makes it, with the flags that `kind` carries; close-on-exec here."""
    made = socket.socket(family, kind & constants.SOCK_TYPE_MASK, protocol)
    made.setblocking(not kind & socket.SOCK_NONBLOCK)
    return made


def open_in(proc: int, pids: Iterable[int]) -> set[int]:
    """Inodes of the sockets that these processes have open, as far as we may look into them."""
    links = (link for pid in pids for link in _links(proc, str(pid)))
    return {int(link[8:-1]) for link in links if link.startswith("socket:[")}


def listeners(proc: int, protocol: str, address: bytes, port: int) -> list[int]:
    """Inodes of the sockets that wait at an address, "tcp" or "udp", also by way of IPv6."""
    found = []
    for table in (protocol, f"{protocol}6"):
        for at, state, number in _rows(proc, table, port):
            waits = state == _LISTENING or protocol == "udp"
            if waits and (not any(at) or _plain(at) == _plain(address)):
                found.append(int(number))
    return found


def _rows(proc: int, table: str, port: int) -> list[tuple[bytes, str, str]]:
    """Local address, state and inode of the sockets at a port."""
    ending = f":{port:04X}".encode()
    rows = []
    for line in _table(proc, table).splitlines()[1:]:
        if ending in line:
            columns = line.decode().split()
            at, _, found = columns[1].partition(":")
            if int(found, 16) == port:
                # Each 32-bit word is in the machine's order.
                words = bytes.fromhex(at)
                turned = (words[n : n + 4][::-1] for n in range(0, len(words), 4))
                rows.append((b"".join(turned), columns[3], columns[9]))
    return rows


def _table(proc: int, name: str) -> bytes:
    try:
        descriptor = os.open(f"self/net/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        return b""  # a kernel without IPv6
    with open(descriptor, "rb") as file:
        return file.read()


def _links(proc: int, pid: str) -> list[str]:
    try:
        folder = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return []
    try:
        return [os.readlink(name, dir_fd=folder) for name in os.listdir(folder)]
    except OSError:
        return []  # it has just ended, or closed one
    finally:
        os.close(folder)


class OwnedSockets:
    """Which sockets are this environment's: those on which something was done for it.

    Who waits at an address is read from the kernel's tables.
    """

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._inodes: dict[int, None] = {}

    def note(self, end: socket.socket) -> None:
        """This socket is the environment's."""
        if len(self._inodes) >= _OWN_MOST:
            del self._inodes[next(iter(self._inodes))]
        self._inodes[inode(end)] = None

    def waits(self, kind: Kind, address: bytes, port: int) -> bool:
        """Whether what waits at this address of the host's is the environment's,
        and nobody else's does.
        """
        found = (
            [number in self._inodes for number in self._waiting(kind, address, port)]
            if self._inodes
            else []
        )
        return bool(found) and all(found)

    def vacant(self, kind: Kind, address: bytes, port: int) -> bool:
        """Whether nobody at all waits there."""
        return not self._waiting(kind, address, port)

    def _waiting(self, kind: Kind, address: bytes, port: int) -> list[int]:
        return listeners(self._proc, "tcp" if kind.stream else "udp", address, port)

    def named(self, name: bytes) -> bool:
        """Whether the abstract unix socket of this name is the environment's."""
        shown = b"@" + name.replace(b"\0", b"@")
        rows = (line.split(None, 7) for line in _table(self._proc, "unix").splitlines()[1:])
        found = [int(row[6]) in self._inodes for row in rows if len(row) == 8 and row[7] == shown]
        return bool(found) and all(found)


def inode(end: socket.socket) -> int:
    return os.fstat(end.fileno()).st_ino


def kind_of(end: socket.socket) -> Kind:
    """What a socket is."""
    return Kind(
        end.family,
        end.type & constants.SOCK_TYPE_MASK,
        end.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL),
    )


def _plain(address: bytes) -> bytes:
    """An IPv4 address without IPv6's clothes; the unspecified one as the loopback,
    which it means.
    """
    if len(address) == 16 and address[:12] == bytes(10) + b"\xff\xff":
        address = address[12:]
    if not any(address):
        return b"\x7f\0\0\1" if len(address) == 4 else bytes(15) + b"\1"
    return address
