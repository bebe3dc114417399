"""Mount plans: a pure function from what an environment is to see to the mounts init performs.

The root is a fresh tmpfs.
On it stand the system's folders and the caller's tools, read-only and at their own paths,
a synthetic /etc, private /tmp, /home, /dev and /proc, and the workspace copy-on-write.
Everything else does not exist inside.
`mount_plan_low` plans level Low, `mount_plan_container` containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.filesystem import etc_files
from cleanroom.sandbox.filesystem.constants import HOME, USER_ID
from cleanroom.sandbox.filesystem.mount_ops import (
    STAGING,
    STAGING_BYTES,
    HomeLayers,
    bind,
    exec_folder,
    ggen_folder,
    home_cache,
    make_folder,
    make_link,
    overlay,
    private_folders,
    replace_file,
    tmpfs,
)
from cleanroom.sandbox.filesystem.paths import is_within_any, outermost
from cleanroom.sandbox.kernel import machine_size
from cleanroom.sandbox.kernel.machine_size import MachineSize

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import ExecFolder, MountOp

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "srv", "nix", "gnu")
# Folders with programs that are neither the system's nor declared: not shown from level High on.
UNLISTED = ("opt", "srv")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# C libraries count processors there (sysconf(3)).
PROCESSORS = "/sys/devices/system/cpu"
TEMPORARY = ("/tmp", "/var/tmp")
# What may be read beside the trees of programs.
READABLE = ("/etc", "/proc", "/dev", "/sys", "/run")
# Folders outside to which links of a project may lead and still be written back:
# they are the same for every user of the project.
TRUSTED_LINKS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt")


class HostFacts(NamedTuple):
    """The host's folders, files and devices that a plan depends on."""

    # top-level link -> target, such as bin -> usr/bin
    links: dict[str, str]
    # top-level folders
    folders: frozenset[str]
    # names of `etc_files.SHOWN` that exist -> "file" or "folder"
    etc: dict[str, str]
    devices: frozenset[str]
    # whether PROCESSORS exists
    processors: bool
    # what may be used of the machine; without processors it is not known
    size: MachineSize = MachineSize((), 0)


class WorkspaceView(NamedTuple):
    """The project's folder inside."""

    root: str
    # the newest, which is written, first; without any the workspace is not mounted
    layers: tuple[str, ...] = ()
    # paths relative to the root that are covered
    masked: tuple[str, ...] = ()
    # folders in which programs that were built may be started at level High
    build_folders: tuple[str, ...] = ()


class HostMount(NamedTuple):
    """A folder of the host at a path inside."""

    source: str
    target: str
    writable: bool


class LayerMount(NamedTuple):
    """A folder of the host at a path inside, copy-on-write."""

    lower: str
    layer: str
    target: str


class View(NamedTuple):
    """Folders and names that one environment sees: the same for every kind of plan."""

    run_id: str
    # of each private file system
    tmpfs_bytes: int
    # the caller's programs, at their own paths
    tools: tuple[str, ...] = ()
    workspace: WorkspaceView | None = None
    mounts: tuple[HostMount, ...] = ()
    layer_mounts: tuple[LayerMount, ...] = ()
    cache: HomeLayers | None = None
    # folders on the way to tools that count as read-only
    closed: tuple[str, ...] = ()
    # files of tools that are shown empty
    emptied: tuple[str, ...] = ()
    # path and text of the files of /proc and /sys that tell how large the machine is
    size_files: tuple[tuple[str, str], ...] = ()
    # name and text of small files in the private home
    home_files: tuple[tuple[str, str], ...] = ()
    # further (name, address) pairs for /etc/hosts
    names: tuple[tuple[str, str], ...] = ()
    # whether programs in /tmp may be started
    tmp_exec: bool = True
    # from level High on: only what is named is shown and started
    allowlist: bool = False

    @property
    def masked(self) -> tuple[str, ...]:
        """The workspace's covered paths."""
        return self.workspace.masked if self.workspace is not None else ()

    @property
    def build_folders(self) -> list[str]:
        """The outermost build folders that count: at level High, in a mounted workspace."""
        if not self.allowlist or self.workspace is None or not self.workspace.layers:
            return []
        return outermost(self.workspace.build_folders)

    @property
    def workspace_root(self) -> list[str]:
        """The folder at which the workspace is mounted, if it is."""
        return [self.workspace.root] if self.workspace and self.workspace.layers else []


