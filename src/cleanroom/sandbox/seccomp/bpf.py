"""Classic BPF programs for seccomp(2): an assembler with labels, and how a program is installed.

Which system calls a program allows is decided in `filters` and `filters_hostns`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading

from cleanroom.sandbox.kernel import constants, syscalls

# offsets in struct seccomp_data
# the numbers of calls depend on the architecture, so a filter tests that first (seccomp(2), NOTES)
NR, ARCH, _ARGS = 0, 4, 16
_SOCK_FILTER = struct.Struct("=HBBI")


def argument(index: int) -> int:
    """Offset of the low half of an argument; both machines are little-endian."""
    return _ARGS + 8 * index


class Assembler:
    """Assembles a program whose jumps name labels.

    The offset of a conditional jump has 8 bits, so each is followed by an unconditional one, whose
    offset has 32.
    """

    def __init__(self) -> None:
        # code, offset if true, offset if false, operand, label
        self._code: list[tuple[int, int, int, int, str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        """Load a word of struct seccomp_data into the accumulator."""
        self._code.append((constants.BPF_LD_W_ABS, 0, 0, offset, ""))

    def mask(self, bits: int) -> None:
        self._code.append((constants.BPF_AND_K, 0, 0, bits, ""))

    def jump_if(self, test: int, value: int, label: str) -> None:
        """Jump if the accumulator passes BPF_JEQ_K, BPF_JGE_K or BPF_JSET_K against `value`."""
        # if true the next instruction, the long jump, else the one behind it
        self._code.append((test, 0, 1, value, ""))
        self.jump(label)

    def jump_if_nonzero(self, index: int, label: str) -> None:
        """Jump if either half of an argument has a bit."""
        for offset in (argument(index), argument(index) + 4):
            self.load(offset)
            self.jump_if(constants.BPF_JSET_K, constants.UINT_MAX, label)

    def jump(self, label: str) -> None:
        self._code.append((constants.BPF_JA_K, 0, 0, 0, label))

    def ret(self, action: int) -> None:
        """End with an action of the SECCOMP_RET_ family."""
        self._code.append((constants.BPF_RET_K, 0, 0, action, ""))

    def assemble(self) -> bytes:
        """The instructions as the kernel takes them (struct sock_filter), 8 bytes each."""
        packed = []
        for index, (code, true, false, value, label) in enumerate(self._code):
            operand = self._labels[label] - index - 1 if label else value
            # struct sock_filter: code, jt, jf, k; offsets count from the next instruction
            packed.append(_SOCK_FILTER.pack(code, true, false, operand))
        return b"".join(packed)


def install(program: bytes, *, listener: bool) -> int | None:
    """Install `program` for the calling thread and all processes that it starts.

    Returns the notification descriptor if `listener` asks for one.

    Raises:
        OSError: EBUSY, an installed filter has a listener already.
    """
    # without CAP_SYS_ADMIN the kernel takes no filter of a process that could gain privileges
    syscalls.set_no_new_privileges()
    code = ctypes.create_string_buffer(program, len(program))
    # the kernel copies the program, so its buffer may be freed
    # struct sock_fprog
    filter_program = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(code))
    if not listener:
        syscalls.seccomp(constants.SECCOMP_SET_MODE_FILTER, 0, filter_program)
        return None
    flags = constants.SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        return syscalls.seccomp(
            constants.SECCOMP_SET_MODE_FILTER,
            flags | constants.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            filter_program,
        )
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is known since Linux 5.19
    return syscalls.seccomp(constants.SECCOMP_SET_MODE_FILTER, flags, filter_program)


def install_and_send(program: bytes, channel: socket.socket) -> None:
    """Install `program` and send its listener over `channel` with the byte b"L".

    The filter holds sendmsg, so the calling thread cannot send its own listener.
    Another thread sends it: it starts before the filter is installed, so the filter does not apply
    to it (seccomp(2), without SECCOMP_FILTER_FLAG_TSYNC), and it shares the descriptor table.

    Raises:
        OSError: the filter could not be installed, or its listener not be sent.
    """
    handed: list[int] = []
    failures: list[OSError] = []
    installed = threading.Event()

    def send() -> None:
        installed.wait()
        try:
            if handed:
                socket.send_fds(channel, [b"L"], handed)
        except OSError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        listener = install(program, listener=True)
        assert listener is not None
        handed.append(listener)
    finally:
        installed.set()
        sender.join()
    os.close(listener)
    if failures:
        raise failures[0]
