"""The filter as data: every test runs the program in a small machine of its own,
so both processor tables are covered here.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.sandbox.kernel import constants
from cleanroom.sandbox.kernel.syscall_numbers import AUDIT_ARCH, MACHINES, numbers
from cleanroom.sandbox.seccomp import bpf, filters

ALLOW, HOLD = 0x7FFF0000, 0x7FC00000
ABSENT = 0x00050000 | errno.ENOSYS


def verdict(program: bytes, number: int, arch: int, *arguments: int) -> int:
    """What the kernel's interpreter would answer."""
    padded = [
        argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *([0] * (6 - len(arguments))))
    ]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    word = at = 0
    while True:
        code, true, false, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            word = int.from_bytes(data[value : value + 4], "little")
        elif code == 0x54:
            word &= value
        elif code == 0x05:
            at += value
        elif code == 0x06:
            return value
        else:
            taken = {0x15: word == value, 0x35: word >= value, 0x45: bool(word & value)}[code]
            at += true if taken else false


def held(machine: str, name: str, *arguments: int) -> int:
    return verdict(
        filters.medium_filter(machine), numbers(machine)[name], AUDIT_ARCH[machine], *arguments
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_every_denied_and_changing_call_is_held(machine: str):
    """No name of the tables falls through to allow because of its place in the program."""
    for name in (*filters.DENIED, *filters.PATH_CHANGES, *filters.SENDING):
        if name in numbers(machine):
            assert held(machine, name, 1, 1, 1, 1, 1, 1) == HOLD, name


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_whose_arguments_lie_in_memory_do_not_exist(machine: str):
    """clone3, io_uring and openat2 answer ENOSYS, so that runtimes fall back."""
    assert {held(machine, name) for name in filters.ABSENT} == {ABSENT}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_is_held(machine: str):
    """A call by another ABI, whatever its number, never runs."""
    assert verdict(filters.medium_filter(machine), 1, 0x40000003) == HOLD


def test_x32_calls_are_held():
    """The third ABI of x86-64 hides behind a bit in the number."""
    assert verdict(filters.medium_filter("x86_64"), 0x40000000 | 1, AUDIT_ARCH["x86_64"]) == HOLD


@settings(deadline=None)
@given(flags=st.integers(0, (1 << 32) - 1), machine=st.sampled_from(MACHINES))
def test_an_open_is_held_exactly_when_it_can_change_something(flags: int, machine: str):
    """Reading costs nothing: only the four writing flags are looked at."""
    writing = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    assert held(machine, "openat", 0, 0, flags) == (HOLD if writing else ALLOW)


@settings(deadline=None)
@given(flags=st.integers(0, (1 << 32) - 1))
def test_a_clone_is_held_exactly_when_it_makes_a_namespace(flags: int):
    """Threads and children start freely."""
    assert held("x86_64", "clone", flags) == (HOLD if flags & constants.CLONE_NEW_ANY else ALLOW)


@settings(deadline=None)
@given(address=st.integers(0, (1 << 64) - 1))
def test_sendto_is_held_exactly_when_it_names_an_address(address: int):
    """Both halves of the pointer count: an address above 4 GiB may have a low half of zero."""
    assert held("x86_64", "sendto", 3, 1, 1, 0, address) == (HOLD if address else ALLOW)


@settings(deadline=None)
@given(address=st.integers(0, (1 << 64) - 1), machine=st.sampled_from(MACHINES))
def test_utimensat_is_held_exactly_when_it_names_a_path(address: int, machine: str):
    """Without a path it is futimens, of an open file, as fchmod and fchown are."""
    assert held(machine, "utimensat", 3, address, 0, 0) == (HOLD if address else ALLOW)


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "expected"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, ALLOW),
        (socket.AF_INET, socket.SOCK_STREAM | 0o2000000, 6, ALLOW),
        (socket.AF_INET6, socket.SOCK_DGRAM, 17, ALLOW),
        (socket.AF_INET, socket.SOCK_STREAM, 262, ALLOW),
        (16, socket.SOCK_RAW, 0, HOLD),
        (socket.AF_INET, socket.SOCK_RAW, 1, HOLD),
        (socket.AF_INET, socket.SOCK_DGRAM, 1, HOLD),
        (socket.AF_INET6, socket.SOCK_DGRAM, 58, HOLD),
        (socket.AF_INET, socket.SOCK_STREAM, 132, HOLD),
        (socket.AF_INET, socket.SOCK_SEQPACKET, 132, HOLD),
        (socket.AF_INET, 6, 33, HOLD),
        (17, socket.SOCK_RAW, 0, HOLD),
        (40, socket.SOCK_STREAM, 0, HOLD),
        (38, socket.SOCK_SEQPACKET, 0, HOLD),
        (30, socket.SOCK_STREAM, 0, HOLD),
        (21, socket.SOCK_SEQPACKET, 0, HOLD),
        (29, socket.SOCK_RAW, 1, HOLD),
    ],
)
def test_only_ordinary_sockets_are_made_freely(
    family: int, kind: int, protocol: int, expected: int
):
    """Unix, TCP, UDP and MPTCP pass; everything else is held, netlink to be put in its place."""
    assert held("x86_64", "socket", family, kind, protocol) == expected


