"""What travels between engine, keeper, wardens, init and relays: the contract of the sandbox.

The engine describes an environment in a `SandboxSpec`.
The keeper forks a warden with it, the warden forks init, and each reads the groups that concern it.
Orders go down, tagged by `op`; messages come up, tagged by `kind`; mounts are tagged by `kind` too.
All of it is JSON (`channel`), so these are types of plain dictionaries and no classes.

Nobody imports this module at run time: the forked processes pay nothing for it.
Sizes are bytes; a path is absolute and canonical unless it says otherwise.
"Inside" is the environment's view, "on the host" the engine's.
"""

from __future__ import annotations

from typing import Literal, TypedDict

# --- mounts: what init carries out, in order, on the root that it builds


class UnbindableRoot(TypedDict):
    """Keep the root that is built out of clones of the host's folder in which it lies."""

    kind: Literal["unbindable"]
    target: str


class MakeFolder(TypedDict):
    """An empty folder of the root."""

    kind: Literal["folder"]
    target: str


class MakeLink(TypedDict):
    """A symbolic link; `to` is its text, absolute or relative."""

    kind: Literal["link"]
    target: str
    to: str


class MakeFile(TypedDict):
    """A small file with this text."""

    kind: Literal["file"]
    target: str
    text: str


class MakeFiles(TypedDict):
    """A folder of small files: some with a text, some copied from the host's folder `source`."""

    kind: Literal["files"]
    target: str
    # file name -> its text
    texts: dict[str, str]
    source: str
    # names of files in `source`; one that the user may not read is left out
    copied: list[str]


class ReplaceFile(TypedDict):
    """A text mounted over a file of a shown folder; nothing where there is no such file."""

    kind: Literal["replace"]
    target: str
    text: str
    # folder inside, a file system of its own, in which the text is kept
    staging: str


class Tmpfs(TypedDict):
    """A private file system in memory."""

    kind: Literal["tmpfs"]
    target: str
    # bytes; 0 is the kernel's default
    size: int
    # permission bits of its root
    mode: int
    # whether programs in it may be started
    exec: bool
    # whether its root belongs to the environment's user
    own: bool
    read_only: bool


class Proc(TypedDict):
    """The processes of the environment's own pid namespace."""

    kind: Literal["proc"]
    target: str
    # as mount(2) takes them, or empty
    options: str


class Devpts(TypedDict):
    """Pseudo terminals of the environment's own."""

    kind: Literal["devpts"]
    target: str


class Device(TypedDict):
    """A device of the host, or one that covers a file."""

    kind: Literal["device"]
    source: str
    target: str


class Bind(TypedDict):
    """A folder or file of the host."""

    kind: Literal["bind"]
    source: str
    target: str
    writable: bool
    # whether it is read with the owner's rights, as the caller's own tools are
    tool: bool
    # whether it may have gone meanwhile
    optional: bool


class Overlay(TypedDict):
    """A folder of the host, copy-on-write."""

    kind: Literal["overlay"]
    target: str
    # the lowest folder, on the host
    lower: str
    # folders of the same owner above `lower`, the newest first
    kept: list[str]
    # layers above those, the newest first, which is the one that is written
    layers: list[str]
    # whether programs in it may be started
    exec: bool


class ExecFolder(TypedDict):
    """A folder of the workspace once more at its own place, where programs may be started."""

    kind: Literal["exec"]
    target: str
    workspace: str
    writable: bool


class PinFolder(TypedDict):
    """A folder once more at its own place: a mount point is not renamed, removed or exchanged."""

    kind: Literal["pin"]
    target: str


MountOp = (
    UnbindableRoot
    | MakeFolder
    | MakeLink
    | MakeFile
    | MakeFiles
    | ReplaceFile
    | Tmpfs
    | Proc
    | Devpts
    | Device
    | Bind
    | Overlay
    | ExecFolder
    | PinFolder
)


# --- the specification of an environment


