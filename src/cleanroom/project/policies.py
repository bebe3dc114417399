"""What a phase may do: its settings, the command line and the organisation's floor made into one
policy.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cleanroom.model.errors import PolicyRefused
from cleanroom.model.policy import (
    LIMITS,
    REACTIONS,
    Expected,
    Level,
    Limits,
    Policy,
    Reaction,
    default_policy,
)
from cleanroom.project import units
from cleanroom.project.keys import SettingKeys
from cleanroom.project.settings import Layer
from cleanroom.project.source import Node

DEFAULT_LEVEL = Level.MEDIUM

# Key of cleanroom.limits -> field of Limits.
_LIMIT_FIELDS = {
    "memory": "memory_bytes",
    "cpus": "cpus",
    "pids": "pids",
    "disk": "disk_bytes",
    "tmpfs": "tmpfs_bytes",
    "open_files": "open_files",
    "output": "output_bytes",
    "wall": "wall_seconds",
    "grace": "grace_seconds",
}
_STRICTNESS: tuple[Reaction, ...] = ("warn", "fail", "end")


def level_of(layer: Layer, requested: Level | None, allowed: Sequence[str], subject: str) -> Level:
    """The level, the command line's before the file's.

    Raises:
        PolicyRefused: the command line asks for less than the file, and not both allow that.
    """
    filed = layer.settings.policy or DEFAULT_LEVEL
    if requested is None or requested.at_least(filed) or "policy" in allowed:
        return requested or filed
    node = layer.nodes.get("policy")
    where = str(node.origin) if node else ""
    raise PolicyRefused(
        "CR-POLICY-001",
        (
            f"{node.key if node else subject}: expected at least {filed}, the file's level, "
            f"found {requested} on the command line"
        ),
        hint=(
            'write allow_degraded = ["policy"] under [cleanroom] and say --allow-degraded '
            "policy, or leave out --policy"
        ),
        where=where,
    )


def policy_of(layer: Layer, level: Level) -> Policy:
    """The policy at `level` with all that the settings add.

    Raises:
        ProjectError: a limit or reaction is laxer than the level's without a reason,
            or hosts are named where no network may be.
        PolicyRefused: the command line raised the level above what the named hosts allow.
    """
    settings, default = layer.settings, default_policy(level)
    if settings.egress and not default.allows_egress:
        _refuse_egress(layer, level)
    entries = settings.egress or ()
    private = tuple(dict.fromkeys(entry.name for entry in entries if entry.private))
    return msgspec.structs.replace(
        default,
        limits=_limits(layer, level),
        reaction=_reaction(layer, level),
        egress=tuple(dict.fromkeys(entry.name for entry in entries)),
        private_egress=private or msgspec.UNSET,
        expected=tuple(
            Expected(target=entry.target, reason=entry.reason) for entry in settings.expected or ()
        ),
        listen=settings.listen or (),
        tmp_exec=_tmp_exec(layer, level),
        reason=settings.reason or "",
    )


def timeout_of(settings: SettingKeys, limits: Limits) -> float:
    """When a phase is ended: its own timeout, else the wall time that it may take."""
    return settings.timeout or limits.wall_seconds


def _refuse_egress(layer: Layer, level: Level) -> None:
    node, hosts = layer.nodes["egress"], _names(layer)
    message, hint = (
        f"expected no hosts at {level}, found {hosts}",
        "remove the hosts, or run the phase at Medium",
    )
    if (layer.settings.policy or DEFAULT_LEVEL) == level:
        raise node.error("CR-PROJECT-014", message, hint=hint)
    raise node.error("CR-POLICY-003", message, hint=hint, kind=PolicyRefused)


def _names(layer: Layer) -> str:
    return ", ".join(entry.name for entry in layer.settings.egress or ())


def _limits(layer: Layer, level: Level) -> Limits:
    default, requested = LIMITS[level], layer.settings.limits
    given = {
        field: value
        for key, field in _LIMIT_FIELDS.items()
        if (value := getattr(requested, key, None)) is not None
    }
    for key, field in _LIMIT_FIELDS.items():
        # 0 is the default of no bound: nothing lies above it.
        if field in given and given[field] > getattr(default, field) > 0:
            bound = units.written(field, getattr(default, field))
            _need_reason(layer, "limits", key, f"at most {bound}, the bound of {level},")
    timeout = layer.settings.timeout
    if timeout and timeout > given.get("wall_seconds", default.wall_seconds):
        _need_reason(
            layer, "timeout", "", f"at most {default.wall_seconds:g} s, the wall time of {level},"
        )
        given["wall_seconds"] = timeout
    return msgspec.structs.replace(default, **given)


def _need_reason(layer: Layer, name: str, key: str, bound: str) -> None:
    if layer.settings.reason:
        return
    node = layer.nodes[name]
    if key and isinstance(node.value, dict) and key in node.value:
        node = node.child(key)
    raise _laxer(node, bound)


def _laxer(node: Node, bound: str) -> Exception:
    shown = node.value if not isinstance(node.value, dict) else "more"
    return node.error(
        "CR-PROJECT-015",
        f"expected {bound} or a reason, found {shown!r} without one",
        hint='add cleanroom.reason = "WHY"',
    )


def _reaction(layer: Layer, level: Level) -> Reaction:
    default = REACTIONS[level]
    requested = layer.settings.on_violation or default
    if _STRICTNESS.index(requested) < _STRICTNESS.index(default) and not layer.settings.reason:
        raise _laxer(
            layer.nodes["on_violation"], f"{default}, the reaction of {level}, a stricter one"
        )
    return requested


def _tmp_exec(layer: Layer, level: Level) -> bool:
    default = default_policy(level).tmp_exec
    requested = layer.settings.tmp_exec
    if requested is None and layer.settings.builds:
        # Tools such as `go test` build there what they start.
        return True
    if requested and not default and not layer.settings.reason:
        raise _laxer(layer.nodes["tmp_exec"], f"false at {level}")
    return default if requested is None else requested
