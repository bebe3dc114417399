"""What a backend is: the small interface between the supervisor and whatever makes environments.

A backend is ignorant of the bus, of phases and of recovery:
it returns values, and the supervisor turns them into events.
It is shaped for containers too: an environment is entered and always left,
commands are executed in it, a service is an environment whose main command keeps running.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
from anyio.abc import ByteStream

from cleanroom.core.beneath import Folder
from cleanroom.model.capability import Attempt, Canary, CapabilityReport, Sample
from cleanroom.model.policy import Level, Policy

Stream = Literal["stdout", "stderr"]
Reach = Literal["public", "documentation", "private"]
CONFLICTS = "conflicts"
# called on the event loop with pieces as they come; must not block
OnOutput = Callable[[Stream, bytes], None]


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A host path shown inside.

    Read-only unless `writable`.

    With `above` the target shows that host folder, which stays as it is:
    what is written goes to `source`, and is found there by the next environment.
    """

    source: str
    target: str
    writable: bool = False
    above: str = ""
    names_paths: bool = False  # it holds a few text files that name paths of the environment


class PortForward(msgspec.Struct, frozen=True, kw_only=True):
    """A way to a service: 127.0.0.1:`port` inside leads to `to` inside the environment called
    `environment`.

    `to` is "unix:/path" or "tcp:PORT", as that environment sees it;
    or, without an environment, "host:/path", a unix socket of the engine's own.
    The name `service` resolves to 127.0.0.1.
    """

    service: str
    port: int
    environment: str
    to: str


class EgressRule(msgspec.Struct, frozen=True, kw_only=True):
    """Declared egress: the relay connects to host:port outside,
    refusing every answer that is no host of the internet.
    """

    host: str
    port: int
    # addresses that the name may lead to; each kind contains the one before
    reach: Reach = "public"


class WorkspaceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The project's folder as an environment sees it: at its own path, copy-on-write,
    `masked` paths hidden.
    """

    root: str
    scratch: str  # a folder outside the project where layers live
    masked: tuple[str, ...] = (".ggen/cleanroom",)


class EnvironmentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One environment, complete: nothing enters that is not named here."""

    id: str  # unique in the run; part of labels, cgroup names and host names
    run_id: str
    role: Literal["phase", "service", "prepare"]
    policy: Policy
    variables: dict[str, str]  # the whole environment of its commands
    working_directory: str = "/"
    workspace: WorkspaceSpec | None = None
    mounts: tuple[Mount, ...] = ()
    port_forwards: tuple[PortForward, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    hosts: dict[str, str] = {}  # further names -> address for the hosts file
    image: str = ""
    # folders that end the image's own PATH, where `variables` have none
    search_last: tuple[str, ...] = ()
    # it has the host's system where others have that of an image
    on_host: bool = False
    home: str = ""  # host folder that becomes the home's .cache; "" is a fresh one
    # host folder whose content lies below that, where a backend `layers_homes`
    home_below: str = ""
    # folders on the way to mounts in which nothing may be made, in a private /tmp too
    closed: tuple[str, ...] = ()
    # files of the mounts that are shown empty, at Medium and above where there are mounts
    emptied: tuple[str, ...] = ()
    # small files in the home: name -> text
    home_files: dict[str, str] = {}
    seed: int = 42
    # declared outputs; in those that are folders programs may be started from level High on
    build_outputs: tuple[str, ...] = ()

    # What a level means for phases: a service, and what prepares its data, never has it.

    @property
    def host_network(self) -> bool:
        """As `Policy` says, of a phase."""
        return self.role == "phase" and self.policy.host_network

    @property
    def host_root(self) -> bool:
        """As `Policy` says, of a phase."""
        return self.role == "phase" and self.policy.host_root

    @property
    def in_place(self) -> bool:
        """As `Policy` says, of a phase."""
        return self.role == "phase" and self.policy.in_place

    @property
    def allowlist(self) -> bool:
        """As `Policy` says, of a phase."""
        return self.role == "phase" and self.policy.allowlist


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. Its output went to `on_output`."""

    exit_code: int  # 128+n for a signal; 127 and 126 as a shell says them
    duration_seconds: float
    started_pid: int = 0  # on the host, where there is one
    timed_out: bool = False
    killed_for: str = ""  # "memory", "pids", ... when a limit of the backend ended it
    # False: the backend has nothing that could run it, so its end verifies nothing
    ran: bool = True


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One path that differs from the workspace's lower state; relative to its root."""

    path: str
    kind: Literal["file", "directory", "symlink", "deleted", "refused"]
    bytes: int = 0
    # for refused: device, socket, FIFO, link that leads out, not decodable, too large
    reason: str = ""
    target: str = ""  # of a symlink
    mode: int = 0  # of a file or directory: its permission bits
    # Another name (a hard link) of the project's file, which the changed one no longer is.
    former_link: str = ""


class WrittenBack(msgspec.Struct, frozen=True, kw_only=True):
    """What was written to the host's project."""

    files: int
    bytes: int
    deleted: int = 0
    conflicts: tuple[str, ...] = ()  # changed on the host meanwhile: ours is under `conflicts/`
    unkept: tuple[str, ...] = ()  # of the conflicts those that ours had removed: nothing is kept
    unremoved: tuple[str, ...] = ()  # deletions that did not come back for a conflict
    refused: tuple[Change, ...] = ()
    failed: tuple[Change, ...] = ()  # could not be written: the disk is full or broken


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something a backend made and that still exists, or a process that outlived its command."""

    kind: str  # process, cgroup, folder, mount, container, network, volume
    name: str
    detail: str = ""


class Renewed(NamedTuple):
    """Whether the next environment sees the project as it is now."""

    # False: what earlier ones changed would be lost
    possible: bool
    # paths that changed in the project and that earlier environments had changed: theirs is shown
    hidden: tuple[str, ...] = ()


@runtime_checkable
class Workspace(Protocol):
    """A copy-on-write view of the project that all phases of a run share,
    later ones seeing what earlier ones did.
    """

    root: str
    # A few paths of another owner or group: phases can read, replace and remove them, not write to
    # them, nor make or remove anything in such a folder, though the caller may.
    unchangeable: tuple[str, ...]
    # A few paths that the caller may not read: phases do not have them.
    unseen: tuple[str, ...]

    async def changes(self, tools: Sequence[str] = ()) -> tuple[Change, ...]:
        """What the environment that was left last changed.

        Call it after leaving, before the next is entered.

        `tools` are folders outside that it was shown at their own paths: links may lead there.
        """

    async def write_back(
        self, paths: Sequence[str] | None, run: Folder, conflicts: str = CONFLICTS
    ) -> WrittenBack:
        """Write the changes at `paths` to the project.

        None means all changes but those in `.git` and `.ggen`, at any depth.
        The phase's version of a conflicting path goes to the folder `conflicts` of `run`,
        the run's own folder.
        Never follows a link, never blocks the event loop.
        """

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        """Count changes of the project between these moments (wall clock) as the run's own.

        Commands on the host write to the project past the workspace.
        """

    async def renew(self, since_ns: int) -> Renewed:
        """Forget what the environment that was left last changed; the next one sees the project as
        it is now, below what earlier ones did.

        Changes of the project since then (wall clock) count as the run's own.
        """

    async def save_changes(self, run: Folder, inside: str) -> None:
        """Copy the last changes to the folder `inside` of `run`, for a person to read.

        Copies nothing if the project has all of them.

        Raises:
            ArtifactError: the disk does not take them.
        """

    async def finish_home(self, keep: bool) -> None:
        """Keep or discard what the environment that was left last wrote to its home's `.cache`.

        Later phases of this level see what was kept.
        """


@runtime_checkable
class Environment(Protocol):
    """A running environment."""

    id: str

    async def prove(self) -> tuple[Canary, ...]:
        """Try what the policy forbids, inside; each must be refused and seen."""

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: OnOutput,
        timeout_seconds: float | None = None,
        terminal: int | None = None,
    ) -> ExecResult:
        """Run a command and wait for it to end.

        A non-zero exit is a result.
        When cancelled, kills it first.

        `terminal` is a descriptor of the caller's, of a pseudo-terminal: the command's three
        streams and its controlling terminal, so that `on_output` gets nothing.

        At `timeout_seconds` it gets SIGTERM, after the policy's grace SIGKILL,
        and the result says `timed_out`.

        Raises:
            EnvironmentFailed: the environment ended while the command ran.
        """

    def attempts(self) -> AsyncIterator[Attempt]:
        """Attempts against the policy, as they happen; ends when the environment does.

        One consumer.
        """

    async def dial(self, to: str) -> ByteStream:
        """Connect to "unix:/path" or "tcp:PORT" inside.

        Raises:
            OSError: nobody listens there.
        """

    def forward(self, listening: socket.socket, to: str) -> None:
        """Forward connections on this listening socket of the host to `to` inside.

        `to` is written as for `dial`.
        Forwarding stops when the environment ends.

        Raises:
            EnvironmentFailed: it has ended.
        """

    def stop_forwarding(self, listening: socket.socket) -> None:
        """Stop accepting on a forwarded socket: a service may outlive that socket's client."""

    async def sample(self, *, last: bool = False) -> Sample | None:
        """Its use of the host now; None when it cannot be read.

        The last one leaves nothing out that is looked at less often.
        """

    async def left_over(self) -> tuple[Leftover, ...]:
        """Processes that are still there although no command runs; called before leaving."""

    async def kill(self) -> None:
        """End every process in it at once."""


@runtime_checkable
class Backend(Protocol):
    """Makes environments on one kind of machinery.

    Entering connects to (or starts) the machinery, leaving always removes everything that was made
    through it, shielded and time-boxed.
    """

    name: str
    # its environments have the host's system and the caller's programs;
    # else those of an image, whose PATH is used
    shows_host: bool
    # its port forwards may lead to an environment that another process made
    forwards_elsewhere: bool
    # its environments run programs, so that dependencies can be fetched in them
    runs_programs: bool

    @property
    def layers_homes(self) -> bool:
        """Whether a home's .cache can have a folder below it, copy-on-write."""
        ...

    async def __aenter__(self) -> Backend: ...

    async def __aexit__(self, *exc: object) -> bool | None: ...

    async def probe(self, level: Level) -> CapabilityReport:
        """What this backend can hold here. Does the thing in a throw-away child; never assumes."""

    async def folder(self, path: Path) -> Any:
        """Make a host folder, below the run's own, for its data that is removed even should the
        engine die.

        Give what comes back to `drop_folder`.
        """

    async def drop_folder(self, folder: Any) -> None:
        """Remove such a folder with all that is in it."""

    def workspace(self, spec: WorkspaceSpec) -> AbstractAsyncContextManager[Workspace]: ...

    def environment(self, spec: EnvironmentSpec) -> AbstractAsyncContextManager[Environment]:
        """Entering creates and starts it; leaving kills its tree and removes it,
        also when cancelled.

        Raises:
            PolicyRefused: something the policy requires could not be put in place.
            EnvironmentFailed: it could not be made.
        """

    def forward_elsewhere(self, environment: str, forward: Callable[[str, int], None]) -> None:
        """Pass the listening socket of each port forward to `environment`, which another process
        made, to `forward`: the address inside, and the descriptor, which stays the backend's.

        Only called where `forwards_elsewhere` is true.
        """

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """The numbers of resources created and removed, and those that still exist.

        Those that still exist are looked for on the machine.
        Called after the backend has been left.
        """
