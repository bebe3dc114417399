"""The items of the CIS Docker Benchmark, section 5, that apply to one container:
each held against what the engine and the kernel say of a running one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.model.policy import Level, default_policy
from support.container_harness import ENGINES, IMAGE, backend, inspected, require

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

RUN_ID = "hardening"
LIMITS = default_policy(Level.MEDIUM).limits
SYSTEM = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr")
Row = dict[str, Any]


def ulimits(row: Row) -> dict[str, int]:
    return {
        limit["Name"].removeprefix("RLIMIT_").lower(): limit["Hard"]
        for limit in row["HostConfig"]["Ulimits"]
    }


def status(row: Row) -> dict[str, str]:
    """What the kernel says of pid 1."""
    lines = Path(f"/proc/{row['State']['Pid']}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# Item -> what it asks for.
# 5.27 (a health check) is left out on purpose: pid 1 holds a connection to its warden,
# which notices its end at once.
ITEMS: dict[str, Callable[[Row, Row], bool]] = {
    "5.2, 5.3 AppArmor and SELinux not switched off": lambda row, host: (
        not any("unconfined" in option or "disable" in option for option in host["SecurityOpt"])
    ),
    "5.4 no capability": lambda row, host: (
        not host["CapAdd"]
        and {status(row)[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
        == {"0" * 16}
    ),
    "5.5 not privileged": lambda row, host: host["Privileged"] is False,
    "5.6 no folder of the host's system": lambda row, host: (
        not any(mount["Source"] in SYSTEM or mount["RW"] for mount in row["Mounts"])
    ),
    "5.8, 5.14 no port published": lambda row, host: (
        not host["PortBindings"] and not host["PublishAllPorts"]
    ),
    "5.10, 5.30 neither the host's network nor the common bridge": lambda row, host: (
        host["NetworkMode"] == "none"
    ),
    "5.11 memory": lambda row, host: host["Memory"] == host["MemorySwap"] == LIMITS.memory_bytes,
    "5.12 processors": lambda row, host: host["NanoCpus"] == LIMITS.cpus * 1e9,
    "5.13 read-only root": lambda row, host: host["ReadonlyRootfs"] is True,
    "5.15 no restart by the engine": lambda row, host: host["RestartPolicy"]["Name"] == "no",
    "5.16, 5.17, 5.21 namespaces of its own": lambda row, host: (
        "host" not in (host["PidMode"], host["IpcMode"], host["UTSMode"])
    ),
    "5.18 no device": lambda row, host: not host["Devices"] and not host["DeviceRequests"],
    "5.19 ulimits": lambda row, host: (
        (ulimits(row)["nofile"], ulimits(row)["core"]) == (LIMITS.open_files, 1)
    ),
    "5.20 no mount is propagated": lambda row, host: (
        {mount["Propagation"] for mount in row["Mounts"]} == {"rprivate"}
    ),
    "5.22 a system call filter": lambda row, host: (
        any(option.startswith("seccomp=") for option in host["SecurityOpt"])
        and status(row)["Seccomp"] == "2"
    ),
    "5.23, 5.24 nothing run by the engine's exec": lambda row, host: not row["ExecIDs"],
    "5.25 the engine's own control group": lambda row, host: host["CgroupParent"] == "",
    "5.26 no new privileges": lambda row, host: (
        "no-new-privileges" in host["SecurityOpt"] and status(row)["NoNewPrivs"] == "1"
    ),
    "5.28 the image that was looked at": lambda row, host: row["Image"].startswith("sha256:"),
    "5.29 processes": lambda row, host: host["PidsLimit"] == LIMITS.pids,
    "5.31 not the host's users": lambda row, host: host["UsernsMode"] != "host",
    "5.32 no engine's socket": lambda row, host: (
        not any(
            "docker.sock" in mount["Source"] or "podman.sock" in mount["Source"]
            for mount in row["Mounts"]
        )
    ),
    "not root": lambda row, host: (
        set(status(row)["Uid"].split()) == {row["Config"]["User"].partition(":")[0]} != {"0"}
    ),
    "label of its run": lambda row, host: row["Config"]["Labels"]["cleanroom.run_id"] == RUN_ID,
}


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_phases_container_holds_every_item_that_applies(engine: Any, tmp_path: Path):
    """As the engine describes it while it runs, and as the kernel does."""
    require(engine)
    spec = EnvironmentSpec(
        id="phase",
        run_id=RUN_ID,
        role="phase",
        policy=default_policy(Level.MEDIUM),
        variables={},
        image=IMAGE,
    )
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.environment(spec),
    ):
        (row,) = await asyncio.to_thread(inspected, engine, RUN_ID)
        assert [item for item, holds in ITEMS.items() if not holds(row, row["HostConfig"])] == []  # type: ignore[arg-type]
