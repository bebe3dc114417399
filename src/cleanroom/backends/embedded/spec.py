"""From an `EnvironmentSpec` to the `SandboxSpec` that keeper, warden and init are told.

One function for each group of keys, for every backend.
Pure, but for who owns a folder and where sockets are.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cleanroom.backends.base import EnvironmentSpec, Mount, WorkspaceSpec
from cleanroom.backends.embedded.path_map import PathMap
from cleanroom.core.locations import cache_folder
from cleanroom.core.paths import is_within
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import GIB, MIB
from cleanroom.sandbox.filesystem import etc_files, host_sockets, mount_plan, mount_plan_low
from cleanroom.sandbox.filesystem.constants import HOME
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers
from cleanroom.sandbox.filesystem.mount_plan import (
    HostFacts,
    HostMount,
    LayerMount,
    MountPlan,
    View,
    WorkspaceView,
)
from cleanroom.sandbox.kernel import cgroups, machine_size
from cleanroom.sandbox.kernel.core_limit import CORE_BYTES
from cleanroom.sandbox.kernel.machine_size import MachineSize
from cleanroom.sandbox.network import control_sockets
from cleanroom.sandbox.network.dial import Outside

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        Container,
        Filesystem,
        Forward,
        HostNamespaces,
        HostNetwork,
        Identity,
        Limits,
        Network,
        SandboxSpec,
    )

# uids that distributions leave unused; one per run, so that runs cannot touch each other's files
FIRST_USER, USERS = 200_000, 50_000
# addresses of declared hosts inside; 127.0.0.1 stays the services'
FIRST_EGRESS_ADDRESS = "127.77.0.1"
# Each is a socket in four processes, whose RLIMIT_NOFILE is 1024 mostly.
FORWARDS_MAX = 256
# the first is the address of a service's name too
LOCALHOST = ("127.0.0.1", "::1")
PIDS_BEYOND = 64  # above the group's limit, whose counter is what is reported


def environment_user(run_id: str) -> int:
    """The uid that a run's environments have on the host when the engine is root."""
    return FIRST_USER + int(hashlib.sha256(run_id.encode()).hexdigest()[:8], 16) % USERS


class Described(NamedTuple):
    """The specification for an environment's warden, and facts about it for the engine."""

    spec: SandboxSpec
    # folders of the host that the environment fills
    written: tuple[Path, ...] = ()
    # from paths inside to host paths; without mounts only
    path_map: PathMap = PathMap()
    # its folder for temporary files; without mounts only
    temporary: str = ""


def describe(
    spec: EnvironmentSpec,
    host: HostFacts,
    homes: cgroups.Homes,
    stack: Sequence[Path],
    root: Path,
    cache: HomeLayers | None = None,
    *,
    landlock: bool = True,
) -> SandboxSpec:
    """An environment with namespaces of our own.

    `stack` are its layers, newest first, `cache` those of its home's .cache.
    `root` is the empty folder on which its view is built.
    """
    size = size_of(spec, host.size)
    shown = tuple(machine_size.texts(host.size, size).items())
    plan = mounts_of(spec, host, view_of(spec, stack, cache)._replace(size_files=shown))
    if not spec.host_network:
        plan.mounts.extend(host_sockets.covers(plan))
    rlimits = rlimits_of(spec, homes)
    return sandbox_spec(
        spec,
        identity_of(spec),
        mounted(spec, plan, root, in_place=spec.host_root),
        limits_of(spec, homes, rlimits, processors_of(host.size, size)),
        landlock=landlock,
    )


def sandbox_spec(
    spec: EnvironmentSpec,
    identity: Identity,
    filesystem: Filesystem,
    limits: Limits,
    *,
    landlock: bool = True,
    container: Container | None = None,
    host_namespaces: HostNamespaces | None = None,
) -> SandboxSpec:
    """The whole specification, for every backend."""
    return {
        "id": spec.id,
        "role": spec.role,
        "hostname": etc_files.host_name(spec.run_id),
        "identity": identity,
        "filesystem": filesystem,
        "network": _network_of(spec, spec.host_network and container is None),
        "limits": limits,
        "landlock": landlock,
        # Without namespaces also a service's: nothing else keeps it from the host's network.
        "notify": spec.role == "phase" or host_namespaces is not None,
        "container": container,
        "host_namespaces": host_namespaces,
    }


def view_of(
    spec: EnvironmentSpec,
    stack: Sequence[Path] = (),
    cache: HomeLayers | None = None,
) -> View:
    """What it is to see, for every kind of mount plan."""
    workspace = None
    if spec.workspace is not None:
        workspace = WorkspaceView(
            spec.workspace.root,
            layers=tuple(map(str, stack)),
            masked=tuple(_masked_folders(spec.workspace)),
            build_folders=tuple(_build_folders(spec, spec.workspace)),
        )
    return View(
        run_id=spec.run_id,
        tmpfs_bytes=spec.policy.limits.tmpfs_bytes,
        tools=tuple(tools_of(spec)),
        workspace=workspace,
        mounts=tuple(HostMount(m.source, m.target, m.writable) for m in _plain_mounts(spec)),
        layer_mounts=tuple(LayerMount(m.above, m.source, m.target) for m in spec.mounts if m.above),
        cache=cache,
        closed=spec.closed,
        emptied=spec.emptied,
        home_files=tuple(spec.home_files.items()),
        names=tuple(_names_of(spec)),
        tmp_exec=spec.policy.tmp_exec,
        allowlist=spec.allowlist,
    )


