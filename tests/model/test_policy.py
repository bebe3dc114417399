"""What a level means, and that nothing else compares levels."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import cleanroom
from cleanroom.backends.base import EnvironmentSpec
from cleanroom.engine.phase_cache.keys import digest
from cleanroom.model.policy import Expected, Level, Policy, default_policy, lowest_first, required
from support.golden_files import golden

SOURCE = Path(cleanroom.__file__).parent
MEANINGS = {name for name, found in vars(Policy).items() if isinstance(found, property)}

# What each level gives beside what its rules forbid. A level that is not here gives nothing.
LOW = {"host_network", "host_root", "in_place", "inherits_variables"}
UP_TO_MEDIUM = {"allows_egress", "forgives_harmless", "keeps_home_cache", "returns_ignored"}
HELD: dict[Level, set[str]] = {
    Level.LOW: LOW | UP_TO_MEDIUM,
    Level.MEDIUM: UP_TO_MEDIUM | {"offline"},
    Level.HIGH: {"offline", "allowlist"},
    Level.LOCKED: {"offline", "allowlist"},
}


@pytest.mark.parametrize("level", Level)
def test_policy_a_level_means_what_the_table_says(level: Level) -> None:
    """Each property of a policy has the value that its level has always had."""
    policy = default_policy(level)
    assert {name for name in MEANINGS if getattr(policy, name)} == HELD[level]


def test_policy_with_a_declared_host_is_not_offline() -> None:
    """Egress opens the network of a level that has none, and nothing else of it."""
    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), egress=("example.org:443",))
    assert not policy.offline
    assert not policy.host_network


def test_policy_a_level_requires_what_every_lower_one_does() -> None:
    """Nothing is let go by asking for more."""
    for lower, higher in itertools.pairwise(Level):
        assert set(required(lower)) <= set(required(higher))
        assert higher.at_least(lower)
        assert not lower.at_least(higher)


def test_policy_levels_come_in_order_and_once() -> None:
    """The order is that of strictness, where texts would have High before Low."""
    assert lowest_first([Level.LOW, Level.HIGH, Level.LOW, Level.MEDIUM]) == tuple(Level)[:3]


@pytest.mark.parametrize("role", ["service", "prepare"])
@pytest.mark.parametrize("level", Level)
def test_policy_what_is_no_phase_has_nothing_of_its_level(level: Level, role: str) -> None:
    """A service is neither in the host's network nor kept to a list, whatever its project says."""
    policy = default_policy(level)
    spec = EnvironmentSpec(id="a", run_id="b", role=role, policy=policy, variables={})  # type: ignore[arg-type]
    assert not any((spec.host_network, spec.host_root, spec.in_place, spec.allowlist))


def test_policy_its_json_stays_as_logs_and_caches_have_it() -> None:
    """Audit logs have the digest of a policy's JSON, keys of skipped phases too:
    neither changes.
    """
    further = msgspec.structs.replace(
        default_policy(Level.MEDIUM),
        egress=("example.org:443",),
        expected=(Expected(target="/etc/motd", reason="known"),),
        listen=(8080,),
        reason="because",
    )
    policies = [*map(default_policy, Level), further]
    lines = [f"{digest(policy)} {msgspec.json.encode(policy).decode()}\n" for policy in policies]
    text = "".join(lines).encode()
    assert text == golden("policies.txt", text)


def compared(source: str) -> Iterator[str]:
    """Where a source compares a level with one that it names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            operands: list[ast.expr] = [node.left, *node.comparators]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "at_least"
        ):
            operands = node.args
        else:
            continue
        for part in itertools.chain.from_iterable(map(ast.walk, operands)):
            named = isinstance(part, ast.Attribute) and ast.unparse(part.value) == "Level"
            if named or (isinstance(part, ast.Constant) and part.value in tuple(Level)):
                yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "source",
    [
        "policy.level == Level.LOW",
        'spec["level"] != "Low"',
        "level in (Level.LOW, x)",
        "p.level.at_least(Level.HIGH)",
    ],
)
def test_policy_a_comparison_of_levels_is_found(source: str) -> None:
    """The test below would see each way to write one."""
    assert list(compared(source))


def test_policy_no_other_module_compares_levels() -> None:
    """What a level means is asked of the policy, so that a new level is added in one place."""
    modules = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "model/policy.py"]
    found = {str(path.relative_to(SOURCE)): list(compared(path.read_text())) for path in modules}
    assert {path: places for path, places in found.items() if places} == {}
