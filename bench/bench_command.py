"""What does the command itself cost?

Workload: `--help` in turn with a bare interpreter that does nothing,
and `pipeline` on a project whose one phase is `true`, hermetic at policy Medium,
without services, from start to exit.
Bytecode is cached, as for users.
Unit: milliseconds.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.doors import ENGINE, caller, pipeline, timed
from bench.figures import Figure, compared

HELP_OVER_BARE_MILLISECONDS, EMPTY_MILLISECONDS = 60.0, 300.0
PROJECT = '[project]\nname = "empty"\n\n[lifecycle.empty]\ncommand = "true"\n'


def measure(small: bool) -> list[Figure]:
    helps, empties = (1, 1) if small else (15, 6)
    with tempfile.TemporaryDirectory(prefix="bench-command-") as name:
        folder, cache = Path(name, "project"), Path(name, "cache")
        folder.mkdir()
        (folder / "make.toml").write_text(PROJECT)
        variables = caller(cache)
        nothing, asked = (sys.executable, "-P", "-c", "pass"), (*ENGINE, "--help")
        timed(asked, folder, variables)  # writes the bytecode
        pairs = [
            (timed(nothing, folder, variables)[0], timed(asked, folder, variables)[0])
            for _ in range(helps)
        ]
        pipeline(folder, ["empty"], cache)
        runs = [pipeline(folder, ["empty"], cache) for _ in range(empties)]
    return [
        *compared(
            "command",
            "`--help`",
            "bare interpreter",
            pairs,
            difference_at_most=HELP_OVER_BARE_MILLISECONDS,
        ),
        Figure(
            benchmark="command",
            name="an empty pipeline",
            unit="ms",
            values=tuple(1000 * s for s, _ in runs),
            at_most=EMPTY_MILLISECONDS,
        ),
        Figure(
            benchmark="command",
            name="of which within the run",
            unit="ms",
            values=tuple(1000 * r["duration_seconds"] for _, r in runs),
        ),
    ]
