"""From an `EnvironmentSpec` to a `SandboxSpec` without namespaces: real paths instead of mounts.

Everything of an environment's own lies in the run area.
Paths inside that are usually mounted (the home folder, /tmp, a service's data) are mapped to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends.base import EnvironmentSpec, Mount
from cleanroom.backends.embedded import spec as spec_parts
from cleanroom.backends.embedded.path_map import PathMap
from cleanroom.backends.embedded.run_area import RunArea
from cleanroom.backends.embedded.spec import Described
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.paths import is_within
from cleanroom.sandbox.filesystem import etc_files
from cleanroom.sandbox.filesystem.constants import HOME
from cleanroom.sandbox.filesystem.mount_plan import HostFacts, MountPlan
from cleanroom.sandbox.kernel import cgroups, machine_size, process_tree

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Filesystem, Identity, MountOp

TEMPORARY = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
# Of the machine, for runtimes that ask how large it is.
FACTS = (
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
)


class HostFolders(NamedTuple):
    """Folders of the host for one environment without mounts."""

    area: RunArea
    # its own folder in the area
    root: Path
    # the workspace's copy, and its home's .cache; empty if there is none
    copy: str = ""
    cache: str = ""


class _Paths(NamedTuple):
    """Where the environment's paths lie on the host."""

    home: Path
    temporary: Path
    # mounts that stand for no tool
    shown: list[Mount]
    # target of each -> its folder on the host
    real: dict[str, Path]


def describe(
    spec: EnvironmentSpec,
    host: HostFacts,
    homes: cgroups.Homes,
    folders: HostFolders,
    *,
    landlock: bool = True,
) -> Described:
    """An environment without mounts. Makes its folders."""
    identity = spec_parts.identity_of(spec)
    plan = spec_parts.mounts_of(spec, host, spec_parts.view_of(spec))
    parts = folders.root.relative_to(folders.area.path).parts
    paths = _make_folders(spec, folders, parts)
    path_map = _path_map(spec, folders, paths)
    for mount in paths.shown:
        if mount.names_paths:
            with Folder.at(paths.real[mount.target]) as folder:
                _translate_files(folder, path_map)
    size = spec_parts.size_of(spec, host.size)
    texts = _texts(identity, plan.mounts, str(paths.home)) | machine_size.texts(host.size, size)
    with folders.area.open_private_folder(*parts, "etc") as folder:
        files = _write_files(folder, texts)
    rlimits = spec_parts.rlimits_of(spec, homes)
    # RLIMIT_NPROC counts all processes of the real user, other environments' too; getrlimit(2).
    rlimits["RLIMIT_NPROC"] += process_tree.tasks_of(identity["user"])
    sandbox = spec_parts.sandbox_spec(
        spec,
        identity,
        _filesystem(spec, host, plan, folders, paths),
        spec_parts.limits_of(spec, homes, rlimits, spec_parts.processors_of(host.size, size)),
        landlock=landlock,
        host_namespaces={"texts": files, "devices": list(DEVICES)},
    )
    filled = tuple(Path(folder) for folder in (folders.copy, folders.cache) if folder)
    return Described(sandbox, filled, path_map, str(paths.temporary))


def _make_folders(spec: EnvironmentSpec, folders: HostFolders, parts: tuple[str, ...]) -> _Paths:
    """Make the folder `parts` of the area with home and /tmp, and the copies for mounts."""
    area = folders.area
    area.private_folder(*parts)
    home, temporary = area.private_folder(*parts, "home"), area.private_folder(*parts, "tmp")
    shown = [mount for mount in spec.mounts if mount.writable or mount.source != mount.target]
    real = {mount.target: area.host_path(mount) for mount in shown}
    with Folder.at(home) as folder:
        for name, text in spec.home_files.items():
            with os.fdopen(folder.open_own(name, os.O_WRONLY | os.O_CREAT), "w") as file:
                file.write(text)
        if folders.cache:
            os.symlink(folders.cache, ".cache", dir_fd=folder.descriptor)
    return _Paths(home, temporary, shown, real)


