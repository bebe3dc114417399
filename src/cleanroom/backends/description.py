"""From an `EnvironmentSpec` to the plain data that keeper, warden and init are told. Pure, but for who owns a folder and where sockets are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cleanroom.backends.base import EnvironmentSpec
from cleanroom.policy import GIB, MIB
from cleanroom.sandbox import cgroups, control_sockets, layout, layout_low
from cleanroom.sandbox.layout import HomeLayers
from cleanroom.sandbox.limits import CORE_BYTES

FIRST_USER, USERS = 200_000, 50_000  # uids that distributions leave unused; one per run, so that runs cannot touch each other's files
FIRST_HOLE = "127.77.0."  # addresses of declared hosts inside; 127.0.0.1 stays the services'
PIDS_BEYOND = 64  # above the group's limit, whose counter is what is reported
DATA_FACTOR = 4  # RLIMIT_DATA counts what is reserved, not what is used: a backstop far above the sampled limit


def environment_user(run_id: str) -> int:
    """The uid that a run's environments have on the host when the engine is root."""
    return FIRST_USER + int(hashlib.sha256(run_id.encode()).hexdigest()[:8], 16) % USERS


def describe(
    spec: EnvironmentSpec, host: layout.Host, homes: cgroups.Homes, stack: Sequence[Path], root: Path, cache: HomeLayers | None = None
) -> dict[str, Any]:
    """The whole environment. `stack` are its layers, newest first, `cache` those of its home's .cache; `root` is the empty folder on which its view is built."""
    limits = spec.policy.limits
    tools = [mount.source for mount in spec.mounts if not mount.writable and mount.source == mount.target]
    mounts = [(m.source, m.target, m.writable) for m in spec.mounts if not m.above and (m.writable or m.source != m.target)]
    overlays = [(m.above, m.source, m.target) for m in spec.mounts if m.above]
    doorways = doorways_of(spec)
    shared, listed = spec.host_network, spec.allowlist
    names = [*((door["service"], door["address"]) for door in doorways), *spec.hosts.items()]
    home = spec.variables.get("HOME", "") if spec.host_root else layout.HOME
    view = layout_low.view(
        host, layout_low.look(home), run_id=spec.run_id, tmpfs_bytes=limits.tmpfs_bytes, home=home, tools=tools, workspace=spec.workspace.root,
        masked=masked_folders(spec), mounts=mounts, cache=cache, names=names,
    ) if spec.host_root and spec.workspace else layout.view(
        host, run_id=spec.run_id, tmpfs_bytes=limits.tmpfs_bytes, tools=tools, workspace=spec.workspace.root if spec.workspace else "",
        layers=[str(layer) for layer in stack], masked=masked_folders(spec), mounts=mounts, overlays=overlays, cache=cache,
        names=names, tmp_exec=spec.policy.tmp_exec, listed=listed, builds=build_folders(spec),
    )  # fmt: skip
    return {
        "bare": False, "landlock": True, "id": spec.id, "run_id": spec.run_id, "role": spec.role, "hostname": layout.host_name(spec.run_id),
        "identity": identity_of(spec), "root": str(root), "operations": [*view.operations, *(() if shared else layout.covered_sockets(view))], "readable": view.readable, "executable": view.executable,
        "writable": view.writable, "listed": listed, "programs": view.programs, "startable": view.startable,
        "lasting": _lasting(spec, home),
        "project": spec.workspace.root if spec.workspace else "",
        "ports": sorted({*spec.policy.listen, *(door.port for door in spec.doorways)}),
        "sockets": [target for _, target, _ in mounts if target.startswith("/run/")], "mounts": mounts,
        "limits": _rlimits(spec, homes), "limits_shown": {
            "resource.memory": shown_bytes(limits.memory_bytes), "resource.pids": str(limits.pids), "resource.disk": shown_bytes(limits.disk_bytes),
        },
        "hold": spec.role == "phase", "shared": _shared(spec, home) if shared else None, "doorways": doorways,
        "names": {door["service"]: door["address"] for door in doorways}, "cgroup": group_described(spec, homes),
    }  # fmt: skip


