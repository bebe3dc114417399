"""An ordinary user for tests that root runs: an account that nobody has,
and a Python that it may start.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

ORDINARY = 54321  # a uid that nobody has


def readable_python(libraries: str, who: dict[str, Any]) -> str:
    """An interpreter that another user may run, with these libraries."""
    for program in (sys.executable, "/usr/bin/python3"):
        variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": libraries}
        try:
            done = subprocess.run(
                [program, "-c", "import anyio, msgspec, psutil"],
                env=variables,
                cwd="/",
                capture_output=True,
                **who,
            )
        except PermissionError:
            continue
        if done.returncode == 0:
            return program
    pytest.skip(f"no interpreter that an ordinary user may run can import {libraries}")
