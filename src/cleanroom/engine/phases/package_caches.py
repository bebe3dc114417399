"""Variables that put the caches of package managers into the home's `.cache`. Pure.

What a phase with egress fetches is there for the later phases of its run then, and for later runs:
the rest of a home is fresh in every phase.
pip, uv and poetry keep to `.cache` by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.model.plan import PhaseRun
from cleanroom.model.policy import Policy

# Variable -> its value, with the folder for the home's `.cache`.
_CACHES = {
    "CARGO_HOME": "{cache}/cargo",
    "GOMODCACHE": "{cache}/go-mod",
    "GRADLE_USER_HOME": "{cache}/gradle",
    "MAVEN_OPTS": "-Dmaven.repo.local={cache}/m2",
    "npm_config_cache": "{cache}/npm",
}


def package_caches(policy: Policy, run: Iterable[PhaseRun], home: str) -> dict[str, str]:
    """The variables for a phase under this policy, in a run of these phases.

    None where no phase of the run has egress: nothing is fetched then, and packages come from the
    fetch step.
    """
    fetched = any(phase.policy.egress and not phase.policy.host_network for phase in run)
    if not fetched or policy.host_network or not policy.keeps_home_cache:
        return {}
    return {name: value.format(cache=f"{home}/.cache") for name, value in _CACHES.items()}
