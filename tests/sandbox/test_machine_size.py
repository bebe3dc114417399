"""Claims about how large the machine is that an environment is told of."""

from __future__ import annotations

import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.kernel.machine_size import (
    MEMORY_FILE,
    PROCESSORS_FILE,
    MachineSize,
    limited,
    read,
    texts,
)
from cleanroom.sandbox.seccomp_notify.memory_size import limited as limited_answer

MIB = 1 << 20
MACHINE = MachineSize((0, 1, 2, 3, 6, 7), 8192 * MIB)
# offsets in struct sysinfo (sysinfo(2))
TOTAL, FREE, SWAP, UNIT = 32, 40, 64, 104


@given(
    cpus=st.floats(0, 16),
    memory=st.integers(1 << 16, 1 << 40),
    seed=st.text(max_size=8),
    numbers=st.sets(st.integers(0, 300), min_size=1, max_size=40),
)
def test_a_limit_leaves_a_part_of_the_machine_and_at_least_one_processor(
    cpus: float, memory: int, seed: str, numbers: set[int]
):
    machine = MachineSize(tuple(sorted(numbers)), 1 << 34)
    size = limited(machine, cpus=cpus, memory_bytes=memory, seed=seed)
    assert set(size.processors) <= numbers
    assert list(size.processors) == sorted(size.processors)
    wanted = -int(-cpus // 1) if cpus else len(numbers)
    assert len(size.processors) == max(1, min(wanted, len(numbers)))
    assert size.memory_bytes == min(memory, machine.memory_bytes)


def test_no_limit_of_processors_is_all_of_them():
    size = limited(MACHINE, cpus=0, memory_bytes=MIB, seed="")
    assert size.processors == MACHINE.processors


def test_environments_with_different_names_do_not_all_get_the_same_processor():
    found = {
        limited(MACHINE, cpus=1, memory_bytes=MIB, seed=str(number)).processors
        for number in range(40)
    }
    assert len(found) > 1


def test_files_tell_the_limits_in_the_form_of_the_kernel():
    said = texts(MACHINE, MachineSize((0, 1, 3, 6, 7), 256 * MIB))
    assert said[PROCESSORS_FILE] == "0-1,3,6-7\n"
    lines = dict(line.split(":") for line in said[MEMORY_FILE].splitlines())
    assert lines["MemTotal"].split() == [str(256 * 1024), "kB"]
    assert lines["SwapTotal"].split() == ["0", "kB"]


def test_no_file_stands_in_for_one_that_would_say_the_same():
    assert texts(MACHINE, MACHINE) == {}


def test_this_machine_is_read_as_the_kernel_tells_it():
    assert read().processors == tuple(sorted(os.sched_getaffinity(0)))
    assert read().memory_bytes > 64 * MIB


def test_the_answer_of_the_kernel_about_memory_is_bounded_and_otherwise_the_same():
    raw = syscalls.sysinfo()
    told = limited_answer(raw, 256 * MIB)
    unit = struct.unpack_from("=I", told, UNIT)[0]
    assert struct.unpack_from("=Q", told, TOTAL)[0] * unit == 256 * MIB
    assert struct.unpack_from("=Q", told, FREE)[0] * unit <= 256 * MIB
    assert struct.unpack_from("=Q", told, SWAP)[0] == 0
    assert (told[:TOTAL], told[80:]) == (raw[:TOTAL], raw[80:])
