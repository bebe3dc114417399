"""Variables for package managers where there is no network. Pure.

A missing package then fails at once, with an error that says so, and nothing looks for updates.
"""

from __future__ import annotations

from cleanroom.model.policy import Policy

SWITCHES = {
    "CARGO_NET_OFFLINE": "true",
    "COREPACK_ENABLE_NETWORK": "0",
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    # Go sets this for its own children: start no telemetry process, which would be left running
    "GO_TELEMETRY_CHILD": "2",
    "MISE_OFFLINE": "1",
    "NO_UPDATE_NOTIFIER": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INDEX": "1",
    "UV_OFFLINE": "1",
    "npm_config_audit": "false",
    "npm_config_fund": "false",
    "npm_config_offline": "true",
    "npm_config_update_notifier": "false",
}


def switches(policy: Policy) -> dict[str, str]:
    """The variables for a phase under this policy.

    None for a phase that has a network, or hosts that it may reach.
    """
    return SWITCHES if policy.offline else {}
