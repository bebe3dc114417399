"""The thread that made a held call: its memory, descriptors and identity, by the warden's /proc.

`pid` is the thread's number in the warden's pid namespace.
The environment wrote everything that is read here: each read is bounded, and nothing is trusted.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from cleanroom.sandbox.kernel import constants, syscalls

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Process

# argv shown in a record: enough to know the command, small beside any log line
_ARGUMENTS_MOST = 64
_ARGUMENTS_BYTES = 4096


class Unreadable(Exception):
    """The caller's /proc folder may not be read; the message names the file and the error."""


class BadAddress(Exception):
    """The caller named memory that it does not have: EFAULT."""


def shown(text: str) -> str:
    """`text` without the surrogates of undecodable bytes, which JSON cannot carry."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Caller:
    """One thread, as long as its call is held."""

    __slots__ = ("_is_held", "_proc", "_status", "pid")

    def __init__(self, pid: int, proc: int, is_held: Callable[[], bool] = lambda: True) -> None:
        """`is_held`: whether its call still is; else its number may be another process's."""
        self.pid = pid
        self._is_held = is_held
        self._proc = proc
        self._status: dict[str, str] | None = None

    def memory(self, address: int, length: int) -> bytes:
        """Read at most `length` bytes from `address` on.

        Raises:
            Unreadable: its memory may not be read.
            BadAddress: there is no memory at `address`.
        """
        # Opened for each read: a descriptor keeps the memory from before an execve(2).
        try:
            # Needs the right to trace (PTRACE_MODE_ATTACH_FSCREDS), which open(2) checks.
            descriptor = os.open(f"{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError as error:
            raise Unreadable(f"/proc/{self.pid}/mem: {error.strerror}") from error
        try:
            # EIO where nothing is mapped, fewer bytes where the mapping ends.
            # OverflowError for an address from 2**63 on, which is no off_t.
            return os.pread(descriptor, length, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(hex(address)) from error
        finally:
            os.close(descriptor)

    def write(self, address: int, data: bytes) -> None:
        """Write `data` into its memory.

        Raises:
            Unreadable: its memory may not be written.
            BadAddress: there is no memory at `address`.
        """
        try:
            descriptor = os.open(f"{self.pid}/mem", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError as error:
            raise Unreadable(f"/proc/{self.pid}/mem: {error.strerror}") from error
        try:
            # Asked of what is open: it stays the memory of one process (seccomp_unotify(2), NOTES).
            if not self._is_held():
                raise BadAddress(hex(address))
            os.pwrite(descriptor, data, address)
        except (OSError, OverflowError) as error:
            raise BadAddress(hex(address)) from error
        finally:
            os.close(descriptor)

    def string(self, address: int) -> str | None:
        """Read the path at `address`; None if it does not end within PATH_MAX: ENAMETOOLONG.

        Raises:
            Unreadable: its memory may not be read.
            BadAddress: there is no memory at `address`, or the path goes on beyond it.
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
        """The target of a link of its /proc folder (cwd, exe, fd/N); empty if it cannot be read."""
        try:
            return os.readlink(f"{self.pid}/{name}", dir_fd=self._proc)
        except OSError:
            return ""

    def handle(self, name: str) -> int:
        """Open the target of a link of its /proc folder with O_PATH.

        Raises:
            OSError: there is no such link, or it may not be followed.
        """
        # A link of /proc leads to the object itself, also where its path now names another one.
        return os.open(f"{self.pid}/{name}", constants.O_PATH | os.O_CLOEXEC, dir_fd=self._proc)

    def base(self, directory: int) -> str:
        """The path of the folder that a dirfd argument stands for."""
        # The kernel takes the argument as an int: its upper half is ignored.
        low = directory & constants.UINT_MAX
        found = self.link("cwd" if low == constants.AT_FDCWD_U32 else f"fd/{low}")
        # The kernel appends this where the folder was removed.
        return found.removesuffix(" (deleted)")

    def root(self) -> int:
        """A descriptor of its root folder.

        Raises:
            OSError: it may not be opened.
        """
        # proc_pid_root(5): the folder as the thread's mount namespace has it.
        return os.open(
            f"{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc
        )

    def status(self) -> dict[str, str]:
        """The fields of its /proc status, read once."""
        if self._status is None:
            # proc_pid_status(5). The name of the thread is its own choice, with newlines escaped.
            text = self._text("status")
            self._status = {
                key: value.strip()
                for key, _, value in (line.partition(":") for line in text.splitlines())
            }
        return self._status

    @property
    def group(self) -> int:
        """The pid of its process in the warden's pid namespace."""
        return int(self.status().get("Tgid") or self.pid)

    def inner_numbers(self) -> tuple[str, str]:
        """Its pid and its thread id inside the environment."""
        status = self.status()
        # Since 4.1: the ids from the namespace of this /proc down to the thread's own, the last.
        return status.get("NStgid", "").split("\t")[-1], status.get("NSpid", "").split("\t")[-1]

    def identity(self) -> Process:
        """Its process in the shape of `capability.Process`; empty if it is gone."""
        status = self.status()
        if not status:
            return {}
        # proc_pid_cmdline(5): from the caller's memory, so it can show what it likes.
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
            # Real, effective, saved and file system uid, as the reader's user namespace maps them.
            "uid": int(status.get("Uid", "-1").split("\t")[0]),
        }

    def borrow(self, descriptor: int) -> socket.socket:
        """A duplicate of its socket: both are one open file description (pidfd_getfd(2)).

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
        """A duplicate of a descriptor of the thread, whose table may not be that of its process.

        Raises:
            OSError: it has none of that number, or it may not be borrowed.
        """
        number = descriptor & constants.UINT_MAX
        # pidfd_getfd(2) with a process's pidfd looks into the table of its first thread.
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
        """A pidfd of the thread itself and True, or before Linux 6.9 of its process and False."""
        if self.pid != self.group:
            try:
                return syscalls.pidfd_open(self.pid, constants.PIDFD_THREAD), True
            except OSError as error:
                # EINVAL: the kernel does not know PIDFD_THREAD.
                if error.errno != errno.EINVAL:
                    raise
        return syscalls.pidfd_open(self.group), False

    def signal(self, number: int) -> None:
        """Send it a signal that the kernel would have sent."""
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def interrupted(self) -> int:
        """The errno with which a pending signal interrupts its call; 0 while there is none.

        signal(7): a handler with SA_RESTART restarts the call. Only the kernel knows it, and
        ERESTARTSYS leaves it the choice, where no other thread can have taken the signal meanwhile.
        """
        self._status = None
        status = self.status()
        # Pending for the thread alone, and for its process: any thread may take those.
        waiting = int(status.get("SigPnd", "0"), 16) | int(status.get("ShdPnd", "0"), 16)
        if not waiting & ~int(status.get("SigBlk", "0"), 16):
            return 0
        return constants.ERESTARTSYS if status.get("Threads") == "1" else errno.EINTR

    def identities(self) -> tuple[int, tuple[int, ...]]:
        """Its file system user and groups (credentials(7)), by which the kernel judges access."""
        status = self.status()
        # The last of real, effective, saved and file system id.
        user, group = (int(status[name].split("\t")[-1]) for name in ("Uid", "Gid"))
        return user, (group, *map(int, status.get("Groups", "").split()))

    def process_behind(self, descriptor: int) -> int:
        """The process of one of its pidfds, as the warden numbers it; 0 where it is no pidfd."""
        # A pidfd's fdinfo gives the pid in the namespace of the /proc that is read (pidfd_open(2)).
        rows = (line.partition(":") for line in self._text(f"fdinfo/{descriptor}").splitlines())
        return next((int(value) for key, _, value in rows if key == "Pid"), 0)

    def unix_sockets(self) -> bytes:
        """/proc/net/unix of its network namespace."""
        return self._bytes("net/unix", 1 << 20)

    def open_files(self) -> tuple[set[int], int]:
        """The numbers of its descriptors, and RLIMIT_NOFILE, below which new ones have to be."""
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
        """Type and protocol of its socket; (0, 0) where it has none, or one of another `family`."""
        try:
            with self.borrow(descriptor) as found:
                if family and found.family != family:
                    return 0, 0
                # SO_PROTOCOL: since 2.6.32.
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
                # proc_pid_net(5): column 1 is the local address and port, in hexadecimal.
                # Column 9 is the socket's inode.
                found[int(columns[1].rpartition(":")[2], 16)] = columns[9]
        return found

    def _text(self, name: str) -> str:
        return os.fsdecode(self._bytes(name, 1 << 16))

    def _bytes(self, name: str, most: int) -> bytes:
        """Read a file of its /proc folder: a read(2) of a table gives one page of it."""
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
