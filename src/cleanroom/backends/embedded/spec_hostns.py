"""Describing environments that have no namespaces: real paths instead of mounts,
and a folder on the host for everything of their own.

As root the environment's user could not pass through a private folder such as /root,
so what it uses lies below a folder of the run in /var/tmp;
an ordinary user's lies in the run's own scratch.
Paths inside that are usually mounted (the home folder, /tmp, a service's data) are led to these.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends.base import EnvironmentSpec, Mount
from cleanroom.backends.embedded import spec as description
from cleanroom.backends.embedded.path_map import PathMap
from cleanroom.backends.embedded.spec import Described
from cleanroom.backends.run_folders import grounds
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.paths import is_within
from cleanroom.sandbox.filesystem import copied_tree, etc_files, tree_removal
from cleanroom.sandbox.filesystem.constants import HOME
from cleanroom.sandbox.filesystem.mount_plan import HostFacts
from cleanroom.sandbox.kernel import cgroups, process_tree

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Identity, MountOp

TEMPORARY = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
# Of the machine, for runtimes that ask how large it is.
FACTS = (
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
)
_SUN_PATH_ROOM = 60  # of an address's 107 bytes; the rest is a service's own


def places_for(run_id: str, scratch: Path) -> tuple[Path, Path]:
    """The folder for everything of a run's environments, and one with a short name."""
    large, short = grounds(run_id)
    return (large, large) if os.geteuid() == 0 else (scratch, short)


def make_ground(around: Folder, name: str, user: int) -> Folder:
    """Make a folder for a run's environments where others make theirs too, such as /tmp.

    It is closed to all but root and, as its group, the environments' user, who passes through it
    and changes nothing there. One of this name that somebody else made is nobody's to use.

    Raises:
        FileExistsError: there is one.
    """
    os.mkdir(name, 0o700, dir_fd=around.descriptor)
    folder = around.folder(name)
    if os.geteuid() == 0:
        folder.give(0o710, (0, user))
    return folder


class RunArea:
    """What one run's environments have on the host."""

    def __init__(self, top: Folder, short: Folder, user: int) -> None:
        """`short` is where links with short names lie, since a unix socket's address holds 107
        bytes.
        """
        self.folder = top.path
        self._top, self.short = top, short
        self._owner = (user, user) if os.geteuid() == 0 else None
        self._moved: dict[str, Path] = {}
        # of copies and links, also of those that are gone: what is used has its name for itself
        self._numbers = itertools.count()
        self._links: dict[Path, Path] = {}

    def own(self, *parts: str) -> Path:
        """A folder of an environment's own, which nobody else may enter."""
        with self.held(*parts) as folder:
            return folder.path

    def held(self, *parts: str) -> Folder:
        """The same, held open."""
        folder = self._top.folder("/".join(parts), make=True, mode=0o711)
        folder.give(0o700, self._owner)
        return folder

    def real(self, mount: Mount) -> Path:
        """Where what a mount shows lies for an environment:
        at its source where its user can get there, else in a copy that lives as long as the run.
        """
        known = self._moved.get(mount.source)
        if known is not None:
            return known
        source = Path(mount.source)
        if self._owner is None:
            if mount.above and not any(source.iterdir()):
                copied_tree.copy(Path(mount.above), source)
            self._moved[mount.source] = source
            return source
        place = self.own("moved", str(next(self._numbers)))
        copied_tree.copy(Path(mount.above) if mount.above else source, place, owner=self._owner)
        self._moved[mount.source] = place
        return place

    def give_back(self, mount: Mount) -> None:
        """What was prepared in a copy becomes the content of its source, an empty folder."""
        place, source = self._moved.get(mount.source), Path(mount.source)
        if (
            place is None
            or self._owner is None
            or mount.names_paths
            or mount.target.startswith("/run/")
        ):
            return
        copied_tree.copy(place, source, owner=(os.geteuid(), os.getegid()))
        del self._moved[mount.source]
        tree_removal.remove_tree(place)

    def named(self, place: Path) -> str:
        """A name for a folder that is short enough for sockets in it."""
        if len(str(place)) < _SUN_PATH_ROOM:
            return str(place)
        if place not in self._links:
            name = str(next(self._numbers))
            os.symlink(place, name, dir_fd=self.short.descriptor)
            self._links[place] = self.short.path / name
        return str(self._links[place])


class Given(NamedTuple):
    """What an environment without mounts gets on the host."""

    ground: RunArea
    # its own folder
    root: Path
    # the workspace's copy, and its home's .cache; empty where there is none
    copy: str = ""
    cache: str = ""