class MountPlan(NamedTuple):
    """Mounts in their order, and the paths that Landlock and the recorder let be used."""

    mounts: list[MountOp]
    readable: list[str]
    # readable too: the mounted trees of programs
    executable: list[str]
    writable: list[str]
    # from level High on: folders whose programs may be started
    programs: list[str]
    # folders whose programs the kernel lets be started; the recorder chooses among them
    startable: list[str]


def read_host_facts() -> HostFacts:
    """Read the facts of this host."""
    top = [name for name in SYSTEM if os.path.lexists(f"/{name}")]
    links = {name: os.readlink(f"/{name}") for name in top if os.path.islink(f"/{name}")}
    etc = {
        name: "folder" if os.path.isdir(f"/etc/{name}") else "file"
        for name in etc_files.SHOWN
        if os.path.exists(f"/etc/{name}")
    }
    return HostFacts(
        links,
        frozenset(name for name in top if name not in links and os.path.isdir(f"/{name}")),
        etc,
        frozenset(name for name in DEVICES if os.path.exists(f"/dev/{name}")),
        os.path.isdir(PROCESSORS),
        machine_size.read(),
    )


def plan(host: HostFacts, view: View) -> MountPlan:
    """The plan of an environment with namespaces of our own.

    From level High on only the system's own folders are shown, and programs start from there,
    from tools, from build folders, and with `tmp_exec` from /tmp.
    A tool inside the workspace may be started too, and is read-only.
    """
    if view.allowlist:
        host = _without_unlisted(host)
    trees = [f"/{name}" for name in sorted(host.folders)]
    root = view.workspace_root
    tools = [tool for tool in outermost(view.tools) if not is_within_any(tool, [*trees, *root])]
    built = view.build_folders
    inner_tools = _tools_in_workspace(view)
    mounts = [
        *_system(host),
        *_etc(host, view),
        *_private(host, view),
        # After the private folders: a tool may lie under the host's /tmp.
        *(bind(tool, tool, tool=True) for tool in tools),
        *replaced_files(view),
        # Build folders are no mounts, since a build removes and renames them.
        # Where there are any, the kernel lets programs be started in all of the workspace:
        # whoever could start one elsewhere in it could rename it into such a folder first.
        *project_and_data(
            view,
            workspace_exec=not view.allowlist or bool(built),
            exec_folders=_exec_folders(root, inner_tools, built),
        ),
    ]
    read_only = [*trees, *tools, *inner_tools, *view.closed, *read_only_mounts(view)]
    started = [*trees, *tools, *inner_tools, *(TEMPORARY if view.tmp_exec else ())]
    return MountPlan(
        mounts,
        list(READABLE),
        read_only,
        written_paths(view, host.devices),
        programs=[*started, *built],
        startable=[*started, *(root if built else [])],
    )


def project_and_data(
    view: View, *, workspace_exec: bool, exec_folders: Sequence[ExecFolder]
) -> list[MountOp]:
    """The end of a plan: the home's cache, the workspace, data shown copy-on-write, plain mounts.

    `workspace_exec`: whether the kernel lets programs in the workspace be started.
    """
    mounts: list[MountOp] = []
    if view.cache:
        mounts.append(home_cache(view.cache, f"{HOME}/.cache", exec=not view.allowlist))
    workspace = view.workspace
    if workspace is not None and workspace.layers:
        root = workspace.root
        mounts.append(overlay(root, root, workspace.layers, exec=workspace_exec))
        mounts += ggen_folder(root, workspace.masked)
        mounts += exec_folders
    mounts += [overlay(mount.target, mount.lower, [mount.layer]) for mount in view.layer_mounts]
    return [*mounts, *host_mounts(view)]


def host_mounts(view: View) -> list[MountOp]:
    """Folders of the host that are shown as they are."""
    return [bind(mount.source, mount.target, writable=mount.writable) for mount in view.mounts]


