"""Who made a held call: its memory, its place, its identity,
read through a descriptor of the warden's own /proc.

`pid` is a thread's number as the warden sees it.
Everything read here was written by the environment: it is bounded and never trusted.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Process

# argv shown in a record: enough to know the command, small beside any log line
_ARGUMENTS_MOST = 64
_ARGUMENTS_BYTES = 4096


class Unreadable(Exception):
    """The caller's memory or place may not be read; says why."""


class BadAddress(Exception):
    """The caller named memory that it does not have; the kernel would say EFAULT."""


def shown(text: str) -> str:
    """`text` without the surrogates of undecodable bytes, which JSON cannot carry."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Caller:
    """One thread, for the time that its call is held."""

    __slots__ = ("_proc", "_status", "pid")

    def __init__(self, pid: int, proc: int) -> None:
        self.pid = pid
        self._proc = proc
        self._status: dict[str, str] | None = None

    def memory(self, address: int, length: int) -> bytes:
        """At most `length` bytes from `address` on.

        The file is opened for each read: one kept open would show the old program's memory after
        exec.
        """
        try:
            descriptor = os.open(f"{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError as error:
            raise Unreadable(f"/proc/{self.pid}/mem: {error.strerror}") from error
        try:
            return os.pread(descriptor, length, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(hex(address)) from error
        finally:
            os.close(descriptor)

    def write(self, address: int, data: bytes) -> None:
        """Put `data` into its memory."""
        try:
            descriptor = os.open(f"{self.pid}/mem", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError as error:
            raise Unreadable(f"/proc/{self.pid}/mem: {error.strerror}") from error
        try:
            os.pwrite(descriptor, data, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(hex(address)) from error
        finally:
            os.close(descriptor)

    def string(self, address: int) -> str | None:
        """The path at `address`; None if it does not end within PATH_MAX,
        as the kernel would refuse it.
        """
        short = syscalls.peek(self.pid, address)
        if short is not None:
            return os.fsdecode(short)
        # a long path, or memory that may not be looked at in one call
        found = self.memory(address, constants.PATH_MAX)
        end = found.find(b"\0")
        if end >= 0:
            return os.fsdecode(found[:end])
        if len(found) < constants.PATH_MAX:
            raise BadAddress(hex(address + len(found)))
        return None

    def link(self, name: str) -> str:
        """Where a link of its /proc folder leads: cwd, exe, fd/N; empty if it cannot be read."""
        try:
            return os.readlink(f"{self.pid}/{name}", dir_fd=self._proc)
        except OSError:
            return ""

    def handle(self, name: str) -> int:
        """A descriptor without any right for what a link of its /proc folder leads to.

        Raises:
            OSError: there is no such link, or it may not be followed.
        """
        return os.open(f"{self.pid}/{name}", constants.O_PATH | os.O_CLOEXEC, dir_fd=self._proc)

    def base(self, directory: int) -> str:
        """The folder that a relative path starts from, by the dirfd argument."""
        low = directory & constants.UINT_MAX
        found = self.link("cwd" if low == constants.AT_FDCWD_U32 else f"fd/{low}")
        return found.removesuffix(" (deleted)")

    def root(self) -> int:
        """A descriptor of its root folder.

        Raises:
            OSError: it may not be opened.
        """
        return os.open(
            f"{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc
        )

    def status(self) -> dict[str, str]:
        """Its /proc status, read once."""
        if self._status is None:
            text = self._text("status")
            self._status = {
                key: value.strip()
                for key, _, value in (line.partition(":") for line in text.splitlines())
            }
        return self._status

    @property
    def group(self) -> int:
        """The process it is a thread of, as the warden sees it."""
        return int(self.status().get("Tgid") or self.pid)

    def inner_numbers(self) -> tuple[str, str]:
        """Its process and thread number inside the environment."""
        status = self.status()
        return status.get("NStgid", "").split("\t")[-1], status.get("NSpid", "").split("\t")[-1]

    def identity(self) -> Process:
        """What capability.Process says of it; empty if it is gone."""
        status = self.status()
        if not status:
            return {}
        raw = self._bytes("cmdline", _ARGUMENTS_BYTES).split(b"\0")
        arguments = [shown(os.fsdecode(part)) for part in raw[:_ARGUMENTS_MOST]]
        return {
            "pid": self.group,
            "ns_pid": int(self.inner_numbers()[0] or 0),
            "ppid": int(status.get("PPid") or 0),
            "exe": shown(self.link("exe")),
            "comm": shown(status.get("Name", "")),
            "argv": arguments[:-1] if arguments and not arguments[-1] else arguments,
            "cwd": shown(self.link("cwd")),
            "uid": int(status.get("Uid", "-1").split("\t")[0]),
        }

    def borrow(self, descriptor: int) -> socket.socket:
        """A copy of its socket; what is done to it is done to the caller's.

        Raises:
            OSError: it is no socket of the caller's, or may not be borrowed.
        """
        copy = self.copy(descriptor)
        try:
            return socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise

    def copy(self, descriptor: int) -> int:
        """A copy of any descriptor of its, from its own table:
        a thread may have left that of its process.

        Raises:
            OSError: it has none of that number, or it may not be borrowed.
        """
        number = descriptor & constants.UINT_MAX
        process, exact = self._handle()
        try:
            copy = syscalls.pidfd_getfd(process, number)
        finally:
            os.close(process)
        if (
            not exact
            and self.pid != self.group
            and self.link(f"fd/{number}") != os.readlink(f"/proc/self/fd/{copy}")
        ):
            os.close(copy)
            raise OSError(errno.EPERM, "of a thread with descriptors of its own")
        return copy

    def _handle(self) -> tuple[int, bool]:
        """A descriptor of the thread itself, or before Linux 6.9 of its process;
        and which of them it is.
        """
        if self.pid != self.group:
            try:
                return syscalls.pidfd_open(self.pid, constants.PIDFD_THREAD), True
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return syscalls.pidfd_open(self.group), False

    def signal(self, number: int) -> None:
        """Send its process a signal that the kernel would have sent."""
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def interrupted(self) -> int:
        """The errno with which the kernel would call it away for a signal that waits;
        0 while none does.

        A handler may want the call to be made again, which the kernel knows:
        it is asked where no other thread can have taken the signal meanwhile.
        """
        self._status = None
        status = self.status()
        waiting = int(status.get("SigPnd", "0"), 16) | int(status.get("ShdPnd", "0"), 16)
        if not waiting & ~int(status.get("SigBlk", "0"), 16):
            return 0
        return constants.ERESTARTSYS if status.get("Threads") == "1" else errno.EINTR

    def identities(self) -> tuple[int, tuple[int, ...]]:
        """The user and the groups by which the kernel judges what it does to files."""
        status = self.status()
        user, group = (int(status[name].split("\t")[-1]) for name in ("Uid", "Gid"))
        return user, (group, *map(int, status.get("Groups", "").split()))

    def process_behind(self, descriptor: int) -> int:
        """The process that a pidfd of its stands for, as the warden sees it; else 0."""
        rows = (line.partition(":") for line in self._text(f"fdinfo/{descriptor}").splitlines())
        return next((int(value) for key, _, value in rows if key == "Pid"), 0)

    def unix_sockets(self) -> bytes:
        """/proc/net/unix of its network namespace."""
        return self._bytes("net/unix", 1 << 20)

    def open_files(self) -> tuple[set[int], int]:
        """The numbers of its descriptors, and below which number new ones have to be."""
        limit = next(
            (
                line.split()[3]
                for line in self._text("limits").splitlines()
                if line.startswith("Max open files")
            ),
            "0",
        )
        folder = os.open(
            f"{self.pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc
        )
        try:
            return {int(name) for name in os.listdir(folder)}, int(limit)
        finally:
            os.close(folder)

    def socket_kind(self, descriptor: int, family: int = 0) -> tuple[int, int]:
        """Type and protocol of its socket; (0, 0) where it cannot be borrowed,
        or is not of the `family` that is asked for.
        """
        try:
            with self.borrow(descriptor) as found:
                if family and found.family != family:
                    return 0, 0
                return found.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), found.getsockopt(
                    socket.SOL_SOCKET, socket.SO_PROTOCOL
                )
        except (OSError, ValueError):
            return 0, 0

    def has_socket(self, inode: str) -> bool:
        """Whether one of its descriptors is the socket with this inode."""
        try:
            folder = os.open(
                f"{self.pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc
            )
        except OSError:
            return False
        try:
            return any(
                self.link(f"fd/{name}") == f"socket:[{inode}]" for name in os.listdir(folder)
            )
        except OSError:
            return False
        finally:
            os.close(folder)

    def udp_sockets(self) -> dict[int, str]:
        """Local port to inode of the UDP sockets in its network namespace."""
        found = {}
        for line in self._text("net/udp").splitlines()[1:]:
            columns = line.split()
            if len(columns) > 9:
                found[int(columns[1].rpartition(":")[2], 16)] = columns[9]
        return found

    def _text(self, name: str) -> str:
        return os.fsdecode(self._bytes(name, 1 << 16))

    def _bytes(self, name: str, most: int) -> bytes:
        """What a file of its /proc folder holds; the kernel gives a page of a table at a time."""
        try:
            descriptor = os.open(
                f"{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc
            )
        except OSError:
            return b""
        try:
            found = os.read(descriptor, most)
            while name.startswith("net/") and (piece := os.read(descriptor, most)):
                found += piece
            return found
        except OSError:
            return b""
        finally:
            os.close(descriptor)
