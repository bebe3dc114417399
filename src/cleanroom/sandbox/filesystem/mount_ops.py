"""Constructors of mount operations, and the groups of them that several plans share.

`sandbox/protocol.py` says what each operation means; `mounts` carries them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        Bind,
        Device,
        ExecFolder,
        MakeFolder,
        MakeLink,
        MountOp,
        Overlay,
        ReplaceFile,
        Tmpfs,
    )


# Folder inside with the texts that are mounted over files.
STAGING = "/.over"
STAGING_BYTES = 1 << 20


class HomeLayers(NamedTuple):
    """Layers of a home's `.cache`: folders of the host."""

    # the layer that is written
    layer: Path
    # folders below it, the newest first; they belong to the project's owner
    lower: tuple[Path, ...]


def bind(
    source: str,
    target: str,
    *,
    writable: bool = False,
    tool: bool = False,
    optional: bool = False,
) -> Bind:
    """Show the host's folder or file `source` at `target`."""
    return {
        "kind": "bind",
        "source": source,
        "target": target,
        "writable": writable,
        "tool": tool,
        "optional": optional,
    }


def make_link(target: str, to: str) -> MakeLink:
    """Make a symbolic link at `target` with the text `to`."""
    return {"kind": "link", "target": target, "to": to}


def make_folder(target: str) -> MakeFolder:
    """Make an empty folder."""
    return {"kind": "folder", "target": target}


def device(source: str, target: str) -> Device:
    """Show a device of the host at `target`."""
    return {"kind": "device", "source": source, "target": target}


def tmpfs(
    target: str,
    *,
    size: int,
    mode: int,
    exec: bool,
    own: bool = False,
    read_only: bool = False,
) -> Tmpfs:
    """Mount a private file system of `size` bytes."""
    return {
        "kind": "tmpfs",
        "target": target,
        "size": size,
        "mode": mode,
        "exec": exec,
        "own": own,
        "read_only": read_only,
    }


def overlay(
    target: str,
    lower: str,
    layers: Sequence[str],
    *,
    kept: Sequence[str] = (),
    exec: bool = True,
) -> Overlay:
    """Stack `kept` and then `layers` on the host's folder `lower`, each the newest first."""
    return {
        "kind": "overlay",
        "target": target,
        "lower": lower,
        "kept": list(kept),
        "layers": list(layers),
        "exec": exec,
    }


def exec_folder(target: str, workspace: str, *, writable: bool) -> ExecFolder:
    """Let programs be started in a folder of the workspace."""
    return {"kind": "exec", "target": target, "workspace": workspace, "writable": writable}


def replace_file(target: str, text: str) -> ReplaceFile:
    """Show a text in place of a file of a shown folder; `STAGING` has to be mounted."""
    return {"kind": "replace", "target": target, "text": text, "staging": STAGING}


# --- groups that several plans share


def home_cache(cache: HomeLayers, target: str, *, exec: bool = True) -> Overlay:
    """The layers of a home's cache at `target`."""
    *above, lowest = map(str, cache.lower)
    return overlay(target, lowest, [str(cache.layer)], kept=above, exec=exec)


def temporary_folders(size: int, *, exec: bool) -> list[MountOp]:
    """Private /tmp and /var/tmp."""
    return [tmpfs(target, size=size, mode=0o1777, exec=exec) for target in ("/tmp", "/var/tmp")]


def private_folders(
    devices: Iterable[str],
    size: int,
    *,
    tmp_exec: bool = True,
    memory_exec: bool = True,
    hide_processes: bool = False,
) -> list[MountOp]:
    """Private /tmp, /var/tmp, /proc and /dev with the host's `devices`; `size` in bytes."""
    streams = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
    return [
        *temporary_folders(size, exec=tmp_exec),
        # proc(5): with hidepid=2 a process sees those of its own user only.
        {"kind": "proc", "target": "/proc", "options": "hidepid=2" if hide_processes else ""},
        make_folder("/dev"),
        *(device(f"/dev/{name}", f"/dev/{name}") for name in sorted(devices)),
        tmpfs("/dev/shm", size=size, mode=0o1777, exec=memory_exec),
        {"kind": "devpts", "target": "/dev/pts"},
        *(make_link(f"/dev/{name}", f"/proc/self/fd{tail}") for name, tail in streams),
        # devpts: terminals that are opened here belong to the instance at /dev/pts.
        make_link("/dev/ptmx", "pts/ptmx"),
    ]


def ggen_folder(workspace: str, masked: Sequence[str]) -> list[MountOp]:
    """Pin the project's `.ggen` and cover the paths `masked` of the workspace."""
    covers = [
        tmpfs(f"{workspace}/{path}", size=0, mode=0o555, exec=False, read_only=True)
        for path in masked
    ]
    return [{"kind": "pin", "target": f"{workspace}/.ggen"}, *covers]
