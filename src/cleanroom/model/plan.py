"""The plan: the frozen result of reading a project's files.

`project/` makes a `Plan`, `engine/` runs it.
Paths are absolute; durations are seconds; sizes are bytes.
Nothing here does I/O.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cleanroom.model.policy import Level, Policy, lowest_first

Role = Literal["phase", "hook", "prerequisite"]
ServiceKind = Literal["postgres", "redis", "generic"]
BackendName = Literal["auto", "embedded", "docker", "podman", "kubernetes", "memory"]


class Origin(msgspec.Struct, frozen=True):
    """A position in a file. Line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """When a generic service is ready. Exactly one of the first four is set."""

    tcp: int = 0  # port
    http: str = ""  # URL path with port, such as ":8080/health"
    log: str = ""  # regular expression on the service's output
    command: str = ""  # shell command, ready when it exits 0
    timeout_seconds: float = 30.0


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One service as the project declares it."""

    name: str
    kind: ServiceKind
    version: str = ""  # "" is whatever the found binary is
    image: str = ""
    command: tuple[str, ...] = ()
    ready: Ready | None = None
    port: int = 0  # the port a phase finds it on at 127.0.0.1
    ports: dict[str, int] = {}  # further ones by name, the same inside and for phases
    after: str = ""  # the phase that has to pass before it starts
    depends_on: tuple[
        str, ...
    ] = ()  # services that are ready before it starts, and that it reaches
    replica_of: str = ""  # the declared service that it is a further one of
    needs: str = ""  # the program that an everyday service cannot be without
    install: str = ""  # how that program is installed, for people
    env: dict[str, str] = {}  # variables a phase gets; {host} and {port} are filled in
    variables: dict[str, str] = {}  # environment of the service process itself
    init: tuple[str, ...] = ()  # SQL files, dumps and folders of them, absolute
    initdb: tuple[str, ...] = ()  # further options of initdb
    databases: tuple[str, ...] = ()  # further ones, of the phase's role
    users: dict[str, str] = {}  # further ones, each with what it may do
    options: dict[str, str] = {}  # server settings
    createdb: bool = True  # the phase's role may make databases
    superuser: bool = False
    tls: bool = False  # phases may, and by its variables do, connect with TLS
    restarts_max: int = 3
    restart_window_seconds: float = 60.0
    origin: Origin | None = None


# mise's file has a name of its own inside, where a variable names it: the folder that it is in on
# the host (~/.config) would belong to whoever makes it, and programs write there.
MISE_FILE = ".mise-global.toml"


class PhaseRun(msgspec.Struct, frozen=True, kw_only=True):
    """One phase at its place in the order; hooks and prerequisites are entries of their own."""

    name: str
    commands: tuple[str, ...]
    role: Role = "phase"
    of: str = ""  # for a hook or prerequisite: the phase it belongs to
    hermetic: bool = True
    policy: Policy
    services: tuple[str, ...] = ()
    timeout_seconds: float
    budget_seconds: float | None = None
    outputs: tuple[str, ...] | None = None  # None: every change of a phase that passed
    # from level High on: programs in folders among the outputs may be started
    builds: bool = False
    variables: dict[str, str] = {}  # set inside
    passed: tuple[str, ...] = ()  # names handed over from the caller's environment
    tools: tuple[str, ...] = ()  # further folders mounted read-only
    working_directory: str = ""  # absolute; "" is the workspace's root
    image: str = ""
    telemetry: bool = False
    cache_inputs: tuple[str, ...] = ()  # patterns of files; none: it runs every time
    description: str = ""
    idle: str = ""  # the command that is an interpreter with nothing to do, where all of them are
    dependencies: str = ""  # what helps where its packages are not in the project
    origin: Origin | None = None

    @property
    def runs_commands(self) -> bool:
        """Whether a command is not blank."""
        return any(command.strip() for command in self.commands)


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """A root folder and the phases that run in it, in order."""

    name: str  # "" for the project itself
    path: str
    phases: tuple[PhaseRun, ...]


class ToolFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the home of phases that are shown a version manager: which versions are used."""

    name: str
    text: str
    of: str  # the version manager's folder


class Ignored(msgspec.Struct, frozen=True):
    """A key that was read and does nothing, as in ggen."""

    key: str
    line: int
    reason: str = ""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much of earlier runs' records a project keeps; None: no limit."""

    runs: int | None = None
    age_seconds: float | None = None
    size_bytes: int | None = None

    def __bool__(self) -> bool:
        return self != Retention()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a run, decided before anything starts."""

    project: str
    root: str
    file: str  # make.toml
    dialect: Literal["A", "B", "C", "D", "E"]
    environment: str  # --env, GGEN_ENV or ""
    backend: BackendName
    policy: Policy  # the project's; phases may differ
    requested: tuple[str, ...]  # the phases that were named
    workspaces: tuple[Workspace, ...]
    parallel: bool = False  # workspaces at once
    services: tuple[ServiceSpec, ...] = ()  # those some phase names, in file order
    tools: tuple[str, ...] = ()  # read-only mounts for the caller's programs
    # what the project's own virtual environments lead to: shown in containers too
    own_tools: tuple[str, ...] = ()
    # what these programs need to be told inside, such as RUSTUP_HOME
    tool_variables: dict[str, str] = {}
    # what these programs read from the home folder
    tool_files: tuple[ToolFile, ...] = ()
    # files in their folders that name credentials: shown empty
    tool_credentials: tuple[str, ...] = ()
    retention: Retention = Retention()
    slo_seconds: float = 20.0
    strict_slo: bool = False
    seed: int = 42
    ignored: tuple[Ignored, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader of the plan should know
    allow_degraded: tuple[str, ...] = ()  # rules that file and command line both let go
    # nothing comes back to the project, and no phase is skipped or recorded
    dry_run: bool = False
    files: tuple[str, ...] = ()  # make.toml of the project and of its workspaces, there or not
    # a phase of the project has egress, whether it is in this run or not
    fetching: bool = False
    named: tuple[str, ...] = ()  # what they name to be run: programs, scripts, services' init files

    @property
    def phases(self) -> tuple[PhaseRun, ...]:
        """All phases of all workspaces, in the order of a sequential run."""
        return tuple(phase for workspace in self.workspaces for phase in workspace.phases)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of its hermetic phases, the lowest first; the project's where it has none."""
        found = {phase.policy.level for phase in self.phases if phase.hermetic} or {
            self.policy.level
        }
        return lowest_first(found)

    @property
    def shown_names(self) -> tuple[str, ...]:
        """Names that every report shows: what is part of one is no secret."""
        phases = (phase.name for phase in self.phases)
        return (self.project, self.root, *phases, *(service.name for service in self.services))
