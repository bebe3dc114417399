"""What does an environment cost, and what does a command in it?

Workload: in turn a bare `sh -c true`, and the same in an environment of the embedded backend at
policy Medium with a workspace: once with the environment's whole life around it (open, run,
leave; its three parts are given too), once in an environment that is open already.
The embedded backend is entered once, as in a run.
Unit: milliseconds, and the ratio of neighbours.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import anyio

from bench.doors import Sandbox, bare, inside, sandbox
from bench.figures import Figure, compared

OVER_BARE_MILLISECONDS = 10.0
BARE = "bare `sh -c true`"


def measure(small: bool) -> list[Figure]:
    return anyio.run(_measure, *((1, 2) if small else (25, 100)))


async def _measure(starts: int, commands: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-sandbox-") as name:
        folder = Path(name)
        async with sandbox(folder) as cage:
            await _life(cage)  # the first one looks at the host
            parts = [(bare(folder, "true"), *await _life(cage)) for _ in range(starts)]
            async with cage.stack(), cage.environment() as environment:
                await inside(environment, "true")
                pairs = [
                    (bare(folder, "true"), await inside(environment, "true"))
                    for _ in range(commands)
                ]
    lives = [(here, sum(there)) for here, *there in parts]
    whole = compared(
        "sandbox",
        "an environment's life around `true`",
        f"{BARE}, beside a life",
        lives,
        difference_at_most=OVER_BARE_MILLISECONDS,
    )
    split = [
        Figure(
            benchmark="sandbox",
            name=f"of which {part}",
            unit="ms",
            values=tuple(1000 * row[column] for row in parts),
        )
        for column, part in enumerate(("open", "run `true`", "leave"), 1)
    ]
    open_already = compared(
        "sandbox",
        "`true` in an open one",
        f"{BARE}, beside a command",
        pairs,
        difference_at_most=OVER_BARE_MILLISECONDS,
    )
    return [*whole, *split, *open_already]


async def _life(cage: Sandbox) -> tuple[float, float, float]:
    """Seconds to open an environment, to run `true` in it, to leave it."""
    async with cage.stack():
        began = time.perf_counter()
        async with cage.environment() as environment:
            opened = time.perf_counter()
            seconds = await inside(environment, "true")
            ran = time.perf_counter()
        return opened - began, seconds, time.perf_counter() - ran
