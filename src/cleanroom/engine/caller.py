"""What the environment variables of a run's caller say."""

from __future__ import annotations

from collections.abc import Mapping

from cleanroom.core.redaction import secret_values
from cleanroom.model.errors import UsageError
from cleanroom.model.plan import Plan


def refuse_recursion(caller: Mapping[str, str]) -> None:
    """Raises:
    UsageError: the caller is a phase of a run.
    """
    if outer := caller.get("CLEANROOM_RUN_ID"):
        raise UsageError(
            "CR-ENGINE-001",
            f"this is already inside a run ({outer}): a run does not start another one",
            hint='say what the phase does with cleanroom.command = "...", next to its command',
        )


def secrets_of(caller: Mapping[str, str], plan: Plan) -> list[str]:
    """The caller's secret values, except those that are part of a name which every report shows."""
    names = plan.shown_names
    return [value for value in secret_values(caller) if not any(value in name for name in names)]
