"""What the probe finds here, and which rules a missing primitive costs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.capability import CapabilityReport, DimensionReport, Missing, unmet
from cleanroom.policy import CONTROLS, Level, required
from cleanroom.sandbox import probe
from cleanroom.sandbox.probe import Primitive

NEEDED = tuple(probe._HOLDS)


def primitives(*missing: str) -> dict[str, Primitive]:
    names = (*NEEDED, "kernel", "tun", "sync_wake_up", "idmapped_mounts", "mount_setattr")
    return {name: Primitive(name not in missing, "ABI 7" if name == "landlock" else "ok") for name in names}


def as_report(missing: list[dict[str, str]]) -> CapabilityReport:
    rows = tuple(msgspec.convert(row, Missing) for row in missing)
    levels = {level: tuple(msgspec.convert(row, Missing) for row in found) for level, found in probe._LEVELS_LATER.items()}
    return CapabilityReport(backend="embedded", tier="", dimensions=(), missing=rows, levels=levels)


@pytest.mark.parametrize("is_root", [True, False])
def test_with_everything_medium_and_high_are_held(is_root: bool):
    """Medium and High lack nothing; Low and Locked each lack something that is named."""
    name, missing = probe.tier(primitives(), is_root)
    report = as_report(missing)
    assert name == "E2"
    assert {level for level in Level if not unmet(report, level)} == {Level.MEDIUM, Level.HIGH}


@settings(deadline=None)
@given(missing=st.sets(st.sampled_from(NEEDED)), is_root=st.booleans())
def test_medium_is_refused_exactly_when_a_needed_primitive_is_missing(missing: set[str], is_root: bool):
    """No set of primitives loses a needed one and keeps the level."""
    name, rows = probe.tier(primitives(*missing), is_root)
    assert bool(unmet(as_report(rows), Level.MEDIUM)) == bool(missing)
    assert name == ("E4" if "landlock" in missing else "E3" if missing else "E2")
    assert {row["rule"] for row in rows} <= {control.rule for control in CONTROLS}
    assert all(row["why"] and row["hint"] for row in rows)


@settings(deadline=None)
@given(missing=st.sets(st.sampled_from(NEEDED)), more=st.sets(st.sampled_from(NEEDED)), is_root=st.booleans())
def test_less_never_holds_more(missing: set[str], more: set[str], is_root: bool):
    """Taking primitives away takes no rule off the list."""
    few = {row["rule"] for row in probe.tier(primitives(*missing), is_root)[1]}
    many = {row["rule"] for row in probe.tier(primitives(*missing, *more), is_root)[1]}
    assert few <= many


def test_without_user_namespaces_an_ordinary_user_holds_nothing():
    """Every other namespace is made inside it, and AppArmor's part is named with what helps."""
    found = primitives("user_namespace") | {"user_namespace": Primitive(False, "Operation not permitted; AppArmor keeps them")}
    rows = {row["rule"]: row for row in probe.tier(found, is_root=False)[1]}
    assert {"network.egress", "filesystem.workspace", "process.tree"} <= set(rows)
    assert "apparmor" in rows["network.egress"]["hint"]


@pytest.mark.parametrize(
    ("gone", "lost"), [("landlock", "process.exec"), ("seccomp_notify", "network.listen"), ("mount_namespace", "filesystem.reads")]
)
def test_high_is_refused_by_the_name_of_its_own_rule(gone: str, lost: str):
    """What holds a rule of High alone is named for that rule, with what would help."""
    rows = {missing.rule: missing for missing in unmet(as_report(probe.tier(primitives(gone), is_root=True)[1]), Level.HIGH)}
    assert rows[lost].hint


def test_every_rule_but_resources_names_its_mechanism():
    """The report says by what each rule is held; limits are the groups' to say."""
    assert set(probe._MECHANISMS) == {control.rule for control in required(Level.HIGH) if control.dimension != "resource"}


@pytest.mark.sandbox
def test_the_probe_finds_this_machine_and_leaves_nothing(tmp_path: Path):
    """It has the shape of a capability report, and the scratch folder is empty afterwards."""
    found = probe.report(str(tmp_path))
    assert os.listdir(tmp_path) == []
    for row in found["dimensions"]:
        msgspec.convert(row, DimensionReport)
    assert [row["dimension"] for row in found["dimensions"]] == ["network", "filesystem", "process", "resource"]
    assert found["tier"] in ("E2", "E3", "E4")