class Identity(TypedDict):
    """Who the environment is on the host, and whose files it may take for its own."""

    # "root": the engine is root and the environment an ordinary user; "user": both are the caller
    mode: Literal["root", "user"]
    # uid and gid on the host
    user: int
    group: int
    # uid and gid of the project's folder
    owner: int
    owner_group: int


class Filesystem(TypedDict):
    """What the environment sees, and what of it may be read, written and started. Paths inside."""

    # empty folder of the host on which the view is built
    root: str
    mounts: list[MountOp]
    readable: list[str]
    # readable too: trees whose programs may be started
    executable: list[str]
    writable: list[str]
    # writable folders that are the host's own: what is made there stays
    lasting: list[str]
    # the workspace; empty where there is none
    project: str
    # folders in which unix sockets of services may be reached
    sockets: list[str]
    # folder of a service's own sockets -> the host's folder that it is
    socket_folders: dict[str, str]
    # from level High on: only what is named is read and started
    allowlist: bool
    # with `allowlist`: where what is started lies
    programs: list[str]
    # with `allowlist`: where the kernel lets programs be started; the recorder chooses of these
    startable: list[str]


class Forward(TypedDict):
    """A declared service or host, reached at an address of the environment's own."""

    # the service's name, or the host's
    service: str
    # where it is reached inside; empty for all names below a domain
    address: str
    port: int
    # the environment that it leads to; empty for what lies outside of all
    environment: str
    # "unix:/path" or "tcp:PORT" in that environment, "out:HOST:PORT:REACH" or "host:/path" outside
    to: str


class HostNetwork(TypedDict):
    """What is told of the host to an environment that shares the host's network."""

    # addresses of name servers
    resolvers: list[str]
    # the first port that needs no privilege
    first_port: int
    # unix sockets that start programs outside; a folder ends with a slash
    controls: list[str]


class Network(TypedDict):
    """What the environment may reach, and where it may listen."""

    forwards: list[Forward]
    # ports on which it may listen
    ports: list[int]
    # None: its network is its own
    host_network: HostNetwork | None


class ControlGroup(TypedDict):
    """The control group of one environment."""

    # of control groups: 1 or 2
    version: int
    # controller -> the group's folder on the host
    folders: dict[str, str]


class Limits(TypedDict):
    """Bounds of the environment."""

    # the kernel's name of a limit (RLIMIT_...) -> its value; empty where an engine sets them
    rlimits: dict[str, int]
    memory_bytes: int
    # processes and threads
    pids: int
    # processors; 0 is all
    cpus: float
    # those on which its processes run; empty: all, or an engine decides
    processors: list[int]
    # rule -> the limit in words for people
    shown: dict[str, str]
    # None: no group can be made
    cgroup: ControlGroup | None


class Container(TypedDict):
    """Of an environment in a container: how its pid 1 and its view meet."""

    # socket of the host that pid 1 connects to
    socket: str
    # the outermost folders and files that are moved into the container
    targets: list[str]


class HostNamespaces(TypedDict):
    """Of an environment without namespaces: what stands in for its mounts."""

    # path inside -> the host's file that is read instead
    texts: dict[str, str]
    # devices that may be used
    devices: list[str]


class SandboxSpec(TypedDict):
    """One environment, whole."""

    # unique in the run
    id: str
    role: Literal["phase", "service", "prepare"]
    hostname: str
    identity: Identity
    filesystem: Filesystem
    network: Network
    limits: Limits
    # whether Landlock is there
    landlock: bool
    # whether calls are held (seccomp user notification), judged and recorded
    notify: bool
    # at most one of these is set; without either the environment has namespaces of our own
    container: Container | None
    host_namespaces: HostNamespaces | None


# --- what canaries are told and say


class AllowlistExpectations(TypedDict):
    """What the canaries of level High need."""

    # a file that the host has and the list has not
    unread: str
    # a port that was not declared
    port: int
    # a program that is on the list
    program: str
    # a folder of the environment's own
    written: str