def _lasting(spec: EnvironmentSpec, home: str) -> list[str]:
    """The folders that are written and are the host's own: what is made there stays."""
    found = [mount.target for mount in spec.mounts if mount.writable and not mount.above]
    found += [f"{home}/.cache"] if spec.home and home else []
    return [*found, spec.workspace.root] if spec.workspace and spec.in_place else found


def group_described(spec: EnvironmentSpec, homes: cgroups.Homes) -> dict[str, Any]:
    """An environment's control group; version 0 where none can be made."""
    limits = spec.policy.limits
    return {
        "version": homes.version, "folders": {name: str(folder) for name, folder in homes.folders.items()}, "name": f"cleanroom-{spec.run_id}-{spec.id}",
        "memory_bytes": limits.memory_bytes, "pids": limits.pids, "cpus": limits.cpus,
    }  # fmt: skip


def _shared(spec: EnvironmentSpec, home: str) -> dict[str, Any]:
    """What an environment on the host's network is told of it: name servers, from which port on nobody needs a right, sockets that start programs outside."""
    user = os.geteuid()
    run = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    known = control_sockets.known(run, home, os.environ)
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
    found = [words[1].partition("%")[0] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]
    return found or ["127.0.0.1"]


def _first_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def group_of(wire: dict[str, Any]) -> cgroups.Group | None:
    """The control group of a described environment."""
    given = wire["cgroup"]
    if not given["version"]:
        return None
    return cgroups.Group(
        cgroups.Homes(given["version"], {name: Path(folder) for name, folder in given["folders"].items()}, ""), given["name"]
    )


def shown_bytes(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def doorways_of(spec: EnvironmentSpec) -> list[dict[str, Any]]:
    """Services on 127.0.0.1, declared hosts on addresses of their own; at Low those are reached as any other host."""
    doors = [
        {"service": door.service, "port": door.port, "address": "127.0.0.1", "environment": door.environment, "to": door.to}
        for door in spec.doorways
    ]
    holes = () if spec.host_network else spec.holes
    hosts = sorted({hole.host for hole in holes})
    for hole in holes:
        address = f"{FIRST_HOLE}{hosts.index(hole.host) + 1}"
        doors.append({"service": hole.host, "port": hole.port, "address": address, "environment": "", "to": f"out:{hole.host}:{hole.port}"})
    return doors


def build_folders(spec: EnvironmentSpec) -> list[str]:
    """The declared build folders: outputs that say so with a slash at their end, or are folders already; a pattern names none."""
    if spec.workspace is None:
        return []
    folders = []
    for output in spec.outputs:
        path = os.path.normpath(os.path.join(spec.workspace.root, output))
        inside = path.startswith(spec.workspace.root.rstrip("/") + "/") and not any(sign in output for sign in "*?[")
        if inside and (output.endswith("/") or os.path.isdir(path)):
            folders.append(path)
    return folders


def masked_folders(spec: EnvironmentSpec) -> list[str]:
    if spec.workspace is None:
        return []
    return [path for path in spec.workspace.masked if os.path.isdir(os.path.join(spec.workspace.root, path))]


def identity_of(spec: EnvironmentSpec) -> dict[str, Any]:
    """Who the environment is on the host, and whose files it may take for its own."""
    if os.geteuid() != 0:
        return {"mode": "user", "user": os.geteuid(), "group": os.getegid(), "owner": os.geteuid(), "owner_group": os.getegid()}
    user = environment_user(spec.run_id)
    owner = os.stat(spec.workspace.root) if spec.workspace else None
    return {
        "mode": "root", "user": user, "group": user,
        "owner": owner.st_uid if owner else 0, "owner_group": owner.st_gid if owner else 0,
    }  # fmt: skip


def _rlimits(spec: EnvironmentSpec, homes: cgroups.Homes) -> dict[str, int]:
    """Bounds of each process. Processes are counted by the group where there is one; else the kernel refuses
    one past the limit, the warden counted with them, and a sample that finds the limit reached is what is reported."""
    limits = spec.policy.limits
    return {
        "RLIMIT_CORE": CORE_BYTES, "RLIMIT_NOFILE": limits.open_files, "RLIMIT_FSIZE": limits.disk_bytes,
        "RLIMIT_NPROC": limits.pids + (PIDS_BEYOND if homes.version else 1), "RLIMIT_DATA": limits.memory_bytes * DATA_FACTOR,
    }  # fmt: skip
