"""The kernel's probe as the report by which a policy is refused, and which `doctor` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cleanroom.model.capability import CapabilityReport, DimensionReport, Missing

if TYPE_CHECKING:
    from cleanroom.sandbox.kernel import cgroups
    from cleanroom.sandbox.protocol import ProbeReport


def capability_report(found: ProbeReport, homes: cgroups.Homes) -> CapabilityReport:
    """The report of the embedded backend; resources by the control groups that can be made."""
    resources = _resources(homes)
    rows = [
        msgspec.convert(row, DimensionReport)
        for row in found["dimensions"]
        if row["dimension"] != "resource"
    ]
    levels = {
        level: tuple(msgspec.convert(row, Missing) for row in lacking)
        for level, lacking in found["levels"].items()
    }
    limits = dict.fromkeys(("resource.memory", "resource.pids"), resources.mechanism)
    return CapabilityReport(
        backend="embedded",
        tier=found["tier"],
        dimensions=(*rows, resources),
        missing=tuple(msgspec.convert(row, Missing) for row in found["missing"]),
        levels=levels,
        mechanisms=found["mechanisms"] | limits,
        notes=tuple(found["notes"]),
    )


def _resources(homes: cgroups.Homes) -> DimensionReport:
    """Control groups enforce and count.

    Without them rlimits refuse, samples detect, and both are reported as partial.
    """
    if homes.version:
        return DimensionReport(
            dimension="resource",
            enforced="yes",
            detected="yes",
            attributed="partial",
            completeness="exact",
            mechanism=f"control groups version {homes.version}, rlimits, samples",
            evidence=f"groups with limits can be made for {', '.join(sorted(homes.folders))}",
        )
    return DimensionReport(
        dimension="resource",
        enforced="partial",
        detected="partial",
        attributed="partial",
        completeness="lossy",
        mechanism="rlimits, samples",
        evidence=f"no control group: {homes.why}",
    )