class HostNetworkExpectations(TypedDict):
    """What the canaries of level Low need."""

    # one of 127.0.0.1 on which somebody of the host listens
    port: int
    # the socket of a container engine
    runtime: str


class Expectations(TypedDict):
    """Where the decoys are that canaries must not find, and who the engine is."""

    # path and name of unix sockets on which somebody outside listens
    unix: str
    abstract: str
    # whether the folder of `unix` is covered by a private one: connecting leaves no record then
    unix_private: bool
    # a file outside
    secret: str
    # a name that nobody has asked for yet
    name: str
    # folders that exist inside and may not be written
    outside: list[str]
    # a folder that may be written
    temporary: str
    # one of the host's loopback on which somebody listens
    port: int
    # the engine's number, and its start in ticks (field 22 of its stat)
    pid: int
    start: int
    # whether the environment has no namespaces
    bare: bool
    # whether a container's own filter refuses calls before ours could record them
    outer_filter: bool
    # set from level High on
    allowlist: AllowlistExpectations | None
    # set at level Low
    host_network: HostNetworkExpectations | None


class CanaryResult(TypedDict):
    """What one canary found, in the shape of capability.Canary."""

    name: str
    dimension: str
    rule: str
    # names of errnos, or "works"
    expected: str
    found: str
    result: Literal["passed", "failed"]


class CanaryRun(CanaryResult):
    """The same before it was held against the records."""

    # fields of the target under which a record has to appear; empty where nothing records it
    seen: Target


# --- what is recorded


class Target(TypedDict, total=False):
    """What was tried, in the shape of capability.Target: only the fields that apply."""

    path: str
    host: str
    ip: str
    port: int
    proto: str
    sun_path: str
    signal_pid: int
    syscall: str
    limit: str


class Process(TypedDict, total=False):
    """Who tried it, in the shape of capability.Process."""

    # on the host
    pid: int
    # inside
    ns_pid: int
    ppid: int
    exe: str
    comm: str
    argv: list[str]
    cwd: str
    uid: int


class Attempt(TypedDict):
    """One attempt, or several that are the same, in the shape of capability.Attempt."""

    dimension: str
    rule: str
    outcome: str
    mechanism: str
    certainty: str
    target: Target
    process: Process | None
    # why `process` is missing
    attribution_gap: str
    syscall: str
    # its name; empty where the call worked
    errno: str
    tags: list[str]
    count: int
    # of the first and the last of them, Unix time in nanoseconds
    first_unix_ns: int
    last_unix_ns: int


class LivingProcess(TypedDict):
    """A process that outlived its command."""

    ns_pid: int
    comm: str
    argv: list[str]


# --- what the kernel was found to hold


class MissingRule(TypedDict):
    """A rule that cannot be held, in the shape of capability.Missing."""

    rule: str
    why: str
    hint: str


class Dimension(TypedDict):
    """A row of capability.DimensionReport."""

    dimension: str
    enforced: str
    detected: str
    attributed: str
    completeness: str
    mechanism: str
    evidence: str


# by what environments are kept apart
Mode = Literal["namespaces", "bare"]


class ProbeReport(TypedDict):
    """What this machine can hold."""

    # E1 to E4
    tier: str
    mode: Mode
    # whether Landlock works
    landlock: bool
    # whether a filter around us refuses calls before ours is asked
    outer_filter: bool
    dimensions: list[Dimension]
    missing: list[MissingRule]
    # level -> what it lacks
    levels: dict[str, list[MissingRule]]
    # rule -> by what it is held
    mechanisms: dict[str, str]
    notes: list[str]


# --- engine to keeper


class OpenEnvironment(TypedDict):
    """Fork a warden. Brings the warden's end of a channel to the engine."""

    op: Literal["open"]
    spec: SandboxSpec


class EndEnvironment(TypedDict):
    """Kill a warden that does not end by itself."""

    op: Literal["end"]
    environment: str


