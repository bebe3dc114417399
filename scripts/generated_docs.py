"""Documents that the code writes: `--write` makes them, `--check` fails with the name of each that differs.

What they say is what the code says, so nobody edits them by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cleanroom import events
from cleanroom.policy import CONTROLS, LIMITS, REACTIONS, Level

ROOT = Path(__file__).resolve().parent.parent
GIB, MIB = 1 << 30, 1 << 20


def module(name: str) -> str:
    """What a module prints that writes its own reference."""
    return subprocess.run([sys.executable, "-m", name], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def size(count: int) -> str:
    return f"{count // GIB} GiB" if count % GIB == 0 else f"{count // MIB} MiB"


def policy() -> str:
    """The four levels: rules, limits, reactions."""
    head = "| | " + " | ".join(level.value for level in Level) + " |\n| --- |" + " --- |" * len(Level) + "\n"
    rules = "".join(
        f"| `{control.rule}`: {control.title} | "
        + " | ".join("yes" if control.since.rank <= level.rank else "" for level in Level)
        + " |\n"
        for control in CONTROLS
    )
    shown: dict[str, Callable[[Level], str]] = {
        "memory, swap included": lambda level: size(LIMITS[level].memory_bytes),
        "processors": lambda level: f"{LIMITS[level].cpus:g}" if LIMITS[level].cpus else "all",
        "processes": lambda level: str(LIMITS[level].pids),
        "disk, and one file": lambda level: size(LIMITS[level].disk_bytes),
        "/tmp, home and /dev/shm, each": lambda level: size(LIMITS[level].tmpfs_bytes),
        "open files": lambda level: str(LIMITS[level].open_files),
        "output kept": lambda level: size(LIMITS[level].output_bytes),
        "wall time": lambda level: f"{LIMITS[level].wall_seconds / 60:g} min",
        "grace after SIGTERM": lambda level: f"{LIMITS[level].grace_seconds:g} s",
        "a violation": lambda level: {"warn": "is warned of", "fail": "fails its phase at its end", "end": "ends its phase at once"}[
            REACTIONS[level]
        ],
    }
    limits = "".join(f"| {name} | " + " | ".join(value(level) for level in Level) + " |\n" for name, value in shown.items())
    return f"""# Policy levels

Each level contains the one before it. What a level requires is proven by canaries in every environment of every run; a rule that this machine cannot
hold refuses the run (exit 3) and names what would help. `cleanroom-engine doctor` tells which levels can be held here: this version
holds Low, Medium and High; Locked is refused by name.

## Rules

{head}{rules}
## Limits

Downwards freely (`cleanroom.limits`), upwards only with a written `cleanroom.reason`. What a phase writes in its home's `.cache` ([cache.md](cache.md)) counts as disk.

{head}{limits}
The limit of a core file is one byte, soft and hard, at every level: no core file is written, and a crash starts no handler that the host's `core_pattern` pipes it to, which a limit of 0
would. It cannot be changed inside; asking for less succeeds. What remains: where the pattern names a socket (`@/path`, since Linux 6.16) the kernel connects to it whatever the limit.

## Letting a rule go

`allow_degraded = ["RULE"]` in the file and `--allow-degraded RULE` on the command line together let a rule go. The first and last line and every report
then say DEGRADED. Neither alone does anything.
"""


def faults() -> str:
    """The table of the tests' own rows. Not carried out here: the tests do that."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests", "scripts"))}
    argv = [sys.executable, "-B", str(ROOT / "tests/faults/fault_table.py")]
    return subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, env=variables).stdout


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/make-toml.md": lambda: module("cleanroom.project.keys"),
    "docs/commands.md": lambda: module("cleanroom.cli.reference"),
    "data/share/man/man1/cleanroom-engine.1": lambda: module("cleanroom.cli.manual"),
    "docs/events.schema.json": lambda: json.dumps(events.schema(), indent=2, sort_keys=True) + "\n",
    "docs/policy.md": policy,
    "docs/faults.md": faults,
}


def main() -> int:
    if sys.argv[1:] not in (["--check"], ["--write"]):
        print("usage: generated_docs.py --check | --write")
        return 2
    differing = [name for name, make in DOCUMENTS.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != make()]
    for name in differing:
        if sys.argv[1] == "--write":
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(DOCUMENTS[name]())
        print(
            f"{name}: {'written' if sys.argv[1] == '--write' else 'is not what the code says; run `python scripts/generated_docs.py --write`'}"
        )
    return int(bool(differing) and sys.argv[1] == "--check")


if __name__ == "__main__":
    sys.exit(main())
