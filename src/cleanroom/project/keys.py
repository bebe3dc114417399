"""Every `cleanroom` key of a make.toml: its type, default, meaning and where it may stand.

The structs are the one list of keys: `settings.py` reads tables by them, suggestions come from
them, and `keys_page.py` prints docs/make-toml.md from them.
A field is None where the file does not set it.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from cleanroom.model.plan import BackendName, ServiceKind
from cleanroom.model.policy import Level, Reaction

# Where a key may stand: [cleanroom], a phase's cleanroom, and [cleanroom.env.NAME] over either.
Place = Literal["project", "phase"]
BOTH: tuple[Place, ...] = ("project", "phase")
PROJECT: tuple[Place, ...] = ("project",)
PHASE: tuple[Place, ...] = ("phase",)

# Form -> its description in the table of keys. The readers are in `settings.py`.
FORMS: dict[str, str] = {
    "flag": "true or false",
    "text": "string",
    "texts": "list of strings",
    "command": "string, or list of strings run in order",
    "argv": "string, or list of a program and its arguments",
    "words": "table of strings",
    "commands": "table: phase -> string or list of strings",
    "integer": "whole number",
    "seed": "whole number",
    "count": "whole number above 0",
    "number": "number above 0",
    "port": "port (1 to 65535)",
    "ports": "list of ports",
    "named_ports": "table: name -> port",
    "duration": 'duration: "20s", "1m30s", "500ms" or seconds',
    "size": 'size: "1GiB", "512MB" or bytes',
    "level": "Low, Medium, High or Locked",
    "backend": "auto, embedded, docker, podman, kubernetes or memory",
    "reaction": "warn, fail or end",
    "kind": "postgres, redis or generic",
    "rules": "list of rule names (docs/policy.md) or policy",
    "names": "list of environment variables' names",
    "egress": 'list of "host:port" or { host, port, private }',
    "paths": "list of paths inside the project",
    "folders": "list of folders",
    "cache": "table: inputs = list of paths or patterns",
    "expected": "list of { target, reason }",
    "limits": "table, see below",
    "ready": "table, see below",
    "retention": "table, see below",
    "services": "table: name -> service, see below",
    "env": "table: environment -> keys of this table",
    "telemetry": "true or false",
    "boundary": "required or preferred",
}


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One key: its form, meaning and default for readers, and where it may stand."""

    form: str
    text: str
    default: str = ""
    at: tuple[Place, ...] = BOTH
    later: bool = False  # checked, without effect so far


def key(
    form: str, text: str, default: str = "", *, at: tuple[Place, ...] = BOTH, later: bool = False
) -> msgspec.Meta:
    """The annotation of a field that a key of make.toml sets."""
    assert form in FORMS
    return msgspec.Meta(
        description=text,
        extra={"info": KeyInfo(form=form, text=text, default=default, at=at, later=later)},
    )


class CacheKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`cleanroom.cache` of a phase."""

    inputs: Annotated[
        tuple[str, ...], key("paths", "Patterns of the files that the result depends on.")
    ]


class ExpectedKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attempt that is tolerated: still blocked, still reported."""

    target: Annotated[
        str,
        key(
            "text",
            (
                "What is attempted, as the report names it (a host:port, a path, a program), or "
                "a pattern of such names."
            ),
        ),
    ]
    reason: Annotated[str, key("text", "Why it is harmless; copied into the report.")]


class EgressKeys(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of `cleanroom.egress` as a table; "host:port" is the same without `private`."""

    host: Annotated[
        str,
        key("text", "A name, an address, or `*.example.org` for all names below a domain."),
    ]
    port: Annotated[int | None, key("port", "The TCP port.", "443")] = None
    private: Annotated[
        bool | None,
        key(
            "flag",
            (
                "The name may lead to a private or documentation address; never to one of this "
                "machine itself, a link-local one or a metadata server."
            ),
            "false",
        ),
    ] = None

    @property
    def name(self) -> str:
        """The entry as "host:port", as a policy has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port or 443}"


class LimitKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`cleanroom.limits`: downwards freely, above the level's default only with `reason`."""

    memory: Annotated[
        int | None, key("size", "Memory of all processes of the phase together.", "by level")
    ] = None
    cpus: Annotated[
        float | None, key("number", "Processors' worth of time per second.", "by level")
    ] = None
    pids: Annotated[int | None, key("count", "Processes and threads at once.", "by level")] = None
    disk: Annotated[
        int | None, key("size", "What the phase may write into its workspace layer.", "by level")
    ] = None
    tmpfs: Annotated[int | None, key("size", "Size of /tmp.", "by level")] = None
    open_files: Annotated[int | None, key("count", "Open files per process.", "by level")] = None
    output: Annotated[
        int | None,
        key("size", "Output that is kept; what is beyond is cut and marked.", "by level"),
    ] = None
    wall: Annotated[float | None, key("duration", "Wall time of the phase.", "by level")] = None
    grace: Annotated[
        float | None, key("duration", "From the request to end until the kill.", "by level")
    ] = None


class RetentionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`[cleanroom.retention]`: at the end of each run the records of the oldest runs are removed
    until all limits hold. The newest run, those under way and the last pass of each phase stay.
    """

    runs: Annotated[int | None, key("count", "How many runs' records are kept.", "all")] = None
    age: Annotated[
        float | None, key("duration", "How long they are kept, such as 30d.", "for ever")
    ] = None
    size: Annotated[int | None, key("size", "How much they may take together.", "any")] = None


class ReadyKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`ready` of a service: when it is ready. Exactly one of the first four."""

    tcp: Annotated[int | None, key("port", "It accepts a connection on this port.")] = None
    http: Annotated[str | None, key("text", 'A GET is answered with success: ":8080/health".')] = (
        None
    )
    log: Annotated[
        str | None, key("text", "A line of its output matches this regular expression.")
    ] = None
    command: Annotated[tuple[str, ...] | None, key("argv", "A shell command exits with 0.")] = None
    timeout: Annotated[float | None, key("duration", "How long it may take.", "30s")] = None


class ServiceKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`[cleanroom.services.NAME]`: settings of a built-in service (postgres, redis),
    or a whole service of your own.
    """

    kind: Annotated[
        ServiceKind | None,
        key("kind", "What it is, where the name does not say it.", "by name, else generic"),
    ] = None
    version: Annotated[
        str | None, key("text", "The version asked for.", "the one that is found")
    ] = None
    image: Annotated[str | None, key("text", "Image for container backends.")] = None
    command: Annotated[
        tuple[str, ...] | None, key("argv", "The server: program and arguments.")
    ] = None
    ready: Annotated[ReadyKeys | None, key("ready", "When it is ready.")] = None
    port: Annotated[
        int | None, key("port", "Where phases find it on 127.0.0.1.", "the service's own")
    ] = None
    after: Annotated[
        str | None,
        key("text", "The phase that builds it: it starts when that one has passed."),
    ] = None
    depends_on: Annotated[
        tuple[str, ...] | None,
        key("texts", "Services that it reaches as phases do, and that are ready before it starts."),
    ] = None
    replicas: Annotated[
        int | None, key("count", "How many of it: NAME, NAME-2 and so on.", "1")
    ] = None
    ports: Annotated[
        dict[str, int] | None,
        key("named_ports", "Further ports of a service of your own, each with a name."),
    ] = None
    env: Annotated[
        dict[str, str] | None,
        key(
            "words",
            (
                "Variables that phases get beside the service's own; {host}, {port} and {url} are "
                "filled in, for the built-in services {user}, {password} and {database} too."
            ),
        ),
    ] = None
    variables: Annotated[
        dict[str, str] | None, key("words", "Environment of the server itself.")
    ] = None
    init: Annotated[
        tuple[str, ...] | None,
        key(
            "paths",
            "SQL files (also .gz), dumps of pg_dump, or folders of them: the initial state.",
        ),
    ] = None
    options: Annotated[
        dict[str, str] | None, key("words", "Server settings, such as shared_buffers.")
    ] = None
    initdb: Annotated[
        tuple[str, ...] | None,
        key("texts", "Further options of initdb, such as --locale-provider=icu."),
    ] = None
    databases: Annotated[
        tuple[str, ...] | None,
        key("texts", "Further databases of PostgreSQL, owned by the phase's role."),
    ] = None
    users: Annotated[
        dict[str, str] | None,
        key("words", "Further users: name and rights (PostgreSQL: CREATEDB; Valkey: ACL rules)."),
    ] = None
    createdb: Annotated[
        bool | None, key("flag", "The phase's database role may make databases.", "true")
    ] = None
    superuser: Annotated[
        bool | None, key("flag", "The phase's database role is a superuser.", "false")
    ] = None
    tls: Annotated[
        bool | None,
        key("flag", "PostgreSQL offers TLS, and phases verify its certificate.", "false"),
    ] = None
    restarts_max: Annotated[
        int | None, key("integer", "Restarts after a crash, within the window.", "3")
    ] = None
    restart_window: Annotated[
        float | None, key("duration", "The window in which restarts are counted.", "60s")
    ] = None


class SettingKeys(msgspec.Struct, frozen=True, kw_only=True):
    """`[cleanroom]` for the whole project, `cleanroom.KEY` for one phase.

    What a phase says goes before what the project says.
    """

    backend: Annotated[
        BackendName | None, key("backend", "What makes the environments.", "auto", at=PROJECT)
    ] = None
    policy: Annotated[Level | None, key("level", "The isolation level.", "Medium")] = None
    enabled: Annotated[
        bool | None, key("flag", "false: run on the host, which every report says.", "true")
    ] = None
    containers: Annotated[
        tuple[str, ...] | None,
        key("texts", "Services that the phase uses: postgres, redis, or declared ones."),
    ] = None
    services: Annotated[
        dict[str, ServiceKeys] | None,
        key("services", "Settings of built-in services, and further ones.", at=PROJECT),
    ] = None
    command: Annotated[
        tuple[str, ...] | None,
        key(
            "command",
            (
                "What the engine runs in place of the phase's `command`, where that is the "
                "engine itself."
            ),
            at=PHASE,
        ),
    ] = None
    egress: Annotated[
        tuple[EgressKeys, ...] | None,
        key(
            "egress",
            "Hosts that may be reached, at Medium and below; the phase is then not hermetic.",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        key("duration", "After this time the phase is ended.", "the level's limit of wall time"),
    ] = None
    budget: Annotated[float | None, key("duration", "The phase's share of the SLO.", at=PHASE)] = (
        None
    )
    slo: Annotated[
        float | None, key("duration", "What a whole run should take at most.", "20s", at=PROJECT)
    ] = None
    strict_slo: Annotated[
        bool | None, key("flag", "A missed SLO does not pass.", "false", at=PROJECT)
    ] = None
    retention: Annotated[
        RetentionKeys | None,
        key("retention", "What is kept of earlier runs' records.", "all", at=PROJECT),
    ] = None
    seed: Annotated[int | None, key("seed", "The run's seed.", "42", at=PROJECT)] = None
    limits: Annotated[
        LimitKeys | None, key("limits", "Bounds of memory, processes, time and more.", "by level")
    ] = None
    outputs: Annotated[
        tuple[str, ...] | None,
        key(
            "paths",
            "What is brought back from the workspace layer, also on failure; see below.",
            "every change of a phase that passed",
        ),
    ] = None
    variables: Annotated[
        dict[str, str] | None, key("words", "Environment variables that are set inside.")
    ] = None
    passed: Annotated[
        tuple[str, ...] | None,
        key("names", "Environment variables that are handed over from the caller."),
    ] = msgspec.field(default=None, name="pass")
    tools: Annotated[
        tuple[str, ...] | None, key("folders", "Further folders that are shown read-only.")
    ] = None
    image: Annotated[str | None, key("text", "Image that container backends run phases in.")] = None
    on_violation: Annotated[
        Reaction | None,
        key(
            "reaction",
            "What a violation does to its phase; laxer than the level only with `reason`.",
            "by level",
        ),
    ] = None
    expected: Annotated[
        tuple[ExpectedKeys, ...] | None,
        key("expected", "Attempts that are tolerated: still blocked, still reported."),
    ] = None
    listen: Annotated[
        tuple[int, ...] | None, key("ports", "Ports that the phase may listen on, from High on.")
    ] = None
    tmp_exec: Annotated[
        bool | None, key("flag", "Programs in /tmp may run.", "true up to Medium")
    ] = None
    builds: Annotated[
        bool | None,
        key(
            "flag",
            (
                "From High on: programs that the phase built may run, in the folders among its "
                "`outputs` and, unless `tmp_exec = false`, in /tmp."
            ),
            "false",
        ),
    ] = None
    reason: Annotated[
        str | None,
        key("text", "Why a limit is raised or a reaction is laxer; copied into the report."),
    ] = None
    allow_degraded: Annotated[
        tuple[str, ...] | None,
        key(
            "rules",
            "Rules that may be given up, if the command line says so too (--allow-degraded).",
        ),
    ] = None
    cache: Annotated[
        CacheKeys | None,
        key(
            "cache",
            "Skip the phase when nothing that it depends on changed; docs/cache.md.",
            at=PHASE,
        ),
    ] = None
    telemetry: Annotated[
        bool | None, key("telemetry", "Take the spans that the phase's own programs send.", "false")
    ] = None
    kernel_boundary: Annotated[
        str | None, key("boundary", "A kernel of its own for the phase.", later=True)
    ] = None
    network_isolation: Annotated[
        bool | None, key("flag", "Of older documents; the level decides.")
    ] = None
    filesystem_isolation: Annotated[
        bool | None, key("flag", "Of older documents; the level decides.")
    ] = None
    env: Annotated[
        dict[str, Any] | None,
        key("env", "Overlay for `--env NAME`: it goes before all else in the file."),
    ] = None
    commands: Annotated[
        dict[str, tuple[str, ...]] | None,
        key("commands", "In `[cleanroom.env.NAME]` only: other commands for phases.", at=PROJECT),
    ] = None


@functools.cache
def keys_of(struct: type[msgspec.Struct]) -> dict[str, tuple[str, KeyInfo]]:
    """The keys of a struct: key as written -> name of its field, and its description."""
    hints = get_type_hints(struct, include_extras=True)
    return {
        field.encode_name: (field.name, _info(hints[field.name]))
        for field in msgspec.structs.fields(struct)
    }


def _info(hint: Any) -> KeyInfo:
    extra = hint.__metadata__[0].extra
    info = extra["info"]
    assert isinstance(info, KeyInfo)
    return info
