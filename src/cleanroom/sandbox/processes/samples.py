"""Samples of an environment's use of the host, by its control group or summed over processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from cleanroom.model.capability import Process, Sample
from cleanroom.sandbox.filesystem import layers
from cleanroom.sandbox.kernel import cgroups

# Between walks of a layer: a second, and twenty times the duration of the last one.
WALK_SECONDS, WALK_SHARE = 1.0, 20.0


class Sampler:
    """Samples one environment.

    The processor time of ended processes is kept, so that the total never falls.
    """

    def __init__(
        self,
        init: int,
        group: cgroups.Group | None,
        written: Sequence[Path],
        memory_limit_bytes: int,
        *,
        own_network: bool = True,
    ) -> None:
        """`written`: the folders on disk that the environment fills.

        Without `own_network` its links are the host's, whose counters include other processes.
        """
        self._own_network = own_network
        self._near_bytes = memory_limit_bytes // 2
        self._init = init
        self._group = group
        self._written = written
        self._ended_seconds = 0.0
        # (pid, start) -> processor seconds when last seen
        self._seconds: dict[tuple[int, float], float] = {}
        self._disk_bytes = 0
        self._walk_at = 0.0

    def take(self, last: bool = False) -> Sample | None:
        """Take one sample; None when the environment is gone.

        Blocks for some ms: call it in a worker thread.
        The `last` one always walks the layer, or a short phase's files would not be counted.
        """
        # Walking a layer costs more than everything else here.
        if self._written and (last or time.monotonic() >= self._walk_at):
            began = time.monotonic()
            self._disk_bytes = sum(layers.size_of(folder) for folder in self._written)
            ended = time.monotonic()
            self._walk_at = ended + max(WALK_SECONDS, WALK_SHARE * (ended - began))
        if self._group is not None:
            counters = self._group.counters()
            if counters.pids < 0:
                return None
            return Sample(
                cpu_seconds=counters.cpu_seconds,
                memory_bytes=counters.memory_bytes,
                disk_bytes=self._disk_bytes,
                network_bytes=_network_bytes(self._init) if self._own_network else 0,
                # pids.current counts threads, too.
                processes=counters.pids,
                source="cgroup",
            )
        return self._from_processes()

    def _from_processes(self) -> Sample | None:
        import psutil

        try:
            root = psutil.Process(self._init)
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return None
        now: dict[tuple[int, float], float] = {}
        held: dict[int, int] = {}
        for process in tree:
            with contextlib.suppress(psutil.Error, OSError), process.oneshot():
                times = process.cpu_times()
                # A pid alone may be used again: the start time tells the two apart.
                now[process.pid, process.create_time()] = times.user + times.system
                held[process.pid] = _proportional(process.pid) or process.memory_info().rss
        self._ended_seconds += sum(
            seconds for key, seconds in self._seconds.items() if key not in now
        )
        self._seconds = now
        memory = sum(held.values())
        return Sample(
            cpu_seconds=self._ended_seconds + sum(now.values()),
            memory_bytes=memory,
            disk_bytes=self._disk_bytes,
            network_bytes=_network_bytes(self._init) if self._own_network else 0,
            processes=len(now),
            source="processes",
            largest=_identity(max(held, key=lambda pid: held[pid]))
            if memory > self._near_bytes
            else None,
        )


def _identity(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return Process(
                pid=pid,
                ppid=process.ppid(),
                exe=process.exe(),
                comm=process.name(),
                argv=tuple(process.cmdline()[:64]),
                cwd=process.cwd(),
            )
    except (psutil.Error, OSError):
        return None


def _proportional(pid: int) -> int:
    """Proportional set size in bytes (proc(5)): a shared page counts once over all that share it.

    0 if it cannot be read.
    """
    with contextlib.suppress(OSError):
        # Since 4.14: the sums of /proc/PID/smaps, without a line for each mapping.
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _network_bytes(init: int) -> int:
    """Bytes received on the links of the environment's network namespace: its loopback."""
    with contextlib.suppress(OSError):
        # proc_pid_net(5): two lines of headings, then the bytes received in the first column.
        # /proc/PID/net is that of the process's network namespace.
        rows = [
            line.split(":")[1].split()
            for line in Path(f"/proc/{init}/net/dev").read_text().splitlines()[2:]
        ]
        return sum(int(row[0]) for row in rows)
    return 0