def test_an_own_filter_with_a_listener_is_refused_and_a_stricter_one_is_not():
    """Inside a filter with a listener a second listener is EBUSY;
    a plain filter of one's own still installs.
    """
    program = struct.pack("=HBBI", 0x06, 0, 0, ALLOW)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            bpf.install(program, listener=True)
            bpf.install(program, listener=False)
            try:
                bpf.install(program, listener=True)
            except OSError as error:
                os.write(write_end, errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(pid, 0)
    assert os.read(read_end, 64) == b"EBUSY"
    os.close(read_end)


@pytest.mark.parametrize("machine", MACHINES)
def test_high_holds_all_that_medium_holds_and_what_is_listed(machine: str):
    """Reads, starts and listening are held at High and not at Medium;
    nothing that Medium holds or hides is let go.
    """
    known, arch = numbers(machine), AUDIT_ARCH[machine]
    for name in filters.ALLOWLISTED:
        if name in known and name != "bind":  # whose path is looked at everywhere
            arguments = (0, 0, mmap.PROT_EXEC) if name == "mmap" else ()
            assert (
                verdict(filters.high_filter(machine), known[name], arch, *arguments),
                held(machine, name, *arguments),
            ) == (
                HOLD,
                ALLOW,
            ), name
    for name, number in known.items():
        if held(machine, name) != ALLOW:
            assert verdict(filters.high_filter(machine), number, arch) == held(machine, name), name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_acts_on_pid_1_is_held_and_on_no_other(machine: str):
    """Signals, limits, priorities: other numbers cost no look; services are refused 1 too."""
    known, arch = numbers(machine), AUDIT_ARCH[machine]
    service = filters.service_filter(machine)
    for name, indexes in filters.PID_ARGUMENTS.items():
        for number, wanted in ((1, HOLD), (0, ALLOW), (17, ALLOW)):
            arguments = [0] * indexes[-1] + [number]
            assert held(machine, name, *arguments) == wanted, (name, number)
            refused = verdict(service, known[name], arch, *arguments) == 0x00050000 | errno.EPERM
            assert refused is (wanted == HOLD), (name, number)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_mode_of_an_open_file_is_held_for_two_bits_alone(machine: str):
    """Set-user-id and set-group-id; every other mode costs no look."""
    verdicts = {mode: held(machine, "fchmod", 3, mode) for mode in (0o4000, 0o2755, 0o6000, 0o1777)}
    assert verdicts == {0o4000: HOLD, 0o2755: HOLD, 0o6000: HOLD, 0o1777: ALLOW}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_change_of_the_core_limit_is_held_and_of_no_other(machine: str):
    """By both calls, for every process; asking for it is free."""
    assert held(machine, "setrlimit", 4, 1) == HOLD
    assert held(machine, "setrlimit", 7, 1) == ALLOW
    for number in (0, 17):
        assert held(machine, "prlimit64", number, 4, 1 << 40) == HOLD
        assert held(machine, "prlimit64", number, 4, 0, 1) == ALLOW
        assert held(machine, "prlimit64", number, 7, 1) == ALLOW
    service = filters.service_filter(machine)
    done = verdict(service, numbers(machine)["setrlimit"], AUDIT_ARCH[machine], 4, 1)
    assert done == 0x00050000


@pytest.mark.parametrize("machine", MACHINES)
def test_only_a_file_that_becomes_program_is_held_on_mapping(machine: str):
    """At High: not data, and not memory without a file."""
    program, number, arch = (
        filters.high_filter(machine),
        numbers(machine)["mmap"],
        AUDIT_ARCH[machine],
    )
    both = mmap.PROT_READ | mmap.PROT_EXEC
    assert verdict(program, number, arch, 0, 0, mmap.PROT_READ, mmap.MAP_PRIVATE) == ALLOW
    assert (
        verdict(program, number, arch, 0, 0, both, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) == ALLOW
    )
    assert verdict(program, number, arch, 0, 0, both, mmap.MAP_PRIVATE) == HOLD


@pytest.mark.parametrize("machine", MACHINES)
def test_sends_without_an_address_are_held_on_high_numbers_alone(machine: str):
    """Where netlink sockets are put; every other connected send stays off the recorder's path."""
    for name in ("sendto", "write", "writev"):
        assert held(machine, name, filters.FIRST_NETLINK - 1, 1, 1) == ALLOW
        assert held(machine, name, filters.FIRST_NETLINK, 1, 1) == HOLD


@pytest.mark.parametrize("machine", MACHINES)
def test_on_a_shared_network_who_waits_is_held_and_low_starts_programs_freely(machine: str):
    """bind and listen at Low, execve from Medium on; MPTCP is not made where no namespace contains
    it; kept sockets are all made on the caller's behalf.
    """
    low = filters.phase_filter(machine, host_network=True, hold_exec=False)
    known, arch = numbers(machine), AUDIT_ARCH[machine]
    assert {verdict(low, known[name], arch) for name in ("bind", "listen")} == {HOLD}
    assert verdict(low, known["execve"], arch) == ALLOW
    assert held(machine, "execve") == HOLD
    assert verdict(low, known["socket"], arch, socket.AF_INET, socket.SOCK_STREAM, 262) == HOLD
    kept = filters.phase_filter(machine, host_network=True, track_sockets=True)
    assert verdict(kept, known["socket"], arch, socket.AF_INET, socket.SOCK_STREAM, 6) == HOLD


@settings(deadline=None)
@given(flags=st.integers(0, (1 << 32) - 1))
def test_a_file_in_memory_is_made_freely_exactly_when_it_can_never_be_started(flags: int):
    """Only the flag that seals the right to execute away is let through."""
    found = verdict(
        filters.high_filter("x86_64"),
        numbers("x86_64")["memfd_create"],
        AUDIT_ARCH["x86_64"],
        0,
        flags,
    )
    assert found == (ALLOW if flags & constants.MFD_NOEXEC_SEAL else HOLD)
