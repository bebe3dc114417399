"""What an environment sees: a pure function from a description to the list of mounts that init
carries out.

The root is a fresh tmpfs.
On it stand the system's folders and the caller's tools, read-only and at their own paths,
a synthetic /etc, private /tmp, /home, /dev and /proc, and the workspace copy-on-write.
What is not listed here does not exist inside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.filesystem.constants import HOME, USER, USER_ID

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        Bind,
        Device,
        MakeFiles,
        MakeFolder,
        MakeLink,
        MountOp,
        Overlay,
        Tmpfs,
    )

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "srv", "nix", "gnu")
# what is there is neither the system's nor declared: not shown from level High on
UNLISTED = ("opt", "srv")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

# Of /etc only what programs need to start and to name things;
# never accounts, keys, package-manager credentials or service configuration.
# Of a folder
# that has such things too (git's and Maven's settings, the keys below pki) only the rest.
ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "gprofng.rc",
    "host.conf",
    "inputrc",
    "java",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "magic",
    "magic.mime",
    "mailcap",
    "maven/logging",
    "maven/m2.conf",
    "mime.types",
    "networks",
    "openssl",
    "os-release",
    "perl",
    "pki/ca-trust",
    "pki/java",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "protocols",
    "python2.7",
    "python3",
    "python3.10",
    "python3.11",
    "python3.12",
    "python3.13",
    "python3.14",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
    "xml",
)

# Where links in a project may lead and still be brought back:
# folders that are the same for whoever uses the project.
TRUSTED_LINKS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt")


class Host(NamedTuple):
    """What layout has to know of the host; `look` reads it."""

    links: dict[str, str]  # top-level link -> target, such as bin -> usr/bin
    folders: frozenset[str]  # top-level folders
    etc: dict[str, str]  # names of ETC that exist -> "file" or "folder"
    devices: frozenset[str]
    processors: bool  # /sys/devices/system/cpu exists


class HomeLayers(NamedTuple):
    """What is mounted as a home's `.cache`: host folders."""

    own: Path  # the layer that is written
    kept: tuple[Path, ...]  # below it, the newest first; their owner is the project's


def look() -> Host:
    """Read the host's facts."""
    top = [name for name in SYSTEM if os.path.lexists(f"/{name}")]
    links = {name: os.readlink(f"/{name}") for name in top if os.path.islink(f"/{name}")}
    etc = {
        name: "folder" if os.path.isdir(f"/etc/{name}") else "file"
        for name in ETC
        if os.path.exists(f"/etc/{name}")
    }
    return Host(
        links,
        frozenset(name for name in top if name not in links and os.path.isdir(f"/{name}")),
        etc,
        frozenset(name for name in DEVICES if os.path.exists(f"/dev/{name}")),
        os.path.isdir("/sys/devices/system/cpu"),
    )


class View(NamedTuple):
    """The mounts in order, and which paths may be read and written:
    what Landlock and the recorder of held calls are told.
    """

    mounts: list[MountOp]
    readable: list[str]
    executable: list[str]  # readable too: the mounted trees of programs
    writable: list[str]
    programs: list[str]  # from level High on: where what is started lies
    startable: list[str]  # where the kernel lets them be started: of these the recorder chooses


def host_name(run_id: str) -> str:
    """Fixed in a run, different between runs, and nothing that programs know as a sandbox's
    name.
    """
    import hashlib  # OpenSSL's library with it, which the keeper has no need of

    return "h" + hashlib.sha256(run_id.encode()).hexdigest()[:9]