def written_mounts(view: View) -> list[str]:
    """Targets of mounts that may be written."""
    return [mount.target for mount in view.mounts if mount.writable]


def read_only_mounts(view: View) -> list[str]:
    """Targets of mounts that may not be written."""
    return [mount.target for mount in view.mounts if not mount.writable]


def _without_unlisted(host: HostFacts) -> HostFacts:
    return host._replace(
        folders=host.folders - set(UNLISTED),
        links={name: target for name, target in host.links.items() if name not in UNLISTED},
    )


def _tools_in_workspace(view: View) -> list[str]:
    """From level High on: tools in a mounted workspace that no build makes anew."""
    if not view.allowlist:
        return []
    inner = [tool for tool in outermost(view.tools) if is_within_any(tool, view.workspace_root)]
    return [tool for tool in inner if not is_within_any(tool, view.build_folders)]


def _exec_folders(
    root: Sequence[str], inner_tools: Sequence[str], built: Sequence[str]
) -> list[ExecFolder]:
    """Read-only tools of the workspace, and the build folders that lie in one of them."""
    rebuilt = [folder for folder in built if is_within_any(folder, inner_tools)]
    return [
        *(exec_folder(tool, root[0], writable=False) for tool in inner_tools),
        *(exec_folder(folder, root[0], writable=True) for folder in rebuilt),
    ]


def written_paths(view: View, devices: Iterable[str] = ()) -> list[str]:
    """Folders and devices that may be written."""
    return [
        *view.workspace_root,
        *TEMPORARY,
        HOME,
        "/dev/shm",
        "/dev/pts",
        *(f"/dev/{name}" for name in sorted(devices)),
        *written_mounts(view),
        *(mount.target for mount in view.layer_mounts),
    ]


def _system(host: HostFacts) -> list[MountOp]:
    links = [make_link(f"/{name}", target) for name, target in sorted(host.links.items())]
    return [*links, *(bind(f"/{name}", f"/{name}") for name in sorted(host.folders))]


def _etc(host: HostFacts, view: View) -> list[MountOp]:
    texts = {
        "passwd": etc_files.passwd(USER_ID, USER_ID),
        "group": etc_files.group(USER_ID),
        "hosts": etc_files.hosts(view.run_id, view.names),
        "hostname": f"{etc_files.host_name(view.run_id)}\n",
        "resolv.conf": etc_files.RESOLV_CONF,
        "nsswitch.conf": etc_files.NSSWITCH_CONF,
    }
    return etc_files.mounts(host.etc, texts)


def _private(host: HostFacts, view: View) -> list[MountOp]:
    mounts: list[MountOp] = [
        home_folder(view),
        *home_files(view),
        make_folder("/root"),
        make_folder("/run"),
        make_folder("/var"),
        make_folder("/var/cache"),
        make_folder("/var/lib"),
        make_link("/var/run", "/run"),
        *private_folders(
            host.devices,
            view.tmpfs_bytes,
            tmp_exec=view.tmp_exec,
            memory_exec=False,
            hide_processes=view.allowlist,
        ),
    ]
    if host.processors:
        mounts.append(bind(PROCESSORS, PROCESSORS))
    return mounts


def home_folder(view: View) -> MountOp:
    """The private home folder of the environment's user."""
    may_start = view.tmp_exec and not view.allowlist
    return tmpfs(HOME, size=view.tmpfs_bytes, mode=0o700, exec=may_start, own=True)


def home_files(view: View) -> list[MountOp]:
    """The small files in the private home folder."""
    return [
        {"kind": "file", "target": f"{HOME}/{name}", "text": text} for name, text in view.home_files
    ]


def replaced_files(view: View) -> list[MountOp]:
    """Texts over files of shown folders; the folder in which they lie is covered afterwards."""
    replaced = [*((path, "") for path in view.emptied), *view.size_files]
    if not replaced:
        return []
    return [
        tmpfs(STAGING, size=STAGING_BYTES, mode=0o755, exec=False),
        *(replace_file(path, text) for path, text in replaced),
        tmpfs(STAGING, size=0, mode=0o555, exec=False, read_only=True),
    ]
