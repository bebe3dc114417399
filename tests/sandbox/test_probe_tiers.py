"""What the probe finds here, and which rules a missing primitive costs."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.model.capability import CapabilityReport, DimensionReport, Missing, unmet
from cleanroom.model.policy import CONTROLS, Level, required
from cleanroom.sandbox.selftest import probe, probe_hostns
from cleanroom.sandbox.selftest.primitives import RULES, Primitive

NEEDED = tuple(RULES)
BARE = tuple(probe_hostns.HOLDS)  # what environments without namespaces need


def primitives(*missing: str) -> dict[str, Primitive]:
    names = (
        *NEEDED,
        *BARE,
        "own_user",
        "first_filter",
        "kernel",
        "tun",
        "sync_wake_up",
        "idmapped_mounts",
        "mount_setattr",
    )
    return {
        name: Primitive(name not in missing, "ABI 7" if name == "landlock" else "ok")
        for name in names
    }


def as_report(missing: list[dict[str, str]]) -> CapabilityReport:
    rows = tuple(msgspec.convert(row, Missing) for row in missing)
    levels = {
        level: tuple(msgspec.convert(row, Missing) for row in found)
        for level, found in probe._LEVELS_LATER.items()
    }
    return CapabilityReport(backend="embedded", tier="", dimensions=(), missing=rows, levels=levels)


@pytest.mark.parametrize("is_root", [True, False])
def test_with_everything_all_levels_but_locked_are_held(is_root: bool):
    """Low, Medium and High lack nothing; Locked lacks something that is named."""
    name, mode, missing = probe.tier(primitives(), is_root)
    report = as_report(missing)
    assert (name, mode) == ("E2", "namespaces")
    assert {level for level in Level if not unmet(report, level)} == {
        Level.LOW,
        Level.MEDIUM,
        Level.HIGH,
    }


ANY = tuple(sorted({*NEEDED, *BARE}))


@settings(deadline=None)
@given(missing=st.sets(st.sampled_from(ANY)), is_root=st.booleans())
def test_medium_is_refused_exactly_when_neither_way_has_all_it_needs(
    missing: set[str], is_root: bool
):
    """No set of primitives loses one that both ways need and keeps the level,
    and none that leaves one way whole loses it.
    """
    name, mode, rows = probe.tier(primitives(*missing), is_root)
    whole, bare = not missing & set(NEEDED), not missing & set(BARE)
    assert bool(unmet(as_report(rows), Level.MEDIUM)) == (not whole and not bare)
    assert mode == "namespaces" or not whole
    assert name == ("E2" if whole else "E4" if "landlock" in missing else "E3")
    assert {row["rule"] for row in rows} <= {control.rule for control in CONTROLS}
    assert all(row["why"] and row["hint"] for row in rows)


@settings(deadline=None)
@given(
    missing=st.sets(st.sampled_from(ANY)), more=st.sets(st.sampled_from(ANY)), is_root=st.booleans()
)
def test_less_never_holds_more(missing: set[str], more: set[str], is_root: bool):
    """Taking primitives away never makes the list of what Medium lacks shorter."""
    few = unmet(as_report(probe.tier(primitives(*missing), is_root).missing), Level.MEDIUM)
    many = unmet(as_report(probe.tier(primitives(*missing, *more), is_root).missing), Level.MEDIUM)
    assert len(few) <= len(many)


def test_without_user_namespaces_an_ordinary_user_holds_medium_and_not_high():
    """What needs namespaces is named with AppArmor's part and with what helps."""
    found = primitives("user_namespace") | {
        "user_namespace": Primitive(False, "Operation not permitted; AppArmor keeps them")
    }
    name, mode, rows = probe.tier(found, is_root=False)
    assert (name, mode) == ("E3", "bare")
    assert not unmet(as_report(rows), Level.MEDIUM)
    high = {missing.rule: missing for missing in unmet(as_report(rows), Level.HIGH)}
    assert high.keys() == {"filesystem.reads", "network.listen", "process.exec"}
    assert "apparmor" in high["filesystem.reads"].hint


@pytest.mark.parametrize(
    ("gone", "lost"),
    [
        ("landlock", "process.exec"),
        ("seccomp_notify", "network.listen"),
        ("mount_namespace", "filesystem.reads"),
    ],
)
def test_high_is_refused_by_the_name_of_its_own_rule(gone: str, lost: str):
    """What holds a rule of High alone is named for that rule, with what would help."""
    rows = {
        missing.rule: missing
        for missing in unmet(
            as_report(probe.tier(primitives(gone), is_root=True).missing), Level.HIGH
        )
    }
    assert rows[lost].hint


def test_every_rule_but_resources_names_its_mechanism():
    """The report says by what each rule is held; limits are the groups' to say."""
    assert set(probe._MECHANISMS) == {
        control.rule for control in required(Level.HIGH) if control.dimension != "resource"
    }
    assert set(probe_hostns.MECHANISMS) == {
        control.rule for control in required(Level.MEDIUM) if control.dimension != "resource"
    }


@pytest.mark.sandbox
def test_the_probe_finds_this_machine_and_leaves_nothing(tmp_path: Path):
    """It has the shape of a capability report, and the scratch folder is empty afterwards."""
    found = probe.report(str(tmp_path / "probe"))
    assert os.listdir(tmp_path) == []
    for row in found["dimensions"]:
        msgspec.convert(row, DimensionReport)
    assert [row["dimension"] for row in found["dimensions"]] == [
        "network",
        "filesystem",
        "process",
        "resource",
    ]
    assert found["tier"] in ("E2", "E3", "E4")
