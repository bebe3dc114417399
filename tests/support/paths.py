"""Where things lie in this repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
SOURCE = ROOT / "src"
# run as a program: a command on what looks like an older kernel
OLDER_KERNEL = TESTS / "support" / "older_kernel.py"