class Probe(TypedDict):
    """Find out what this machine holds."""

    op: Literal["probe"]
    # an existing folder, on the file system where layers will lie
    scratch: str


class KeepJournal(TypedDict):
    """Brings the journal, in which the keeper writes what it removed."""

    op: Literal["journal"]


class HoldFiles(TypedDict):
    """Brings files to hold open until the last of the run is removed."""

    op: Literal["hold"]


class OwnFolder(TypedDict):
    """Remove a folder should the owner die. Brings the folder around it."""

    op: Literal["own"]
    folder: str
    # in the folder around it
    name: str


class DisownFolder(TypedDict):
    """The folder is gone, or somebody else's."""

    op: Literal["disown"]
    folder: str


class ExpectContainers(TypedDict):
    """Environments in containers will follow, whatever is opened first."""

    op: Literal["containers"]


class TrackContainer(TypedDict):
    """How far a container is that has to be removed should the owner die."""

    op: Literal["container"]
    step: Literal["asked", "made", "gone"]
    name: str
    run_id: str
    # socket of the container engine
    engine: str


class Goodbye(TypedDict):
    """The owner has removed everything itself."""

    op: Literal["bye"]


# --- to a relay; to a service's it goes through its warden


class Relay(TypedDict):
    """Lead whoever connects to `to`. Brings a listening socket, and where to report refusals."""

    op: Literal["relay"]
    # as in `Forward`
    to: str


class StopRelay(TypedDict):
    """Close the listening socket of this inode."""

    op: Literal["drop"]
    inode: int


class Dial(TypedDict):
    """Connect to `to`; the answer is `Dialed` or `DialFailed`."""

    op: Literal["dial"]
    n: int
    to: str


RelayOrder = Relay | StopRelay | Dial

KeeperOrder = (
    OpenEnvironment
    | EndEnvironment
    | Probe
    | Relay
    | KeepJournal
    | HoldFiles
    | OwnFolder
    | DisownFolder
    | ExpectContainers
    | TrackContainer
    | Goodbye
)


# --- engine to warden, and on to init; `n` is the order's number, which the answer bears


class Kill(TypedDict):
    """End the environment."""

    op: Literal["kill"]


class Prove(TypedDict):
    """Try what the policy forbids; the answer is `Proved` or `ProofFailed`."""

    op: Literal["prove"]
    n: int
    expect: Expectations
    # whether to prove the limits too
    limits: bool


class Execute(TypedDict):
    """Start a command. Brings its three streams; answers are `Started` and `Exited`.

    Where its standard input is a terminal, that is its controlling terminal too.
    """

    op: Literal["exec"]
    n: int
    argv: list[str]
    env: dict[str, str]
    cwd: str


class Signal(TypedDict):
    """Send a signal to the process group of the command with that number."""

    op: Literal["signal"]
    n: int
    signal: int


class ListProcesses(TypedDict):
    """Say which processes are there although no command runs; the answer is `Processes`."""

    op: Literal["left"]
    n: int


PassedOrder = Prove | Execute | Signal | ListProcesses
WardenOrder = Kill | RelayOrder | PassedOrder


# --- warden to init


class CopyUp(TypedDict):
    """Copy something up ahead of a held call; the answer is `CopiedUp`. Paths inside."""

    op: Literal["copy_up"]
    # folders that are to be of the upper layer alone
    folders: list[str]
    # files, each by all of its names
    names: list[list[str]]


InitOrder = PassedOrder | CopyUp


# --- keeper to engine


class Up(TypedDict):
    """The keeper takes orders."""

    kind: Literal["up"]


class Probed(TypedDict):
    """What this machine holds."""

    kind: Literal["probed"]
    report: ProbeReport


class ProbeFailed(TypedDict):
    """It could not be found out."""

    kind: Literal["probe_failed"]
    error: str


class Closed(TypedDict):
    """A warden has ended, and what was made for it is removed but for the groups `left`."""

    kind: Literal["closed"]
    environment: str
    left: list[str]


