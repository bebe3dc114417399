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
from cleanroom.backends.embedded import spec as description
from cleanroom.backends.embedded.spec import environment_user
from cleanroom.sandbox.filesystem import mount_plan
from cleanroom.sandbox.filesystem.constants import HOME, USER
from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.kernel.core_limit import CORE_BYTES

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Container, Identity, MountOp, SandboxSpec

# where pid 1 and the way to its warden are in a container
INIT, DOOR = "/.cleanroom/init", "/.cleanroom/door"
PRIVATE = ("/tmp", "/var/tmp", "/home", "/root", "/run")  # an image's own content there is hidden
# of the empty folders on which the warden puts what is shown
PLACES = {"mode": "0755", "size": "65536"}
# Of all containers of a run, which share a uid; each has its own limit in its group.
# Left to itself Podman asks for more than it may give without CAP_SYS_RESOURCE.
PROCESSES = 16_384
SMALL_BYTES = 1 << 20  # of folders that hold mount points only
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
        "Hostname": mount_plan.host_name(spec.run_id),
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
            "Binds": [f"{program}:{INIT}:ro", f"{os.path.dirname(container['socket'])}:{DOOR}:ro"],
            "Tmpfs": dict.fromkeys(empty_places(container), place),
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            "LogConfig": {"Type": "none"},
        },
    }


def empty_places(container: Container) -> list[str]:
    """Targets for which the engine makes an empty folder; an image has its own files of /etc."""
    return [target for target in container["targets"] if not target.startswith("/etc/")]


def described(
    spec: EnvironmentSpec,
    identity: Identity,
    homes: cgroups.Homes,
    stack: Sequence[Path],
    root: Path,
    cache: mount_plan.HomeLayers | None = None,
) -> SandboxSpec:
    """What the warden is told.

    `identity` is who the container is on the host.
    `stack` are the workspace's layers, newest first, `cache` those of the home's .cache.
    `root` is the empty folder on which the view is built.
    """
    view = _view(spec, identity["user"], stack, cache)
    targets = mount_plan.outermost([*PRIVATE, *(mount["target"] for mount in view.mounts)])
    return description.sandbox_spec(
        spec,
        identity,
        description.mounted(spec, view, root),
        # Those of a process are the engine's to set.
        description.limits_of(spec, homes, {}),
        container={"socket": f"{root}/door/socket", "targets": targets},
    )


def _view(
    spec: EnvironmentSpec,
    user: int,
    stack: Sequence[Path],
    cache: mount_plan.HomeLayers | None,
) -> mount_plan.View:
    listed = spec.allowlist
    tools = mount_plan.outermost(description.tools_of(spec))
    plain = description.plain_mounts(spec)
    mounts = [
        *_private(spec, listed),
        *_etc(spec, user, description.names_of(spec)),
        *(mount_plan.bind(tool, tool, tool=True) for tool in tools),
        *_shown(spec, stack, listed, cache),
    ]
    written = [*PRIVATE[:2], HOME, "/dev/shm", "/dev/pts"]
    written += [mount.target for mount in spec.mounts if mount.writable]
    written += [spec.workspace.root] if stack and spec.workspace else []
    builds = mount_plan.outermost(description.build_folders(spec)) if listed else []
    trees = [
        f"/{name}" for name in mount_plan.SYSTEM if not (listed and name in mount_plan.UNLISTED)
    ]
    read_only = [*trees, *tools, *(mount.target for mount in plain if not mount.writable)]
    programs = [*trees, *tools, *builds, *(PRIVATE[:2] if spec.policy.tmp_exec else ())]
    readable = ["/etc", "/proc", "/dev", "/sys", "/run"]
    return mount_plan.View(mounts, readable, read_only, written, programs, [])


def _private(spec: EnvironmentSpec, listed: bool) -> list[MountOp]:
    """Folders of the container's own.

    What only holds mount points is small and may not be written.
    """
    size, tmp_exec = spec.policy.limits.tmpfs_bytes, spec.policy.tmp_exec
    holders = ("/home", "/root", "/run")
    return [
        mount_plan.tmpfs("/tmp", size=size, mode=0o1777, exec=tmp_exec),
        mount_plan.tmpfs("/var/tmp", size=size, mode=0o1777, exec=tmp_exec),
        *(mount_plan.tmpfs(at, size=SMALL_BYTES, mode=0o755, exec=False) for at in holders),
        mount_plan.tmpfs(HOME, size=size, mode=0o700, exec=tmp_exec and not listed, own=True),
    ]


def _etc(spec: EnvironmentSpec, user: int, names: Sequence[tuple[str, str]]) -> list[MountOp]:
    """Who and where it is. Files that the image does not have are not added to it."""
    host = mount_plan.host_name(spec.run_id)
    hosts = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost",
        f"127.0.1.1 {host}",
        *(f"{address} {name}" for name, address in names),
    ]
    texts = {
        "passwd": (
            f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{user}:{user}:{USER}:{HOME}:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        ),
        "group": f"root:x:0:\n{USER}:x:{user}:\nnogroup:x:65534:\n",
        "hosts": "\n".join(hosts) + "\n",
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    }
    return [
        {"kind": "file", "target": f"/etc/{name}", "text": text} for name, text in texts.items()
    ]


def _shown(
    spec: EnvironmentSpec, stack: Sequence[Path], listed: bool, cache: mount_plan.HomeLayers | None
) -> list[MountOp]:
    """The workspace, data shown copy-on-write, and plain mounts."""
    shown: list[MountOp] = [mount_plan.kept(cache, f"{HOME}/.cache")] if cache else []
    if spec.workspace is not None and stack:
        root = spec.workspace.root
        shown.append(
            mount_plan.overlay(root, root, [str(layer) for layer in stack], exec=not listed)
        )
        shown += mount_plan.evidence(root, description.masked_folders(spec))
        builds = mount_plan.outermost(description.build_folders(spec)) if listed else []
        shown += [mount_plan.exec_folder(build, root, writable=True) for build in builds]
    above = [mount for mount in spec.mounts if mount.above]
    shown += [mount_plan.overlay(mount.target, mount.above, [mount.source]) for mount in above]
    plain = description.plain_mounts(spec)
    return [*shown, *(mount_plan.bind(m.source, m.target, writable=m.writable) for m in plain)]
