"""From an `EnvironmentSpec` to a container: what the engine is asked to create,
and what the warden is told to show in it.

Pure, but for who owns a folder.

The engine gives namespaces, group, image and the flags of a locked container.
The warden moves the workspace, private folders and names into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.backends.embedded import spec as spec_parts
from cleanroom.backends.embedded.spec import environment_user
from cleanroom.sandbox.filesystem import mount_plan_container
from cleanroom.sandbox.filesystem.etc_files import host_name
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers
from cleanroom.sandbox.filesystem.mount_plan_container import PRIVATE
from cleanroom.sandbox.filesystem.paths import outermost
from cleanroom.sandbox.kernel import cgroups, machine_size
from cleanroom.sandbox.kernel.core_limit import CORE_BYTES

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Container, Identity, SandboxSpec

# where pid 1 and the way to its warden are in a container
INIT, DOOR = "/.cleanroom/init", "/.cleanroom/door"
# of the empty folders on which the warden puts what is shown
PLACES = {"mode": "0755", "size": "65536"}
# Of all containers of a run, which share a uid; each has its own limit in its group.
# Left to itself Podman asks for more than it may give without CAP_SYS_RESOURCE.
PROCESSES = 16_384
FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What Docker's default profile refuses to a container without capabilities,
# without what our own filter refuses and names: an engine's refusal comes
# first, and would leave nobody to name. The rest of the list is allowed here and held there.
REFUSED_BY_ENGINE = (
    "create_module",
    "get_kernel_syms",
    "get_mempolicy",
    "mbind",
    "nfsservctl",
    "query_module",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "stime",
    "sysfs",
    "_sysctl",
    "uselib",
    "ustat",
    "vm86",
    "vm86old",
    "process_madvise",
    "pidfd_spawn",
)


class Image(NamedTuple):
    """An image that is there."""

    name: str
    identity: str  # sha256:...
    path: str  # its own PATH


def profile() -> str:
    """The filter that the engine installs, as it takes it."""
    refused = {"names": list(REFUSED_BY_ENGINE), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    machines = [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
    ]
    here = machines[:3] if os.uname().machine == "x86_64" else machines[3:]
    return json.dumps(
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": here, "syscalls": [refused]}
    )


def parameters(
    spec: EnvironmentSpec,
    image: Image,
    container: Container,
    *,
    program: Path,
    seccomp: str,
    labels: Mapping[str, str],
) -> dict[str, object]:
    """What the engine is asked to create: locked down as far as its flags go, without a network,
    with an empty place for each thing that is shown.
    """
    limits = spec.policy.limits
    user = environment_user(spec.run_id)
    place = ",".join(
        ("rw", "nosuid", "nodev", "noexec", *(f"{name}={value}" for name, value in PLACES.items()))
    )
    ulimits = {
        "nofile": limits.open_files,
        "core": CORE_BYTES,
        "fsize": limits.disk_bytes,
        "nproc": PROCESSES,
    }
    return {
        "Image": image.identity,
        "Entrypoint": [INIT, f"{DOOR}/socket"],
        "Cmd": [],
        "Env": [],
        "User": f"{user}:{user}",
        "WorkingDir": "/",
        "Hostname": host_name(spec.run_id),
        "Healthcheck": {"Test": ["NONE"]},
        "StopTimeout": 1,
        "Labels": {**labels, "cleanroom.environment": spec.id},
        # No network, said twice: with "none" alone Docker loads itself once more as a hook into
        # each start, which takes longer than all the rest.
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Sysctls": {"net.ipv6.conf.all.disable_ipv6": "0"},
            "IpcMode": "private",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "Privileged": False,
            "Init": False,
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp}"],
            "PidsLimit": limits.pids,
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,
            "NanoCpus": int(limits.cpus * 1e9),
            "ShmSize": limits.tmpfs_bytes,
            "Ulimits": [
                {"Name": name, "Soft": value, "Hard": value} for name, value in ulimits.items()
            ],
            # Not as "Binds": of those Docker makes a source that is not there, in a start that it
            # comes to only when the environment has been left, and its folder removed.
            "Mounts": [_shown(program, INIT), _shown(os.path.dirname(container["socket"]), DOOR)],
            "Tmpfs": dict.fromkeys(empty_places(container), place),
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            "LogConfig": {"Type": "none"},
        },
    }


def _shown(source: str | Path, target: str) -> dict[str, object]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}


def empty_places(container: Container) -> list[str]:
    """Targets for which the engine makes an empty folder; an image has its own files of /etc."""
    return [target for target in container["targets"] if not target.startswith("/etc/")]


def _folders_of_files(spec: EnvironmentSpec) -> list[str]:
    """Folders that are shown whole, with nothing but what is mounted in them.

    A file needs a file to be mounted on, and an engine makes folders only.
    """
    files = (mount.target for mount in spec.mounts if not os.path.isdir(mount.source))
    # What lies in the root itself would hide the whole image.
    return [*spec.closed, *filter(lambda folder: folder != "/", map(os.path.dirname, files))]


def describe(
    spec: EnvironmentSpec,
    identity: Identity,
    homes: cgroups.Homes,
    stack: Sequence[Path],
    root: Path,
    cache: HomeLayers | None = None,
) -> SandboxSpec:
    """The specification of the environment for its warden.

    `identity` is who the container is on the host.
    `stack` are the workspace's layers, newest first, `cache` those of the home's .cache.
    `root` is the empty folder on which the view is built.
    """
    machine = machine_size.read()
    processors = spec_parts.processors_of(machine, spec_parts.size_of(spec, machine))
    plan = mount_plan_container.plan(spec_parts.view_of(spec, stack, cache), identity["user"])
    shown = (mount["target"] for mount in plan.mounts)
    targets = outermost([*PRIVATE, *shown, *_folders_of_files(spec)])
    return spec_parts.sandbox_spec(
        spec,
        identity,
        spec_parts.mounted(spec, plan, root),
        # Those of a process are the engine's to set.
        spec_parts.limits_of(spec, homes, {}, processors),
        container={"socket": f"{root}/door/socket", "targets": targets},
    )
