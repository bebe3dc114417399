"""A project's disk that is full when what a phase made comes back:
with an overlay, and with a copy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import OLDER_KERNEL
from support.tiers_harness import RUN_SECONDS

pytestmark = [
    pytest.mark.lower,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]
TEXT = """
[project]
name = "full"
[lifecycle.test]
command = "head -c 20000000 /dev/zero > large; echo x > small"
"""
# A small file system of the test's own as the project, and who runs the engine then.
MOUNTED = 'mount -t tmpfs -o size=4m full "$1" && cp "$2" "$1/make.toml" && cd "$1" && shift 2'
# An ordinary user makes it in a user namespace.
OWN_MOUNTS = ["unshare", "-m" if os.geteuid() == 0 else "-Urm"]
SELF = "unshare -U --map-user=1000 --map-group=1000" if os.geteuid() else ""


@pytest.mark.parametrize("names", ["", "namespaces"])
def test_a_phase_does_not_pass_whose_outcome_the_disk_does_not_take(tmp_path: Path, names: str):
    """CR-WORKSPACE-004, exit 5, with the file and the reason: whatever the workspace is made of."""
    for folder in ("project", "cache"):
        (tmp_path / folder).mkdir()
    (tmp_path / "make.toml").write_text(TEXT)
    without = [sys.executable, str(OLDER_KERNEL), names, "--"] if names else []
    command = [*SELF.split(), *without, sys.executable, "-m", "cleanroom", "pipeline", "test"]
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    script = f'{MOUNTED} && code=0; "$@" || code=$?; ls; exit $code'
    done = subprocess.run(
        [
            *OWN_MOUNTS,
            "sh",
            "-ec",
            script,
            "sh",
            tmp_path / "project",
            tmp_path / "make.toml",
            *command,
        ],
        env=os.environ | {"CLEANROOM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode, "PASSED" in said) == (5, False), said
    assert "CR-WORKSPACE-004" in said
    assert "large (No space left on device)" in said
    assert done.stdout.split()[-2:] == ["make.toml", "small"]
