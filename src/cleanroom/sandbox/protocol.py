"""What travels between engine, keeper, wardens, init and relays: the contract of the sandbox, in one place.

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
    # where it is reached inside
    address: str
    port: int
    # the environment that it leads to; empty for what lies outside of all
    environment: str
    # "unix:/path" or "tcp:PORT" in that environment, "out:HOST:PORT" or "host:/path" outside
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