def view(
    host: Host,
    *,
    run_id: str,
    tmpfs_bytes: int,
    tools: Sequence[str],
    workspace: str = "",
    layers: Sequence[str] = (),
    masked: Sequence[str] = (),
    mounts: Sequence[tuple[str, str, bool]] = (),
    overlays: Sequence[tuple[str, str, str]] = (),
    cache: HomeLayers | None = None,
    names: Iterable[tuple[str, str]] = (),
    tmp_exec: bool = True,
    listed: bool = False,
    builds: Sequence[str] = (),
) -> View:
    """The view of one environment.

    `layers` are layer folders, the newest (the one that is written) first;
    without them a `workspace` is not mounted.
    `mounts` are (source, target, writable), `overlays` (folder below, layer that is written,
    target).
    `names` are further (name, address) pairs for the hosts file.

    `listed` (from level High on): of the system only its own folders,
    and nothing that was written is started but what lies in `builds`, folders of the workspace,
    and in /tmp with `tmp_exec`.
    A tool inside the workspace may be started too, and is read-only.

    Build folders are no mounts, since a build removes and renames them. Where there are any, the
    kernel lets programs be started in all of the workspace: whoever could start one elsewhere in
    it could put it into such a folder first.
    """
    if listed:
        host = host._replace(
            folders=host.folders - set(UNLISTED),
            links={k: v for k, v in host.links.items() if k not in UNLISTED},
        )
    ops = _system(host)
    trees = [f"/{name}" for name in sorted(host.folders)]
    shown = [
        tool
        for tool in outermost(tools)
        if not _within(tool, [*trees, *([workspace] if layers else [])])
    ]
    ops += _etc(host, run_id, names)
    ops += _private(host, tmpfs_bytes, tmp_exec, listed)
    # After the private folders: a tool may lie under the host's /tmp.
    ops += [bind(tool, tool, tool=True) for tool in shown]
    if cache:
        ops.append(kept(cache, f"{HOME}/.cache"))
    if layers:
        may_start = not listed or bool(builds)
        ops.append(overlay(workspace, workspace, layers, exec=may_start))
        ops += evidence(workspace, masked)
    built = outermost(builds) if layers and listed else []
    inner = outermost(tools) if layers and listed else []
    closed = [tool for tool in inner if _within(tool, [workspace]) and not _within(tool, built)]
    ops += [exec_folder(tool, workspace, writable=False) for tool in closed]
    ops += [
        exec_folder(build, workspace, writable=True) for build in built if _within(build, closed)
    ]
    ops += [overlay(target, below, [layer]) for below, layer, target in overlays]
    ops += [bind(source, target, writable=writable) for source, target, writable in mounts]
    written = [
        "/tmp",
        "/var/tmp",
        HOME,
        "/dev/shm",
        "/dev/pts",
        *(f"/dev/{name}" for name in sorted(host.devices)),
        *(t for _, t, w in mounts if w),
        *(target for *_, target in overlays),
    ]
    if layers:
        written.insert(0, workspace)
    read_only = [
        *trees,
        *shown,
        *closed,
        *(target for _, target, writable in mounts if not writable),
    ]
    started = [*trees, *shown, *closed, *(["/tmp", "/var/tmp"] if tmp_exec else [])]
    programs = [*started, *built]
    startable = [*started, *([workspace] if built else [])]
    readable = ["/etc", "/proc", "/dev", "/sys", "/run"]
    return View(ops, readable, read_only, written, programs, startable)


def evidence(workspace: str, masked: Sequence[str]) -> list[MountOp]:
    """The project's `.ggen` as a mount point, which stays, and what is hidden in it."""
    hidden = [
        tmpfs(f"{workspace}/{path}", size=0, mode=0o555, exec=False, read_only=True)
        for path in masked
    ]
    return [{"kind": "pin", "target": f"{workspace}/.ggen"}, *hidden]


def covered_sockets(view: View) -> list[Device]:
    """What hides the unix sockets that somebody on the host listens on below folders that are
    shown.

    A read-only mount does not keep anyone from connecting,
    and a held connect that is let go on could be given another path meanwhile.
    """
    return [
        device("/dev/null", path)
        for path in _bound_sockets()
        if _nearest(path, view.executable) > _nearest(path, view.writable)
    ]


def _bound_sockets() -> list[str]:
    """Paths of the unix sockets of this network namespace that exist."""
    with open("/proc/net/unix", "rb") as file:
        rows = [line.rstrip(b"\n").split(None, 7) for line in file]
    paths = {os.fsdecode(row[7]) for row in rows if len(row) == 8 and row[7].startswith(b"/")}
    return sorted(path for path in paths if _is_socket(path))


def _is_socket(path: str) -> bool:
    try:
        return os.path.realpath(path) == path and stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _nearest(path: str, folders: Sequence[str]) -> int:
    """How deep the innermost of `folders` around `path` lies, as its length."""
    return max((len(folder) for folder in folders if _within(path, [folder])), default=0)


def _system(host: Host) -> list[MountOp]:
    links = [make_link(f"/{name}", target) for name, target in sorted(host.links.items())]
    return [*links, *(bind(f"/{name}", f"/{name}") for name in sorted(host.folders))]


def bind(
    source: str,
    target: str,
    *,
    writable: bool = False,
    tool: bool = False,
    optional: bool = False,
) -> Bind:
    """A host folder or file at a place inside."""
    return {
        "kind": "bind",
        "source": source,
        "target": target,
        "writable": writable,
        "tool": tool,
        "optional": optional,
    }


def make_link(target: str, to: str) -> MakeLink:
    """A symbolic link at `target` with the text `to`."""
    return {"kind": "link", "target": target, "to": to}