def _filesystem(
    spec: EnvironmentSpec,
    host: HostFacts,
    plan: MountPlan,
    folders: HostFolders,
    paths: _Paths,
) -> Filesystem:
    """What it may read, write and start, by paths of the host."""
    written = [folders.copy] if folders.copy else []
    written += [str(paths.home), str(paths.temporary)]
    written += [str(paths.real[mount.target]) for mount in paths.shown if mount.writable]
    written += [folders.cache] if folders.cache else []
    writable = [os.path.realpath(path) for path in written]
    trees = [path for path in plan.executable if path not in paths.real]
    read_only = [str(paths.real[mount.target]) for mount in paths.shown if not mount.writable]
    on_host = plan._replace(
        mounts=[],
        readable=[*(f"/etc/{name}" for name in host.etc), *FACTS],
        executable=[*trees, *read_only],
        writable=writable,
    )
    runs = {
        target: str(place) for target, place in paths.real.items() if target.startswith("/run/")
    }
    return spec_parts.filesystem_of(
        spec,
        on_host,
        folders.root,
        lasting=writable,
        project=os.path.realpath(folders.copy) if folders.copy else "",
        sockets=map(os.path.realpath, runs.values()),
        socket_folders=runs,
    )


def _path_map(spec: EnvironmentSpec, folders: HostFolders, paths: _Paths) -> PathMap:
    """From paths inside to paths of the host."""
    area, workspace = folders.area, spec.workspace.root if spec.workspace else ""
    tools = spec_parts.tools_of(spec)
    # These stand for themselves, although they may lie below /tmp.
    unmapped = [str(area.path), str(area.short.path)]
    unmapped += [tool for tool in tools if not workspace or not is_within(tool, workspace)]
    pairs = [(path, path) for path in unmapped]
    pairs += [(HOME, str(paths.home)), (TEMPORARY, str(paths.temporary))]
    pairs += [(target, area.short_path(place)) for target, place in paths.real.items()]
    pairs += [(workspace, folders.copy)] if workspace else []
    return PathMap(pairs)


def _texts(identity: Identity, mounts: Iterable[MountOp], home: str) -> dict[str, str]:
    """The texts that stand in for files of /etc, by their paths inside."""
    user, group = identity["user"], identity["group"]
    made = {
        f"{mount['target']}/{name}": text
        for mount in mounts
        if mount["kind"] == "files"
        for name, text in mount["texts"].items()
    }
    made["/etc/passwd"] = etc_files.passwd(user, group, home)
    made["/etc/group"] = etc_files.group(group)
    # use-vc (resolv.conf(5)): of an answer over TCP the resolver does not check the address.
    made["/etc/resolv.conf"] = "nameserver 127.0.0.1\noptions timeout:1 attempts:1 use-vc\n"
    # git gives up where it may not read the one that is there; with mounts there is none.
    if os.path.exists("/etc/gitconfig"):
        made["/etc/gitconfig"] = ""
    return made


def _write_files(etc: Folder, texts: Mapping[str, str]) -> dict[str, str]:
    """Write texts as files of the folder; path inside -> path on the host."""
    found = {}
    for path, text in texts.items():
        name = os.path.basename(path)
        with os.fdopen(etc.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        found[path] = str(etc.path / name)
    return found


def _translate_files(folder: Folder, path_map: PathMap) -> None:
    """Replace paths inside by paths of the host in a service's own files."""
    for name in folder.names():
        try:
            with folder.reading(name) as file:
                text = os.fsdecode(file.read())
        except OSError as error:
            if is_misplaced(error):
                continue
            raise
        if (translated := path_map.translate(text)) != text:
            with os.fdopen(folder.open_own(name, os.O_WRONLY), "wb") as file:
                os.ftruncate(file.fileno(), 0)
                file.write(os.fsencode(translated))
