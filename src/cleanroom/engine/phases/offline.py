"""What package managers are told where there is no network,
so that a missing package fails at once and says so, and nothing asks for news.

Pure.
"""

from __future__ import annotations

from cleanroom.model.policy import Policy

SWITCHES = {
    "CARGO_NET_OFFLINE": "true",
    "COREPACK_ENABLE_NETWORK": "0",
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    # what Go tells its own children: start no process for telemetry, which would be left running
    "GO_TELEMETRY_CHILD": "2",
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
    """Variables for a phase under this policy; none where it has a network,
    or hosts that it may reach.
    """
    return SWITCHES if policy.offline else {}