def make_folder(target: str) -> MakeFolder:
    """An empty folder."""
    return {"kind": "folder", "target": target}


def device(source: str, target: str) -> Device:
    """A device of the host at a place inside."""
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
    """A private file system; `size` in bytes."""
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
    """The host folder `lower` with `kept` and then `layers` above it, each the newest first."""
    return {
        "kind": "overlay",
        "target": target,
        "lower": lower,
        "kept": list(kept),
        "layers": list(layers),
        "exec": exec,
    }


def exec_folder(target: str, workspace: str, *, writable: bool) -> MountOp:
    """A folder of the workspace in which programs may be started."""
    return {"kind": "exec", "target": target, "workspace": workspace, "writable": writable}


def kept(cache: HomeLayers, at: str) -> Overlay:
    """What homes keep, with a layer above it that is written."""
    *above, lowest = map(str, cache.kept)
    return overlay(at, lowest, [str(cache.own)], kept=above)


def _copied(name: str) -> MakeFiles:
    """A small file of a folder of /etc."""
    around = f"/etc/{os.path.dirname(name)}"
    copied = [os.path.basename(name)]
    return {"kind": "files", "target": around, "texts": {}, "source": around, "copied": copied}


def _etc(host: Host, run_id: str, names: Iterable[tuple[str, str]]) -> list[MountOp]:
    name = host_name(run_id)
    hosts = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost",
        f"127.0.1.1 {name}",
        *(f"{address} {known}" for known, address in names),
    ]
    texts = {
        "passwd": (
            f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}:{USER}:{HOME}:/bin/sh\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        ),
        "group": f"root:x:0:\n{USER}:x:{USER_ID}:\nnogroup:x:65534:\n",
        "hosts": "\n".join(hosts) + "\n",
        "hostname": f"{name}\n",
        "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        "nsswitch.conf": (
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
            "protocols: files\nservices: files\n"
        ),
    }
    folders = [known for known, kind in host.etc.items() if kind == "folder"]
    copied = [known for known, kind in host.etc.items() if kind != "folder"]
    flat, deep = (
        [known for known in copied if "/" not in known],
        [known for known in copied if "/" in known],
    )
    return [
        {"kind": "files", "target": "/etc", "texts": texts, "source": "/etc", "copied": flat},
        *map(_copied, deep),
        *(bind(f"/etc/{known}", f"/etc/{known}") for known in folders),
    ]


def _private(host: Host, tmpfs_bytes: int, tmp_exec: bool, listed: bool) -> list[MountOp]:
    made: list[MountOp] = [
        tmpfs(HOME, size=tmpfs_bytes, mode=0o700, exec=tmp_exec and not listed, own=True),
        make_folder("/root"),
        make_folder("/run"),
        make_folder("/var"),
        make_link("/var/run", "/run"),
        *private(host, tmpfs_bytes, tmp_exec=tmp_exec, memory_exec=False, listed=listed),
    ]
    if host.processors:
        made.append(bind("/sys/devices/system/cpu", "/sys/devices/system/cpu"))
    return made


def private(
    host: Host,
    tmpfs_bytes: int,
    *,
    tmp_exec: bool = True,
    memory_exec: bool = True,
    listed: bool = False,
) -> list[MountOp]:
    """What is an environment's own at every level: folders for what passes, processes, devices."""
    streams = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
    return [
        tmpfs("/tmp", size=tmpfs_bytes, mode=0o1777, exec=tmp_exec),
        tmpfs("/var/tmp", size=tmpfs_bytes, mode=0o1777, exec=tmp_exec),
        {"kind": "proc", "target": "/proc", "options": "hidepid=2" if listed else ""},
        make_folder("/dev"),
        *(device(f"/dev/{name}", f"/dev/{name}") for name in sorted(host.devices)),
        tmpfs("/dev/shm", size=tmpfs_bytes, mode=0o1777, exec=memory_exec),
        {"kind": "devpts", "target": "/dev/pts"},
        *(make_link(f"/dev/{name}", f"/proc/self/fd{tail}") for name, tail in streams),
        make_link("/dev/ptmx", "pts/ptmx"),
    ]


def innermost_last(folders: Sequence[str]) -> list[str]:
    """Each once, and no folder after one that lies in it."""
    return sorted({os.path.normpath(folder) for folder in folders})


def outermost(folders: Sequence[str]) -> list[str]:
    """Without those that lie inside another one."""
    kept: list[str] = []
    for folder in sorted({os.path.normpath(folder) for folder in folders}):
        if not _within(folder, kept):
            kept.append(folder)
    return kept


def _within(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