def describe(
    spec: EnvironmentSpec,
    host: HostFacts,
    homes: cgroups.Homes,
    given: Given,
    *,
    landlock: bool = True,
) -> Described:
    """The environment without mounts. Makes its folders."""
    ground, root, copy_root, cache = given
    identity = description.identity_of(spec)
    plan = description.mounts_of(spec, host, description.view_of(spec))
    parts = root.relative_to(ground.folder).parts
    ground.own(*parts)
    home, temporary = ground.own(*parts, "home"), ground.own(*parts, "tmp")
    shown = [mount for mount in spec.mounts if mount.writable or mount.source != mount.target]
    real = {mount.target: ground.real(mount) for mount in shown}
    places = _places(spec, given, home, temporary, real)
    for mount in shown:
        if mount.names_paths:
            with Folder.at(real[mount.target]) as folder:
                _lead(folder, places)
    written = [copy_root] if copy_root else []
    written += [str(home), str(temporary)]
    written += [str(real[mount.target]) for mount in shown if mount.writable]
    if cache:
        with Folder.at(home) as folder:
            os.symlink(cache, ".cache", dir_fd=folder.descriptor)
        written.append(cache)
    with ground.held(*parts, "etc") as folder:
        texts = _texts(identity, plan.mounts, folder, str(home))
    writable = [os.path.realpath(path) for path in written]
    trees = [path for path in plan.executable if path not in real]
    seen = plan._replace(
        mounts=[],
        readable=[*(f"/etc/{name}" for name in host.etc), *FACTS],
        executable=[*trees, *(str(real[m.target]) for m in shown if not m.writable)],
        writable=writable,
    )
    runs = {target: str(place) for target, place in real.items() if target.startswith("/run/")}
    filesystem = description.filesystem_of(
        spec,
        seen,
        root,
        lasting=writable,
        project=os.path.realpath(copy_root) if copy_root else "",
        sockets=map(os.path.realpath, runs.values()),
        socket_folders=runs,
    )
    rlimits = description.rlimits_of(spec, homes)
    # The kernel counts all processes of a user, and there may be others of ours.
    rlimits["RLIMIT_NPROC"] += process_tree.tasks_of(identity["user"])
    told = description.sandbox_spec(
        spec,
        identity,
        filesystem,
        description.limits_of(spec, homes, rlimits),
        landlock=landlock,
        host_namespaces={"texts": texts, "devices": list(DEVICES)},
    )
    filled = tuple(Path(folder) for folder in (copy_root, cache) if folder)
    return Described(told, filled, places, str(temporary))


def _places(
    spec: EnvironmentSpec, given: Given, home: Path, temporary: Path, real: Mapping[str, Path]
) -> PathMap:
    """Where paths inside lie; `real` is where each mount's target does."""
    ground, workspace = given.ground, spec.workspace.root if spec.workspace else ""
    tools = description.tools_of(spec)
    # They are what they say, although they may lie below /tmp.
    kept = [str(ground.folder), str(ground.short.path)]
    kept += [tool for tool in tools if not workspace or not is_within(tool, workspace)]
    pairs = [(path, path) for path in kept]
    pairs += [(HOME, str(home)), (TEMPORARY, str(temporary))]
    pairs += [(target, ground.named(place)) for target, place in real.items()]
    pairs += [(workspace, given.copy)] if workspace else []
    return PathMap(pairs)


def _texts(identity: Identity, mounts: Iterable[MountOp], etc: Folder, home: str) -> dict[str, str]:
    """The files of /etc that an environment finds instead of the host's,
    with its own user in them.
    """
    user, group = identity["user"], identity["group"]
    made = {
        f"{mount['target']}/{name}": text
        for mount in mounts
        if mount["kind"] == "files"
        for name, text in mount["texts"].items()
    }
    made["/etc/passwd"] = etc_files.passwd(user, group, home)
    made["/etc/group"] = etc_files.group(group)
    # over a stream the answer's address is not asked for
    made["/etc/resolv.conf"] = "nameserver 127.0.0.1\noptions timeout:1 attempts:1 use-vc\n"
    found = {}
    for path, text in made.items():
        name = os.path.basename(path)
        with os.fdopen(etc.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        found[path] = str(etc.path / name)
    return found


def _lead(folder: Folder, places: PathMap) -> None:
    """Lead the paths that a service's own files name to where they are."""
    for name in folder.names():
        try:
            with folder.reading(name) as file:
                text = os.fsdecode(file.read())
        except OSError as error:
            if is_misplaced(error):
                continue  # no file
            raise
        if (led := places.translate(text)) != text:
            with os.fdopen(folder.open_own(name, os.O_WRONLY), "wb") as file:
                os.ftruncate(file.fileno(), 0)
                file.write(os.fsencode(led))
