"""What an engine is asked to create, and what is shown in a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cleanroom.backends.base import EnvironmentSpec, Mount, PortForward, WorkspaceSpec
from cleanroom.backends.containers import create_request
from cleanroom.backends.containers.create_request import Image
from cleanroom.model.policy import LIMITS, Level, default_policy
from cleanroom.sandbox.filesystem import mount_ops
from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.protocol import SandboxSpec
from cleanroom.sandbox.seccomp.filters import DENIED

NO_GROUPS = cgroups.Homes(0, {}, "none")
IDENTITY = {"mode": "root", "user": 200_001, "group": 200_001, "owner": 0, "owner_group": 0}


def spec(**fields: Any) -> EnvironmentSpec:
    given = {
        "id": "phase-1",
        "run_id": "run",
        "role": "phase",
        "policy": default_policy(Level.MEDIUM),
        "variables": {},
        "image": "some/image",
    }
    return EnvironmentSpec(**{**given, **fields})


def described(tmp_path: Path, root: str = "/work/project", **fields: Any) -> SandboxSpec:
    workspace = WorkspaceSpec(root=root, scratch=str(tmp_path))
    return create_request.describe(
        spec(workspace=workspace, **fields),
        IDENTITY,
        NO_GROUPS,
        [tmp_path / "layer"],
        tmp_path / "root",
    )


@pytest.fixture
def project(tmp_path: Path) -> str:
    (tmp_path / "project").mkdir()
    return str(tmp_path / "project")


def asked(tmp_path: Path, project: str) -> dict[str, Any]:
    one = spec(workspace=WorkspaceSpec(root=project, scratch=str(tmp_path)))
    wire = create_request.describe(
        one, IDENTITY, NO_GROUPS, [tmp_path / "layer"], tmp_path / "root"
    )
    image = Image("some/image", "sha256:1", "/usr/bin")
    return create_request.parameters(
        one,
        image,
        wire["container"],
        program=Path("/cache/init"),
        seccomp=create_request.profile(),
        labels={"cleanroom.run_id": "run"},
    )


def test_a_container_is_locked_down_as_far_as_flags_go(tmp_path: Path, project: str):
    """No network, no capability, no new privileges, a read-only image, an ordinary user,
    and no pull, port, device or host namespace.
    """
    parameters = asked(tmp_path, project)
    host = parameters["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"], host["Privileged"]) == (
        "none",
        ["ALL"],
        True,
        False,
    )
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert host["RestartPolicy"] == {"Name": "no"}
    assert parameters["User"].partition(":")[0] not in ("", "0")
    assert parameters["Image"] == "sha256:1", (
        "by digest, so that a tag that moves meanwhile changes nothing"
    )
    forbidden = (
        "Devices",
        "PortBindings",
        "CapAdd",
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "CgroupParent",
        "VolumesFrom",
        "Links",
        "ExtraHosts",
    )
    assert [name for name in forbidden if host.get(name)] == []


def test_a_container_has_the_limits_of_its_policy(tmp_path: Path, project: str):
    """Memory with swap, processes, processors, one file, open files and core dumps."""
    host, limits = asked(tmp_path, project)["HostConfig"], LIMITS[Level.MEDIUM]
    assert host["Memory"] == host["MemorySwap"] == limits.memory_bytes
    assert (host["PidsLimit"], host["NanoCpus"], host["ShmSize"]) == (
        limits.pids,
        limits.cpus * 1e9,
        limits.tmpfs_bytes,
    )
    ulimits = {row["Name"]: row["Hard"] for row in host["Ulimits"]}
    assert (ulimits["nofile"], ulimits["fsize"], ulimits["core"]) == (
        limits.open_files,
        limits.disk_bytes,
        1,
    )


def test_nothing_of_the_host_is_mounted_but_pid_1_and_its_door(tmp_path: Path, project: str):
    """Both read-only; no socket of an engine, ever."""
    host = asked(tmp_path, project)["HostConfig"]
    shown = {"/cache/init": create_request.INIT, f"{tmp_path}/root/door": create_request.DOOR}
    assert host["Mounts"] == [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
        for source, target in shown.items()
    ]
    assert "Binds" not in host


def test_the_engines_filter_leaves_what_ours_names_to_ours():
    """A refusal of the engine's filter would come first, and nobody would be told who tried."""
    profile = json.loads(create_request.profile())
    refused = {name for rule in profile["syscalls"] for name in rule["names"]}
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    assert refused
    assert refused & set(DENIED) == set()


@pytest.mark.parametrize(
    ("root", "targets"),
    [
        ("/work/project", {"/work/project"}),
        ("/tmp/deep/project", set()),
        ("/home/somebody/project", set()),
        ("/usr/src/app", {"/usr/src/app"}),
    ],
)
def test_a_project_is_shown_at_its_own_path(tmp_path: Path, root: str, targets: set[str]):
    """Below a folder that is private anyway it is moved with that folder;
    elsewhere the engine makes an empty place for it.
    """
    container = described(tmp_path, root)["container"]
    assert set(create_request.empty_places(container)) == {*create_request.PRIVATE, *targets}
    assert [target for target in container["targets"] if target.startswith("/etc/")]


def test_a_services_socket_folder_is_shown_read_only_and_may_be_reached(tmp_path: Path):
    """The folder of its sockets, and a door on 127.0.0.1 that bears its name."""
    forward = PortForward(
        service="postgres",
        port=5432,
        environment="service-1",
        to="unix:/run/cleanroom/postgres/socket",
    )
    mount = Mount(source="/cache/run", target="/run/cleanroom/postgres")
    wire = described(tmp_path, port_forwards=(forward,), mounts=(mount,))
    assert wire["filesystem"]["sockets"] == ["/run/cleanroom/postgres"]
    mounts = wire["filesystem"]["mounts"]
    assert mount_ops.bind("/cache/run", "/run/cleanroom/postgres") in mounts
    hosts = next(one["text"] for one in mounts if one["target"] == "/etc/hosts")
    assert "127.0.0.1 postgres" in hosts.splitlines()


def test_services_hold_no_calls(tmp_path: Path):
    """A server is not slowed down; what it must not do is refused by its filter."""
    assert not described(tmp_path, role="service")["notify"]
    assert described(tmp_path)["notify"]
