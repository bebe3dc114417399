"""How large the machine is that an environment sees: its own limits, where they are smaller.

Runtimes, compilers and test runners size heaps and pools by what they are told of.
Told of the whole machine they grow until a limit ends them.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

# Where programs read how much memory there is (proc_meminfo(5)), and which processors (cpu(7)).
MEMORY_FILE = "/proc/meminfo"
PROCESSORS_FILE = "/sys/devices/system/cpu/online"


class MachineSize(NamedTuple):
    """Processors and memory that may be used."""

    # numbers of the kernel, ascending
    processors: tuple[int, ...]
    memory_bytes: int


def read() -> MachineSize:
    """What this process may use of the machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return MachineSize(tuple(sorted(os.sched_getaffinity(0))), pages)


def limited(machine: MachineSize, *, cpus: float, memory_bytes: int, seed: str) -> MachineSize:
    """The part of `machine` that limits leave; 0 `cpus` is no limit.

    Environments with different `seed`s get different processors where there are enough.
    """
    known, wanted = machine.processors, math.ceil(cpus)
    if 0 < wanted < len(known):
        first = int.from_bytes(sha256(seed.encode()).digest()[:8]) % len(known)
        known = tuple(sorted((*known, *known)[first : first + wanted]))
    return MachineSize(known, min(machine.memory_bytes, memory_bytes))


def texts(machine: MachineSize, size: MachineSize) -> dict[str, str]:
    """Path -> text of the files that tell of `size`; those that would say the same are left out."""
    found = {}
    if size.memory_bytes < machine.memory_bytes:
        found[MEMORY_FILE] = _meminfo(size.memory_bytes // 1024)
    if size.processors != machine.processors:
        found[PROCESSORS_FILE] = f"{_ranges(size.processors)}\n"
    return found


def _meminfo(kibibytes: int) -> str:
    """As the environment begins: all of it is free, and swap counts as memory."""
    rows = {"MemTotal": kibibytes, "MemFree": kibibytes, "MemAvailable": kibibytes}
    rows |= dict.fromkeys(("Buffers", "Cached", "SwapCached", "SwapTotal", "SwapFree"), 0)
    return "".join(f"{name + ':':15} {value:>8} kB\n" for name, value in rows.items())


def _ranges(numbers: Sequence[int]) -> str:
    """Processors as the kernel lists them: "0-3,6" (cpuset(7), FORMATS)."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in ends)
