"""One canary: an attempt that the policy forbids, and the judgement of its outcome."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        AllowlistExpectations,
        Attempt,
        CanaryResult,
        CanaryRun,
        Expectations,
        HostNetworkExpectations,
        Target,
    )


class Canary(NamedTuple):
    """One attempt, which raises the refusal.

    `expected`: names of acceptable errnos; empty for a control, which must work.
    `target`: the target under which a record must appear; empty where nothing records the attempt.
    Reads, signals and abstract sockets fail without being held.
    """

    name: str
    rule: str
    expected: tuple[str, ...]
    attempt: Callable[[Expectations], None]
    target: Callable[[Expectations], Target] = lambda _: {}


class Unavailable(Exception):
    """The means of the attempt does not exist here: a refusal too, which nothing records."""


def allowlist(expect: Expectations) -> AllowlistExpectations:
    """The expectations of an environment with an allowlist, from level High on."""
    expected = expect["allowlist"]
    assert expected is not None, "its canaries are chosen with it only"
    return expected


def host_network(expect: Expectations) -> HostNetworkExpectations:
    """The expectations of an environment on the host's network, at level Low."""
    expected = expect["host_network"]
    assert expected is not None, "its canaries are chosen with it only"
    return expected


def verdict(canary: Canary, expect: Expectations, attempt: Callable[[], None]) -> CanaryRun:
    """The outcome of a canary by `attempt`, which raises the refusal."""
    # A filter around ours refuses the call before ours is asked, so nothing is recorded.
    hidden = canary.rule == "process.syscalls" and expect["outer_filter"]
    seen: Target = {} if hidden else canary.target(expect)
    found, passed = "it worked", not canary.expected
    try:
        attempt()
    except Unavailable as error:
        found, passed, seen = str(error), True, {}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        found, passed = f"{name}: {os.strerror(error.errno or 0)}", name in canary.expected
    except Exception as error:
        found, passed = f"{type(error).__name__}: {error}", False
    expected = " or ".join(canary.expected) or "works"
    return {**result(canary.name, canary.rule, expected, found, passed), "seen": seen}


def result(name: str, rule: str, expected: str, found: str, passed: bool) -> CanaryResult:
    """The result of one canary, in the shape of `capability.Canary`."""
    return {
        "name": name,
        "dimension": rule.partition(".")[0],
        "rule": rule,
        "expected": expected,
        "found": found,
        "result": "passed" if passed else "failed",
    }


def judge(runs: Sequence[CanaryRun], attempts: Sequence[Attempt]) -> list[CanaryResult]:
    """The results; a canary that was refused and not recorded has failed."""
    return [_judged(run, attempts) for run in runs]


def _judged(run: CanaryRun, attempts: Sequence[Attempt]) -> CanaryResult:
    found, passed = run["found"], run["result"] == "passed"
    if passed and run["seen"] and not any(_matches(run, attempt) for attempt in attempts):
        passed, found = False, f"{found}; refused, but not recorded"
    return result(run["name"], run["rule"], run["expected"], found, passed)


def _matches(run: CanaryRun, attempt: Attempt) -> bool:
    seen, target = run["seen"], attempt["target"]
    return attempt["rule"] == run["rule"] and seen.items() <= target.items()
