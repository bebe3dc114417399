"""Mount plans of level Low: the host's whole root, read-only, with the workspace in place.

The root is a fresh one, as at every level, on which the host's top folders stand.
So /dev, /proc, /tmp and /run can be private, and /run has room for the sockets of services.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.filesystem import etc_files
from cleanroom.sandbox.filesystem.constants import USER_ID
from cleanroom.sandbox.filesystem.mount_ops import (
    STAGING,
    STAGING_BYTES,
    bind,
    ggen_folder,
    home_cache,
    make_folder,
    make_link,
    private_folders,
    replace_file,
    tmpfs,
)
from cleanroom.sandbox.filesystem.mount_plan import (
    TEMPORARY,
    HostFacts,
    MountPlan,
    View,
    host_mounts,
    written_mounts,
)
from cleanroom.sandbox.filesystem.paths import parents_first

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MountOp

_PRIVATE = ("proc", "dev", "tmp", "run")
_REPLACED = ("hosts", "passwd", "group", "nsswitch.conf")


class RootFacts(NamedTuple):
    """The host's whole root, and the files of /etc that are replaced."""

    # path of a top entry, or of one in /run -> target of the link; empty for what is no link
    entries: Mapping[str, str]
    # name in /etc -> its text
    texts: Mapping[str, str]
    # name in /etc -> where the file really lies, links resolved
    real_paths: Mapping[str, str]
    # the caller's home; empty where none is known
    home: str
    # whether the home has a `.cache` folder
    has_cache: bool


def read_root_facts(home: str) -> RootFacts:
    """Read the facts of this host; `home` is the caller's home folder, or empty."""
    entries = {}
    for folder in ("/", "/run"):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if folder != "/" or name not in _PRIVATE:
                entries[path] = os.readlink(path) if os.path.islink(path) else ""
    texts, real_paths = {}, {}
    for name in _REPLACED:
        try:
            with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
                texts[name] = file.read()
        except OSError:
            continue
        # A mount on a link would cover the link itself: other paths to the file would show it.
        real_paths[name] = os.path.realpath(f"/etc/{name}")
    has_cache = os.path.isdir(f"{home}/.cache") if home else False
    return RootFacts(entries, texts, real_paths, home, has_cache)


def plan(host: HostFacts, root: RootFacts, view: View) -> MountPlan:
    """The plan of one environment, which has a workspace.

    The layers of the home's cache cover the `.cache` of the caller's home, if there is one.
    """
    assert view.workspace is not None
    workspace, home = view.workspace.root, root.home
    cache_folder = f"{home}/.cache" if view.cache and root.has_cache else ""
    tools = parents_first([*view.tools, *([home] if len(home) > 1 else [])])
    mounts: list[MountOp] = [
        # First, since the host's top entries may contain the folder in which the root is built.
        {"kind": "unbindable", "target": "/"},
        make_folder("/run"),
        *_entries(root),
        *private_folders(host.devices, view.tmpfs_bytes),
        *_replaced_files(root, view),
        *(bind(tool, tool, tool=True) for tool in tools),
        *([home_cache(view.cache, cache_folder)] if view.cache and cache_folder else []),
        # After the home, in which it may lie: a later mount covers an earlier one.
        bind(workspace, workspace, writable=True),
        *ggen_folder(workspace, view.masked),
        *host_mounts(view),
    ]
    written = [
        workspace,
        *TEMPORARY,
        "/dev/shm",
        "/dev/pts",
        *(f"/dev/{name}" for name in sorted(host.devices)),
        *([cache_folder] if cache_folder else []),
        *written_mounts(view),
    ]
    return MountPlan(mounts, [], ["/", *tools], written, [], [])


def _entries(root: RootFacts) -> list[MountOp]:
    """The host's top entries and those of /run, which may go away meanwhile."""
    return [
        make_link(path, target) if target else bind(path, path, optional=path.startswith("/run/"))
        for path, target in root.entries.items()
    ]


def _replaced_files(root: RootFacts, view: View) -> list[MountOp]:
    """Texts over files of /etc; the folder in which they lie is covered afterwards."""
    texts = _texts(root, view)
    return [
        tmpfs(STAGING, size=STAGING_BYTES, mode=0o755, exec=False),
        *(
            replace_file(root.real_paths[name], text)
            for name, text in texts.items()
            if name in root.real_paths
        ),
        *(replace_file(path, text) for path, text in view.size_files),
        tmpfs(STAGING, size=0, mode=0o555, exec=False, read_only=True),
    ]


def _texts(root: RootFacts, view: View) -> dict[str, str]:
    """The host's texts with lines for this environment in front.

    Its own name, its user, and where names are looked up.
    """
    own = {
        "hosts": etc_files.hosts_lines(view.run_id, view.names),
        "passwd": [etc_files.passwd_line(USER_ID, USER_ID, root.home or "/")],
        "group": [etc_files.group_line(USER_ID)],
        "nsswitch.conf": ["hosts: files dns"],
    }
    texts = {}
    for name, text in root.texts.items():
        others = [line for line in text.splitlines() if not _is_replaced(name, line)]
        texts[name] = "\n".join([*own[name], *others]) + "\n"
    return texts


def _is_replaced(name: str, line: str) -> bool:
    """Whether a line of the host's file says the same as one of the environment's own."""
    if name == "nsswitch.conf":
        return line.startswith("hosts:")
    return name != "hosts" and line.split(":")[2:3] == [str(USER_ID)]
