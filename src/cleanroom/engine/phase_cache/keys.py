"""Keys of phases, and which phases are skipped together.

Pure functions over values.

A phase's result depends on parts: name -> digest, such as `input src/a.py` or `commands`.
Its key is the digest of all of them, so that a key is the claim "with exactly these parts".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from cleanroom.engine.phases.skipping import Parts
from cleanroom.model.plan import PhaseRun, Plan

# Rewritten by every run of the tools that they belong to, and made anew where they are missing:
# neither inputs nor outputs.
TOOL_CACHES = ("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
# the repository's folder and the engine's: neither inputs nor outputs
RESERVED = (".git", ".ggen")
DIFFERENCES_SHOWN = 3  # of many differences, a sentence names so many


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache has of a phase that passed.

    An index only: the evidence of the run that it names has to confirm it.
    """

    schema: str = "cleanroom.cache/1"
    phase: str
    workspace: str
    run_id: str
    parts: dict[str, str]
    outputs: dict[str, str]  # path -> digest

    @property
    def key(self) -> str:
        return cache_key(self.parts)


def cache_key(parts: Parts) -> str:
    """One SHA-256 in hex of all parts, whatever their order."""
    return hashlib.sha256(msgspec.json.encode(sorted(parts.items()))).hexdigest()


def digest(value: object) -> str:
    """SHA-256 in hex of any value that msgspec encodes."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def difference(before: Parts, now: Parts) -> str:
    """What changed, as text: the names of a few parts; empty where nothing did."""
    changes = [
        f"{name} changed"
        for name in sorted(before.keys() & now.keys())
        if before[name] != now[name]
    ]
    changes += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    changes += [f"{name} is gone" for name in sorted(before.keys() - now.keys())]
    hidden = len(changes) - DIFFERENCES_SHOWN
    more = f" and {hidden} more" if hidden > 0 else ""
    return ", ".join(changes[:DIFFERENCES_SHOWN]) + more


def reason_never_skipped(plan: Plan, phase: PhaseRun, *, services_outlive_run: bool = False) -> str:
    """Why this phase is never skipped, whatever is in the cache; empty where it may be.

    `services_outlive_run`: they may belong to a session or a pool.
    """
    if not phase.hermetic:
        return "it runs on the host"
    if phase.policy.egress:
        return "it has egress"
    if phase.policy.host_network:
        return f"at {phase.policy.level.value} its network is open"
    if plan.allow_degraded:
        return "the run may be degraded"
    if plan.backend in ("docker", "podman"):
        return "what its image holds is not compared"
    if plan.parallel and len(plan.workspaces) > 1 and phase.services:
        return "workspaces run at once and share its services"
    if services_outlive_run and phase.services:
        return "its services outlive the run, and other runs write into them"
    return ""


def skip_groups(phases: Sequence[PhaseRun]) -> list[range]:
    """Groups of phases that are skipped together or not at all, in order and without gaps.

    What a phase writes into a service stays there until the run ends.
    So from the first to the last phase that uses a service, none may run without those before it,
    and a phase between them may not change their inputs.
    A phase without services is a group of its own, unless it lies between such phases.
    """
    users: dict[str, list[int]] = {}
    for position, phase in enumerate(phases):
        for service in phase.services:
            users.setdefault(service, []).append(position)
    groups: list[range] = []
    end = -1
    for position in range(len(phases)):
        lasts = [positions[-1] for positions in users.values() if positions[0] == position]
        if position > end:
            groups.append(range(position, position + 1))
            end = position
        if lasts:
            end = max(end, *lasts)
        groups[-1] = range(groups[-1].start, end + 1)
    return groups