def mounts_of(spec: EnvironmentSpec, host: HostFacts, view: View) -> MountPlan:
    """Its mounts with namespaces of our own."""
    if spec.host_root and spec.workspace:
        root = mount_plan_low.read_root_facts(_callers_home(spec))
        return mount_plan_low.plan(host, root, view)
    return mount_plan.plan(host, view)


def tools_of(spec: EnvironmentSpec) -> list[str]:
    """The caller's programs, which are shown at their own paths."""
    return [m.source for m in spec.mounts if not m.writable and m.source == m.target]


def _plain_mounts(spec: EnvironmentSpec) -> list[Mount]:
    """Folders of the host that are shown as they are, without tools."""
    return [m for m in spec.mounts if not m.above and (m.writable or m.source != m.target)]


def _names_of(spec: EnvironmentSpec) -> list[tuple[str, str]]:
    """Names and addresses for the hosts file."""
    forwards = [
        (forward["service"], forward["address"])
        for forward in forwards_of(spec)
        if forward["address"] not in ("", LOCALHOST[1])
    ]
    return [*forwards, *spec.hosts.items()]


def mounted(
    spec: EnvironmentSpec,
    plan: MountPlan,
    root: Path,
    *,
    in_place: bool = False,
) -> Filesystem:
    """The files that it sees through the mounts of `plan`, made at the empty folder `root`.

    `in_place`: the project itself is written, and the caller's home is its own.
    """
    runs = {m.target: m.source for m in _plain_mounts(spec) if m.target.startswith("/run/")}
    project = spec.workspace.root if spec.workspace else ""
    return filesystem_of(
        spec,
        plan,
        root,
        lasting=_lasting(spec, in_place),
        project=project,
        sockets=runs,
        socket_folders=runs,
    )


def filesystem_of(
    spec: EnvironmentSpec,
    plan: MountPlan,
    root: Path,
    *,
    lasting: Iterable[str],
    project: str,
    sockets: Iterable[str],
    socket_folders: dict[str, str],
) -> Filesystem:
    """What it sees and may do there; each argument as `Filesystem` has it."""
    return {
        "root": str(root),
        "mounts": plan.mounts,
        "readable": plan.readable,
        "executable": plan.executable,
        "writable": plan.writable,
        "lasting": list(lasting),
        "project": project,
        "sockets": list(sockets),
        "socket_folders": socket_folders,
        "allowlist": spec.allowlist,
        "programs": plan.programs,
        "startable": plan.startable,
    }


def _lasting(spec: EnvironmentSpec, in_place: bool) -> list[str]:
    """The folders that are written and are the host's own: what is made there stays."""
    home = _callers_home(spec) if in_place else HOME
    found = [mount.target for mount in spec.mounts if mount.writable and not mount.above]
    found += [f"{home}/.cache"] if spec.home and home else []
    return [*found, spec.workspace.root] if spec.workspace and spec.in_place else found


def _callers_home(spec: EnvironmentSpec) -> str:
    return spec.variables.get("HOME", "")


def size_of(spec: EnvironmentSpec, machine: MachineSize) -> MachineSize:
    """The part of the machine that its limits leave it."""
    limits = spec.policy.limits
    return machine_size.limited(
        machine,
        cpus=limits.cpus,
        memory_bytes=limits.memory_bytes,
        seed=f"{spec.run_id}/{spec.id}",
    )


def processors_of(machine: MachineSize, size: MachineSize) -> Sequence[int]:
    """Those on which it runs, where they are not all."""
    return size.processors if size.processors != machine.processors else ()


def limits_of(
    spec: EnvironmentSpec,
    homes: cgroups.Homes,
    rlimits: dict[str, int],
    processors: Sequence[int] = (),
) -> Limits:
    """Its bounds, and its control group where one can be made.

    `processors`: those on which it runs; without any the kernel, or an engine, decides.
    """
    limits = spec.policy.limits
    group = cgroups.Group.within(homes, f"cleanroom-{spec.run_id}-{spec.id}")
    return {
        "rlimits": rlimits,
        "memory_bytes": limits.memory_bytes,
        "pids": limits.pids,
        "cpus": limits.cpus,
        "processors": list(processors),
        "shown": {
            "resource.memory": _shown_bytes(limits.memory_bytes),
            "resource.pids": str(limits.pids),
            "resource.disk": _shown_bytes(limits.disk_bytes),
        },
        "cgroup": group.to_wire() if group.version else None,
    }


