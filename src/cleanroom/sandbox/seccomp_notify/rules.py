"""The rules by which held calls of one environment are judged. Values only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cleanroom.sandbox.kernel.landlock import DEVICES

# Caches and state that libraries keep for the whole system where they may, and do without where
# they may not: fontconfig's, libuuid's clock, manual pages; where /tmp is the host's, a JVM's.
_SYSTEM_CACHES = (
    "/var/cache/fontconfig/",
    "/var/lib/libuuid/",
    "/var/cache/man/",
    "/tmp/hsperfdata_",
)


def is_system_cache(path: str) -> bool:
    """Whether a library that may not change the canonical `path` does without."""
    return f"{path}/".startswith(_SYSTEM_CACHES)


class Grants(NamedTuple):
    """Paths and ports that one environment may write, reach, start and listen on.

    Paths are those of its own view, canonical.
    """

    writable: Iterable[str]
    # mounted tools, whose byte code cannot be cached
    read_only: Iterable[str] = ()
    # folders in which unix sockets of services may be reached
    sockets: Iterable[str] = ()
    # from level High on: where programs lie that may be started; empty: no allowlist
    programs: Iterable[str] = ()
    # where the kernel lets programs be started, so that the recorder alone refuses
    startable: Iterable[str] = ()
    ports: Iterable[int] = ()
    # below level High: whether a process may write the memory of another one inside, as ptrace does
    tracing: bool = False
    devices: Iterable[str] = DEVICES
    # without an allowlist: folders that are mounted without exec
    noexec: Iterable[str] = ()
    # folders of the host that are written in place
    lasting: Iterable[str] = ()
    # folder of the workspace; empty where there is none
    project: str = ""


class Rules:
    """Decides by prefixes of canonical paths, which end with a slash here."""

    def __init__(self, grants: Grants) -> None:
        self.writable = _prefixes(grants.writable) + _prefixes(grants.devices)
        self.read_only = _prefixes(grants.read_only)
        self.sockets = self.writable + _prefixes(grants.sockets)
        self.programs = _prefixes(grants.programs)
        self.startable = _prefixes(grants.startable)
        self.noexec = _prefixes(grants.noexec)
        self.lasting = _prefixes(grants.lasting)
        self.project = grants.project.rstrip("/")
        # a path below one of these that does not exist inside is no path of the host
        self.private = (*self.writable, *self.read_only, *self.programs, "/proc/", "/sys/")
        self.ports = frozenset(grants.ports)
        self.tracing = grants.tracing
        # tools that are mounted below a writable folder
        self.nested_tools = tuple(path for path in self.read_only if path.startswith(self.sockets))

    def may_write(self, path: str) -> bool:
        """Whether the canonical `path` lies in a writable folder, and not in a tool below it."""
        return self._lies_in(path, self.writable)

    def may_reach(self, path: str) -> bool:
        """Whether a unix socket at the canonical `path` may be connected."""
        return self._lies_in(path, self.sockets)

    def may_start(self, path: str) -> bool:
        """Whether the program at the canonical `path` may be started.

        With an allowlist it has to be on it; without one it has to lie outside of noexec mounts.
        """
        if self.programs:
            return f"{path}/".startswith(self.programs)
        return not path.startswith(self.noexec)

    def lasts(self, path: str) -> bool:
        """Whether the file at the canonical `path` is the host's own and outlives the run."""
        return f"{path}/".startswith(self.lasting)

    def is_fixed(self, path: str) -> bool:
        """Whether the name at the canonical `path` must not be created, renamed or removed.

        It is a folder of ggen or of the engine, in the project and in projects within it.
        """
        if not self.project or not path.startswith(f"{self.project}/"):
            return False
        return path.endswith(("/.ggen", "/.ggen/cleanroom"))

    def may_remove(self, path: str) -> bool:
        """Whether a fixed name may be removed: ggen's folder of a project within the project."""
        return path != f"{self.project}/.ggen" and path.endswith("/.ggen")

    def _lies_in(self, path: str, folders: tuple[str, ...]) -> bool:
        path = f"{path}/"
        if not path.startswith(self.nested_tools):
            return path.startswith(folders)
        # the innermost mount counts
        return _innermost(path, folders) > _innermost(path, self.nested_tools)


def _prefixes(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(path.rstrip("/") + "/" for path in paths)


def _innermost(path: str, folders: tuple[str, ...]) -> int:
    """Length of the innermost of `folders` around `path`; 0 if there is none."""
    return max((len(folder) for folder in folders if path.startswith(folder)), default=0)
