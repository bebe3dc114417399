"""Canaries in a container: pid 1 there only makes calls, so attempts are judged on this side."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cleanroom.sandbox.selftest import canaries
from cleanroom.sandbox.selftest.canary import Canary, judge, result
from cleanroom.sandbox.shim import calls

if TYPE_CHECKING:
    from cleanroom.sandbox import protocol
    from cleanroom.sandbox.kernel import cgroups
    from cleanroom.sandbox.protocol import Limits


class CanaryScripts:
    """The scripts of one order's canaries, carried out one after the other."""

    def __init__(self, order: protocol.Prove) -> None:
        self.number = order["n"]
        self._expect = order["expect"]
        self._asked = canaries.asked(self._expect)
        if order["limits"]:
            self._asked = (*self._asked, calls.LIMIT)
        self._scripts = [
            (canary, script)
            for canary in self._asked
            for script in calls.scripts(self._expect, canary)
        ]
        self._results: list[list[calls.Told]] = []

    def next(self) -> calls.Script | None:
        """The script that pid 1 carries out next; None after the last one."""
        done = len(self._results)
        return self._scripts[done][1] if done < len(self._scripts) else None

    def add_result(self, result: list[calls.Told]) -> None:
        """The outcomes of the calls of that script."""
        self._results.append(result)

    def runs(self) -> list[protocol.CanaryRun]:
        """The canaries whose attempts are recorded."""
        return [self._run(canary) for canary in self._asked if canary is not calls.LIMIT]

    def limits(self) -> list[protocol.CanaryResult]:
        """The canary of limits, which nothing records."""
        runs = [self._run(canary) for canary in self._asked if canary is calls.LIMIT]
        return judge(runs, ())

    def _run(self, canary: Canary) -> protocol.CanaryRun:
        results = [
            (script, result)
            for (script_canary, script), result in zip(self._scripts, self._results, strict=True)
            if script_canary is canary
        ]
        return calls.judge(canary, self._expect, results)


def group_limits(group: cgroups.Group, limits: Limits) -> list[protocol.CanaryResult]:
    """Compare the limits in the container's control group with those that its engine was given.

    An engine accepts limits that it does not enforce: only the kernel's files count.
    """
    memory_file = "memory.limit_in_bytes" if group.version == 1 else "memory.max"
    rows = (
        ("resource.memory", "memory", memory_file, str(limits["memory_bytes"])),
        ("resource.pids", "pids", "pids.max", str(limits["pids"])),
    )
    results = []
    for rule, controller, name, expected in rows:
        found = "cannot be read"
        with contextlib.suppress(OSError, KeyError):
            found = (group.folders[controller] / name).read_text().strip()
        title = f"the container's own {controller} limit"
        results.append(result(title, rule, expected, found, found == expected))
    return results