def _network_of(spec: EnvironmentSpec, shared: bool) -> Network:
    """What it may reach; `shared` with the host."""
    return {
        "forwards": forwards_of(spec),
        "ports": sorted({*spec.policy.listen, *(forward.port for forward in spec.port_forwards)}),
        "host_network": _host_network(_callers_home(spec)) if shared else None,
    }


def _host_network(home: str) -> HostNetwork:
    """What an environment on the host's network is told of it:
    name servers, from which port on nobody needs a right, sockets that start programs outside.
    """
    user = os.geteuid()
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    known = control_sockets.known(run, home, str(cache_folder(os.environ)), os.environ)
    controls = list(dict.fromkeys((*known, *map(_really, known))))  # under both names
    return {"resolvers": _resolvers(), "first_port": _first_port(), "controls": controls}


def _really(path: str) -> str:
    """Where it lies, links resolved; a folder keeps its slash."""
    return os.path.realpath(path) + ("/" if path.endswith("/") else "")


def _resolvers() -> list[str]:
    try:
        lines = Path("/etc/resolv.conf").read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = [
        words[1].partition("%")[0]
        for line in lines
        if len(words := line.split()) > 1 and words[0] == "nameserver"
    ]
    return found or ["127.0.0.1"]


def _first_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _shown_bytes(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def forwards_of(spec: EnvironmentSpec) -> list[Forward]:
    """Services on both addresses of `localhost`, declared hosts on addresses of their own;
    at Low those are reached as any other host.

    Raises:
        EnvironmentFailed: they are too many.
    """
    forwards = [
        _forward(forward.service, address, forward.port, forward.to, forward.environment)
        for address in LOCALHOST
        for forward in spec.port_forwards
    ]
    egress = () if spec.host_network else spec.egress
    hosts = sorted({rule.host for rule in egress if not _is_pattern(rule.host)})
    for rule in egress:
        # Names below a domain get their addresses when they are asked for.
        is_pattern = _is_pattern(rule.host)
        address = "" if is_pattern else _egress_address(hosts.index(rule.host))
        to = Outside(rule.host, rule.port, rule.reach)
        forwards.append(_forward(rule.host, address, rule.port, str(to)))
    if len(forwards) > FORWARDS_MAX:
        raise EnvironmentFailed(
            "CR-SANDBOX-010",
            f"environment {spec.id} reaches {len(spec.port_forwards)} ports of services and "
            f"{len(egress)} declared hosts: {len(forwards)} sockets, of which it has at most "
            f"{FORWARDS_MAX}",
            hint="give the phase the services that it needs, and one pattern for hosts of a domain",
        )
    return forwards


def _egress_address(number: int) -> str:
    return str(ipaddress.IPv4Address(FIRST_EGRESS_ADDRESS) + number)


def _is_pattern(host: str) -> bool:
    return host.startswith("*.")


def _forward(service: str, address: str, port: int, to: str, environment: str = "") -> Forward:
    return {
        "service": service,
        "address": address,
        "port": port,
        "environment": environment,
        "to": to,
    }


def _build_folders(spec: EnvironmentSpec, workspace: WorkspaceSpec) -> list[str]:
    """The declared build folders.

    They are outputs that end with a slash or are folders already; a pattern names none.
    """
    folders = []
    for output in spec.build_outputs:
        path = os.path.normpath(os.path.join(workspace.root, output))
        is_pattern = any(sign in output for sign in "*?[")
        is_inside = is_within(path, workspace.root) and path != workspace.root
        if is_inside and not is_pattern and (output.endswith("/") or os.path.isdir(path)):
            folders.append(path)
    return folders


def _masked_folders(workspace: WorkspaceSpec) -> list[str]:
    """The masked paths that the project has."""
    return [path for path in workspace.masked if os.path.isdir(os.path.join(workspace.root, path))]


def identity_of(spec: EnvironmentSpec) -> Identity:
    """Who the environment is on the host, and whose files it may take for its own."""
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        return _identity("user", (user, group), (user, group))
    mine = environment_user(spec.run_id)
    owner = os.stat(spec.workspace.root) if spec.workspace else None
    theirs = (owner.st_uid, owner.st_gid) if owner else (0, 0)
    return _identity("root", (mine, mine), theirs)


def _identity(
    mode: Literal["root", "user"], own: tuple[int, int], project: tuple[int, int]
) -> Identity:
    return {
        "mode": mode,
        "user": own[0],
        "group": own[1],
        "owner": project[0],
        "owner_group": project[1],
    }


def rlimits_of(spec: EnvironmentSpec, homes: cgroups.Homes) -> dict[str, int]:
    """Bounds of each process.

    Processes are counted by the group where there is one;
    else the kernel refuses one past the limit, the warden counted with them,
    and a sample that finds the limit reached is what is reported.
    None bounds what is reserved (RLIMIT_DATA): sanitizers, garbage collectors and interpreters
    reserve far more than they ever touch, which costs nothing.
    """
    limits = spec.policy.limits
    return {
        "RLIMIT_CORE": CORE_BYTES,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NPROC": limits.pids + (PIDS_BEYOND if homes.version else 1),
    }
