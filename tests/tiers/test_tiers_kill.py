"""Killed without warning, in environments without namespaces:
whoever of the run is killed, its processes and folders go.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import process_tree
from support.paths import OLDER_KERNEL
from support.tiers_harness import processes, wait_until

pytestmark = [
    pytest.mark.lower,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]


def _names(root: int) -> dict[str, int]:
    """The run's own processes below the engine, by the name that each has given itself."""
    found = {}
    for pid in process_tree.descendants(root):
        try:
            found.setdefault(Path(f"/proc/{pid}/comm").read_text().strip(), pid)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("victim", ["engine", "cleanroom-keep", "warden phase-1-", "init"])
def test_nothing_is_left_when_one_of_the_run_is_killed(project: Path, tmp_path: Path, victim: str):
    """A child that left its session and its parent ends too,
    and so do the folders outside the cache, at once or with the next run's sweep.
    """
    marker = f"tiers-kill-{os.getpid()}-{victim[:4]}"
    sleeper = f"setsid sh -c 'sleep 600 & wait' {marker} > /dev/null 2>&1 &"
    (project / "make.toml").write_text(
        f'[project]\nname = "k"\n[lifecycle.test]\ncommand = """{sleeper} sleep 600"""\n'
    )
    environment = os.environ | {"CLEANROOM_CACHE": str(tmp_path / "cache")}
    words = [
        sys.executable,
        str(OLDER_KERNEL),
        "namespaces",
        "--",
        sys.executable,
        "-m",
        "cleanroom",
        "pipeline",
        "test",
    ]
    with subprocess.Popen(
        words, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        assert wait_until(lambda: bool(processes(marker)), 60)
        own = _names(run.pid)
        warden = own["warden phase-1-"]
        target = {"engine": run.pid, "init": _first_child(warden)}.get(victim) or own[victim]
        os.kill(target, signal.SIGKILL)
        assert wait_until(lambda: not processes(marker)), process_tree.descendants(1)
        run.wait(30)
    subprocess.run(
        [sys.executable, "-m", "cleanroom", "sweep"],
        cwd=project,
        env=environment,
        check=True,
        capture_output=True,
    )
    runs = {folder.name for folder in (project / ".ggen/cleanroom/runs").iterdir()}
    assert [
        folder
        for run_id in runs
        for folder in (f"/tmp/cleanroom-{run_id}", f"/var/tmp/cleanroom-{run_id}")
        if os.path.lexists(folder)
    ] == []


def _first_child(pid: int) -> int:
    return next(child for child, parent in process_tree.parents().items() if parent == pid)
