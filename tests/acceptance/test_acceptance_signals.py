"""Signals that the caller ignores or holds back are the caller's:
a shell without job control, nohup, a supervisor.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.command_harness import Project
from support.container_harness import ENGINES, require
from support.paths import OLDER_KERNEL

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="environments need Linux"),
]

# All that a process can ignore or hold back.
IGNORE = """
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}: signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2, signal.SIGWINCH})"""  # noqa: E501
MASKS = "grep -E 'Sig(Ign|Blk):' /proc/self/status"
NONE = {"SigBlk:": 0, "SigIgn:": 0}
LIBRARY = 3 << 31  # 32 and 33 are the C library's own, which nobody can set through it


def masks(
    project: Project, *, backend: str = "embedded", starter: tuple[str, ...] = ()
) -> dict[str, int]:
    """What a phase finds held back and ignored, under a caller that ignores everything."""
    argv = [*starter, *project.argv("run", "test", "--backend", backend, before=IGNORE)]
    done = subprocess.run(
        argv, cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = (line.split() for line in (project.root / "found").read_text().splitlines())
    return {name: int(mask, 16) & ~LIBRARY for name, mask in found}


@pytest.mark.parametrize("level", ["Low", "Medium", "High"])
def test_a_phase_ignores_no_signal_of_its_caller(project: Project, level: str):
    """Nor holds one back: Ctrl-C inside means the same wherever the command was started from."""
    project.write({"test": f"{MASKS} > found"}, policy=f'"{level}"', outputs='["found"]')
    assert masks(project) == NONE


def test_a_phase_without_namespaces_ignores_none(project: Project):
    """In the tier below too."""
    project.write({"test": f"{MASKS} > found"}, outputs='["found"]')
    assert masks(project, starter=(sys.executable, str(OLDER_KERNEL), "namespaces", "--")) == NONE


@pytest.mark.parametrize("engine", ENGINES)
def test_a_phase_in_a_container_ignores_none(project: Project, engine: str):
    """Whose engine was started by somebody else."""
    require(engine)  # type: ignore[arg-type]
    project.write({"test": f"{MASKS} > found"}, outputs='["found"]', image='"cleanroom/base"')
    assert masks(project, backend=engine) == NONE
