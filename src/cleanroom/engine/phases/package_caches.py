"""Variables that put the caches of package managers into the home's `.cache`. Pure.

What a phase with egress fetches is there for the later phases of its run then, and for later runs:
the rest of a home is fresh in every phase.
pip, uv and poetry keep to `.cache` by themselves.
"""

from __future__ import annotations

from cleanroom.model.plan import Plan
from cleanroom.model.policy import Policy

# Variable -> its value, with the folder for the home's `.cache`.
_CACHES = {
    "CARGO_HOME": "{cache}/cargo",
    "GOMODCACHE": "{cache}/go-mod",
    "GRADLE_USER_HOME": "{cache}/gradle",
    "MAVEN_OPTS": "-Dmaven.repo.local={cache}/m2",
    "npm_config_cache": "{cache}/npm",
}


def package_caches(policy: Policy, plan: Plan, home: str) -> dict[str, str]:
    """The variables for a phase under this policy.

    None where no phase of the project has egress: nothing is fetched then, and packages come from
    the fetch step.
    That phase may have had its turn in an earlier run, as with one run for each phase.
    """
    if not plan.fetching or policy.host_network or not policy.keeps_home_cache:
        return {}
    return {name: value.format(cache=f"{home}/.cache") for name, value in _CACHES.items()}
