"""The bus benchmark does not rot."""

from __future__ import annotations

import json
import subprocess
import sys

from support.paths import ROOT

BENCH = ROOT / "bench" / "bench_bus.py"


def test_the_bus_benchmark_loses_nothing(tmp_path):
    """At its smallest size it runs, its audit log verifies, and it prints one JSON object."""
    done = subprocess.run(
        [sys.executable, str(BENCH), "--small", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["checksum"] == "2003 records, valid"