KeeperMessage = Up | Probed | ProbeFailed | Closed


# --- init to warden, and on to the engine


class Restricted(TypedDict):
    """Init has given up every privilege."""

    kind: Literal["restricted"]


class Failed(TypedDict):
    """The environment could not be made."""

    kind: Literal["failed"]
    why: str


class Started(TypedDict):
    """A command runs."""

    kind: Literal["started"]
    n: int
    # inside
    pid: int


class Exited(TypedDict):
    """A command has ended."""

    kind: Literal["exited"]
    n: int
    # 128+n for a signal; 127 and 126 as a shell says them
    status: int


class CanariesRun(TypedDict):
    """What canaries found, to be held against the records."""

    kind: Literal["canaries"]
    n: int
    results: list[CanaryRun]
    limits: list[CanaryResult]


class ProofFailed(TypedDict):
    """The canaries did not come to their end."""

    kind: Literal["proof_failed"]
    n: int
    why: str


class Processes(TypedDict):
    """What is there although no command runs."""

    kind: Literal["processes"]
    n: int
    processes: list[LivingProcess]


class CopiedUp(TypedDict):
    """It was copied up as far as that was possible; for the warden alone."""

    kind: Literal["copied_up"]


InitMessage = (
    Restricted | Failed | Started | Exited | CanariesRun | ProofFailed | Processes | CopiedUp
)


# --- warden to engine


class ForwardEnds(TypedDict):
    """Brings the first descriptors of those that `ready` has, where one message has no room."""

    kind: Literal["forward_ends"]


class Ready(TypedDict):
    """The environment can be used.

    Brings a descriptor for each forward, in their order, on which its relay accepts.
    Where there are forwards to declared hosts, one more follows for their relay's refusals.
    `ForwardEnds` came before with those that have no room here.
    """

    kind: Literal["ready"]
    # init's number on the host
    init: int
    cgroup: ControlGroup | None


class Attempted(TypedDict):
    """Somebody tried what the policy does not allow."""

    kind: Literal["attempt"]
    attempt: Attempt


class Proved(TypedDict):
    """What canaries found."""

    kind: Literal["proved"]
    n: int
    results: list[CanaryResult]


class Dialed(TypedDict):
    """Brings a connection."""

    kind: Literal["dialed"]
    n: int


class DialFailed(TypedDict):
    """There is no connection."""

    kind: Literal["dial_failed"]
    n: int
    errno: int


class Ended(TypedDict):
    """All of the environment has ended."""

    kind: Literal["ended"]


Answer = Proved | ProofFailed | Dialed | DialFailed | Processes
WardenMessage = ForwardEnds | Ready | Failed | Attempted | Started | Exited | Answer | Ended


# --- beside the orders: between warden, relays and the executor of socket calls


class RelayRefused(TypedDict):
    """A declared host's name led to an address that no declaration opens."""

    kind: Literal["refused"]
    # as in `Forward`
    to: str
    ip: str
    # the caller's port
    source: int


class RelayFull(TypedDict):
    """A relay has as many connections as it has descriptors for: further ones wait."""

    kind: Literal["full"]
    # as in `Forward`
    to: str
    connections: int


class Forwarded(TypedDict):
    """Brings a connected socket of somebody who was led to a relay."""

    kind: Literal["forwarded"]
    # the name that was asked for, where the forward is a pattern's; else empty
    host: str


class SocketCallOrder(TypedDict):
    """Carry out a call of the environment's on its socket.

    Brings the socket, the descriptors that go with a message, and the root that `path` starts at.
    """

    op: Literal["connect", "bind", "listen", "send"]
    # bytes, in hexadecimal
    address: str
    payload: str
    control: str
    flags: int
    # how many descriptors go with the message
    rights: int
    backlog: int
    # of a unix socket, instead of an address; or empty
    path: str


class SocketCallResult(TypedDict):
    """How it ended."""

    kind: Literal["done"]
    # 0 where it worked
    errno: int
    # what the call returns
    value: int
