"""The report of what this machine can hold: tier, dimensions, missing rules.

`report` tries the primitives; `tier` and `dimensions` are pure functions of the outcome.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.selftest import probe_hostns
from cleanroom.sandbox.selftest.primitives import RULES, Primitive, try_primitives

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Dimension, MissingRule, Mode, ProbeReport

_HINTS = {
    "user_namespace": (
        "allow user namespaces to ordinary users (sysctl kernel.unprivileged_userns_clone=1, "
        "user.max_user_namespaces > 0), or run as root"
    ),
    "mount_namespace": (
        "allow mount namespaces; inside a container run it with the right to make namespaces"
    ),
    "network_namespace": (
        "allow network namespaces; inside a container run it with the right to make namespaces"
    ),
    "pid_namespace": (
        "allow pid namespaces; inside a container run it with the right to make namespaces"
    ),
    "overlay": (
        "use Linux 5.11 or later, and a cache folder on ext4, xfs, btrfs or tmpfs rather than on "
        "an overlay itself"
    ),
    "idmapped_mounts": (
        "use Linux 5.19 or later and a file system that knows id maps, or run as an ordinary user"
    ),
    "mount_setattr": "use Linux 5.12 or later",
    "pidfd": "use Linux 5.3 or later",
    "openat2": "use Linux 5.6 or later; inside a container allow the openat2 call",
    "landlock": "use Linux 5.13 or later with landlock in the lsm= boot parameter",
    "seccomp_notify": "use Linux 5.5 or later; inside a container allow the seccomp call",
}
_APPARMOR_HINT = (
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0, an AppArmor profile with `userns,` "
    "for the interpreter, or run as root"
)

# Rules of High alone, which do not count for a dimension at Medium.
_ALLOWLIST_RULES = ("filesystem.reads", "network.listen", "process.exec")

_DIMENSIONS = (
    (
        "network",
        "empty network namespace, held calls, name answerer, relays",
        ("network_namespace", "seccomp_notify"),
    ),
    (
        "filesystem",
        "mount namespace, overlay, Landlock, held calls",
        ("mount_namespace", "overlay", "landlock", "seccomp_notify"),
    ),
    (
        "process",
        "pid and user namespace, no capabilities, seccomp",
        ("pid_namespace", "user_namespace", "seccomp_notify"),
    ),
)

# Not there yet on any machine.
_LEVELS_LATER: dict[str, list[MissingRule]] = {
    "Locked": [
        {
            "rule": "filesystem.pinned",
            "why": "a root pinned by digest is not there yet",
            "hint": "use High",
        },
        {
            "rule": "process.calls",
            "why": "a list of allowed system calls is not there yet",
            "hint": "use High",
        },
    ],
}

_MECHANISMS = {
    "filesystem.write": "read-only mounts, Landlock; held calls attribute",
    "filesystem.metadata": "read-only mounts; held calls attribute",
    "filesystem.secrets": "a root of its own in a mount namespace: what is not listed is not there",
    "filesystem.workspace": "overlay",
    "filesystem.reads": "a root of its own in a mount namespace; held calls attribute",
    **dict.fromkeys(
        ("network.local", "network.publish", "network.runtimes"),
        "held calls, done on the caller's behalf; an empty network from Medium on",
    ),
    "network.record": "held calls",
    "network.egress": "empty network namespace; held calls attribute; relays to what is declared",
    "network.names": "name answerer inside the network namespace",
    "network.families": "seccomp",
    "network.listen": "held calls, done on the caller's behalf",
    "network.sockets": "mount namespace, Landlock scope; held calls attribute",
    "process.tree": "pid namespace, parent death signal",
    "process.visibility": "pid namespace, Landlock scope",
    "process.privileges": "user namespace, no capabilities, no new privileges",
    "process.syscalls": "seccomp",
    "process.exec": "Landlock, mounts without exec; held calls attribute",
}


class Tier(NamedTuple):
    """A tier, its mode, and the rules that cannot be held, each with its reason and a hint."""

    name: str
    mode: Mode
    missing: list[MissingRule]


def report(folder: str) -> ProbeReport:
    """Tier, dimensions, missing rules, levels and mechanisms in the shape of
    capability.CapabilityReport; `folder` is one that is not there, beside where layers will lie.

    The row of resources assumes no cgroups; a backend that can make groups replaces it.
    `mode` and `landlock` are for the backend.
    """
    found = try_primitives(folder)
    name, mode, missing = tier(found, os.geteuid() == 0)
    lacking = {row["rule"] for row in missing}
    mechanisms, levels = (
        (probe_hostns.MECHANISMS, probe_hostns.LEVELS)
        if mode == "bare"
        else (_MECHANISMS, _LEVELS_LATER)
    )
    return {
        "tier": name,
        "mode": mode,
        "landlock": found["landlock"].works,
        "outer_filter": mode == "bare" and not found["first_filter"].works,
        "dimensions": dimensions(found, lacking, mode),
        "missing": missing,
        "levels": levels,
        "mechanisms": {
            rule: mechanism for rule, mechanism in mechanisms.items() if rule not in lacking
        },
        "notes": [f"{key}: {value.detail}" for key, value in found.items() if not value.works],
    }


def tier(primitives: Mapping[str, Primitive], is_root: bool) -> Tier:
    """The tier of `docs/isolation.md`.

    Where namespaces do not hold Medium, Landlock and held calls alone may.
    """
    needs = dict(RULES)
    if is_root:
        # An id map makes a root-owned project the environment's own.
        needs["idmapped_mounts"] = ("filesystem.workspace",)
    else:
        # Everything else is made inside it.
        needs["user_namespace"] = tuple(
            dict.fromkeys(rule for rules in RULES.values() for rule in rules)
        )
    full = _missing(primitives, needs)
    if not _weight(full)[0]:
        return Tier("E2" if not full else "E3", "namespaces", full)
    # Of High alone, and held by namespaces.
    listed: list[MissingRule] = [
        {**row, "rule": rule} for row in full[:1] for rule in _ALLOWLIST_RULES
    ]
    lacking = [*_missing(primitives, probe_hostns.needs(is_root)), *listed]
    bare = sorted(lacking, key=lambda row: row["rule"])
    is_better = _weight(bare) < _weight(full)
    mode: Mode = "bare" if is_better else "namespaces"
    missing = bare if is_better else full
    if not primitives["landlock"].works:
        return Tier("E4", mode, missing)
    return Tier("E3", mode, missing)


def _missing(
    primitives: Mapping[str, Primitive], needs: Mapping[str, tuple[str, ...]]
) -> list[MissingRule]:
    """The rules that need a primitive that does not work."""
    missing: dict[str, MissingRule] = {}
    for primitive, rules in needs.items():
        if primitives[primitive].works:
            continue
        for rule in rules:
            missing.setdefault(
                rule,
                {
                    "rule": rule,
                    "why": f"{_words(primitive)}: {primitives[primitive].detail}",
                    "hint": _hint(primitive, primitives),
                },
            )
    return sorted(missing.values(), key=lambda row: row["rule"])


def _weight(missing: Sequence[MissingRule]) -> tuple[int, int]:
    """Sort key: the number of rules that Medium lacks, then of those that High lacks."""
    listed = sum(row["rule"] in _ALLOWLIST_RULES for row in missing)
    return len(missing) - listed, listed


def dimensions(
    primitives: Mapping[str, Primitive], lacking: set[str], mode: Mode = "namespaces"
) -> list[Dimension]:
    """One row per dimension in the shape of capability.DimensionReport."""
    works = {
        dimension: not any(
            rule.startswith(f"{dimension}.") for rule in lacking - set(_ALLOWLIST_RULES)
        )
        for dimension in ("network", "filesystem", "process")
    }
    sees = primitives["seccomp_notify"].works
    # Where there is a filter around ours, it answers some calls before ours is asked.
    first = mode != "bare" or primitives["first_filter"].works
    rows: list[Dimension] = []
    for dimension, mechanism, evidence in (
        probe_hostns.DIMENSIONS if mode == "bare" else _DIMENSIONS
    ):
        seen = "yes" if sees else "no"
        if sees and dimension == "process" and not first:
            seen = "partial"
        rows.append(
            {
                "dimension": dimension,
                "enforced": "yes" if works[dimension] else "no",
                "detected": seen,
                "attributed": seen,
                "mechanism": mechanism,
                "completeness": "exact" if sees else "unknown",
                "evidence": "; ".join(
                    f"{_words(name)}: {primitives[name].detail}" for name in evidence
                ),
            }
        )
    rows.append(
        {
            "dimension": "resource",
            "enforced": "partial",
            "detected": "partial",
            "attributed": "partial",
            "mechanism": "rlimits, samples",
            "evidence": f"kernel {primitives['kernel'].detail}",
            "completeness": "lossy",
        }
    )
    return rows


def _words(primitive: str) -> str:
    return "Landlock" if primitive == "landlock" else primitive.replace("_", " ")


def _hint(primitive: str, primitives: Mapping[str, Primitive]) -> str:
    return (
        _APPARMOR_HINT
        if primitive == "user_namespace" and "AppArmor" in primitives[primitive].detail
        else (_HINTS | probe_hostns.HINTS)[primitive]
    )
