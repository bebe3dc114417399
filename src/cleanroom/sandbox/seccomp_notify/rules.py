"""What held calls are judged by, and what a judgement says. Values only."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox.kernel.landlock import DEVICES

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Target


class Rules:
    """What one environment may write, reach, start and listen on.

    Paths are those of its own view, canonical, without a slash at the end.
    """

    def __init__(
        self,
        *,
        writable: Iterable[str],
        read_only: Iterable[str] = (),
        services: Iterable[str] = (),
        programs: Iterable[str] = (),
        startable: Iterable[str] = (),
        ports: Iterable[int] = (),
        devices: Iterable[str] = DEVICES,
        not_started: Iterable[str] = (),
        lasting: Iterable[str] = (),
        project: str = "",
    ) -> None:
        self.writable = tuple(path.rstrip("/") + "/" for path in (*writable, *devices))
        # mounted tools, whose byte code cannot be cached
        self.read_only = tuple(path.rstrip("/") + "/" for path in read_only)
        # where unix sockets may be reached
        self.sockets = self.writable + tuple(path.rstrip("/") + "/" for path in services)
        # where what is started lies, from High on
        self.programs = tuple(path.rstrip("/") + "/" for path in programs)
        # where the kernel lets programs be started
        self.startable = tuple(path.rstrip("/") + "/" for path in startable)
        self.not_started = tuple(
            path.rstrip("/") + "/" for path in not_started
        )  # mounted without exec where any other readable program may be started
        # folders of the host's own that are written
        self.lasting = tuple(path.rstrip("/") + "/" for path in lasting)
        self.project = project.rstrip("/")  # the folder of the workspace; empty where there is none
        # what is not there inside is nowhere
        self.own = (*self.writable, *self.read_only, *self.programs, "/proc/", "/sys/")
        self.ports = frozenset(ports)
        # tools shown below a folder of one's own
        self.closed = tuple(path for path in self.read_only if path.startswith(self.sockets))

    def may_write(self, path: str) -> bool:
        """Whether the canonical `path` lies in a folder that may be written,
        and not in a tool's below it.
        """
        return self._inside(path, self.writable)

    def may_reach(self, path: str) -> bool:
        """The same for a unix socket."""
        return self._inside(path, self.sockets)

    def may_start(self, path: str) -> bool:
        """Whether the program at the canonical `path` is on the list, or where there is none,
        not where nothing may be started.
        """
        return (
            f"{path}/".startswith(self.programs)
            if self.programs
            else not path.startswith(self.not_started)
        )

    def lasts(self, path: str) -> bool:
        """Whether what is at the canonical `path` is a file of the host's own, which stays."""
        return f"{path}/".startswith(self.lasting)

    def is_fixed(self, path: str) -> bool:
        """Whether the name at the canonical `path` stays what it is.

        It is where ggen's and the engine's files lie, in the project and in projects within it.
        """
        if not self.project or not path.startswith(f"{self.project}/"):
            return False
        return path.endswith(("/.ggen", "/.ggen/cleanroom"))

    def may_remove(self, path: str) -> bool:
        """Whether a fixed name may be removed: of a project within it that no engine has used."""
        return path != f"{self.project}/.ggen" and path.endswith("/.ggen")

    def _inside(self, path: str, open_folders: tuple[str, ...]) -> bool:
        place = f"{path}/"
        if not place.startswith(self.closed):
            return place.startswith(open_folders)
        # what was mounted on the other counts
        return _nearest(place, open_folders) > _nearest(place, self.closed)


def _nearest(place: str, folders: tuple[str, ...]) -> int:
    """How deep the innermost of `folders` around `place` lies, as its length."""
    return max((len(folder) for folder in folders if place.startswith(folder)), default=0)


# Their refusals only attribute: the empty network, the mounts and Landlock say no as well,
# which canaries have to prove.
KERNEL_HELD = frozenset(
    (
        "network.egress",
        "network.names",
        "network.sockets",
        "filesystem.write",
        "filesystem.metadata",
        "filesystem.reads",
        "process.exec",
    )
)


class Response(NamedTuple):
    """An answer other than "go on": the errno for the caller (0:
    it was done on the caller's behalf) and, unless `rule` is empty, what is recorded.
    """

    errno: int
    rule: str = ""
    target: Target = {}  # noqa: RUF012
    tags: tuple[str, ...] = ()
    alone: bool = False  # nothing but this answer stops it, whatever its rule
    outcome: str = "blocked"  # or "observed": it was done, and is recorded
    value: int = 0  # what the call returns where it was done
    later: bool = False  # it is under way; the answer comes when it is done

    @property
    def to_kernel(self) -> bool:
        """Whether the kernel has to say no by itself, where that is to be proven."""
        return self.rule in KERNEL_HELD and not self.alone

    @property
    def error_name(self) -> str:
        return errno.errorcode.get(self.errno, str(self.errno)) if self.errno else ""
