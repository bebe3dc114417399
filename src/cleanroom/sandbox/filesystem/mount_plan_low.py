"""What an environment of level Low sees: the whole root, read-only,
with a private /tmp and the workspace in place.

A fresh root as at every level, on which the host's top folders stand;
so /dev, /proc and /run can be its own, and a service's socket has a place in /run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.filesystem.constants import USER, USER_ID
from cleanroom.sandbox.filesystem.mount_plan import (
    HomeLayers,
    Host,
    View,
    bind,
    evidence,
    host_name,
    innermost_last,
    kept,
    make_folder,
    make_link,
    private,
    tmpfs,
)

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import MountOp, ReplaceFile

_OWN = ("proc", "dev", "tmp", "run")  # made anew
_HELD = "/.over"  # where the texts lie that stand in the place of files of /etc
_OVER = ("hosts", "passwd", "group", "nsswitch.conf")


class Whole(NamedTuple):
    """What has to be known of the host; `look` reads it."""

    # path of a top entry, or of one in /run -> where it links to; empty for what is no link
    entries: Mapping[str, str]
    texts: Mapping[str, str]  # of /etc -> what it says
    places: Mapping[str, str]  # of /etc -> where the file really lies
    cache: bool  # the home has a .cache folder


def look(home: str) -> Whole:
    """Read the host's facts."""
    found = {}
    for folder in ("/", "/run"):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if folder != "/" or name not in _OWN:
                found[path] = os.readlink(path) if os.path.islink(path) else ""
    texts, places = {}, {}
    for name in _OVER:
        try:
            with open(f"/etc/{name}", encoding="utf-8", errors="surrogateescape") as file:
                texts[name] = file.read()
        except OSError:
            continue
        places[name] = os.path.realpath(f"/etc/{name}")
    return Whole(found, texts, places, os.path.isdir(f"{home}/.cache") if home else False)


def view(
    host: Host,
    whole: Whole,
    *,
    run_id: str,
    tmpfs_bytes: int,
    home: str,
    tools: Sequence[str],
    workspace: str,
    masked: Sequence[str] = (),
    mounts: Sequence[tuple[str, str, bool]] = (),
    cache: HomeLayers | None = None,
    names: Iterable[tuple[str, str]] = (),
) -> View:
    """The view of one environment; `home` is the caller's home folder,
    `cache` what becomes its .cache where it has one.
    """
    ops: list[MountOp] = [{"kind": "unbindable", "target": "/"}, make_folder("/run")]
    for path, target in whole.entries.items():
        shown_entry = bind(path, path, optional=path.startswith("/run/"))
        ops.append(make_link(path, target) if target else shown_entry)
    ops += private(host, tmpfs_bytes)
    texts = _texts(whole.texts, run_id, home, names)
    ops.append(tmpfs(_HELD, size=1 << 20, mode=0o755, exec=False))
    ops += [
        _replaced(whole.places[name], text) for name, text in texts.items() if name in whole.places
    ]
    ops.append(tmpfs(_HELD, size=0, mode=0o555, exec=False, read_only=True))
    shown = innermost_last([*tools, *([home] if len(home) > 1 else [])])
    ops += [bind(tool, tool, tool=True) for tool in shown]
    if cache and whole.cache:
        ops.append(kept(cache, f"{home}/.cache"))
    ops.append(bind(workspace, workspace, writable=True))
    ops += evidence(workspace, masked)
    ops += [bind(source, target, writable=writable) for source, target, writable in mounts]
    written = [
        workspace,
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/dev/pts",
        *(f"/dev/{name}" for name in sorted(host.devices)),
        *([f"{home}/.cache"] if cache and whole.cache else []),
        *(target for _, target, writable in mounts if writable),
    ]
    return View(ops, [], ["/", *shown], written, [], [])


def _replaced(path: str, text: str) -> ReplaceFile:
    """A file of /etc with a text of the environment's own."""
    return {"kind": "replace", "target": path, "text": text, "staging": _HELD}


def _texts(
    found: Mapping[str, str], run_id: str, home: str, names: Iterable[tuple[str, str]]
) -> dict[str, str]:
    """Files of /etc as they are, but for what this environment is called, who it is,
    and where names are asked.
    """
    number = str(USER_ID)
    own = {
        "hosts": [
            f"127.0.1.1 {host_name(run_id)}",
            *(f"{address} {known}" for known, address in names),
        ],
        "passwd": [f"{USER}:x:{number}:{number}:{USER}:{home or '/'}:/bin/sh"],
        "group": [f"{USER}:x:{number}:"],
        "nsswitch.conf": ["hosts: files dns"],
    }

    def replaced(name: str, line: str) -> bool:
        return (
            line.startswith("hosts:")
            if name == "nsswitch.conf"
            else name != "hosts" and line.split(":")[2:3] == [number]
        )

    return {
        name: "\n".join(
            [*own[name], *(line for line in text.splitlines() if not replaced(name, line))]
        )
        + "\n"
        for name, text in found.items()
    }
