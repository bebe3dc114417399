"""The services of the phase in which a program runs, for programs that ask for servers.

Inside a run nothing starts a server of its own; the phase has those that it names, and variables
say where they are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

import anyio
from anyio.abc import ByteStream

from cleanroom.model.errors import ServiceFailed, UsageError
from cleanroom.model.plan import ServiceSpec
from cleanroom.servers.addresses import ExecResult, database, keyvalue
from cleanroom.servers.databases import Databases, failing
from cleanroom.servers.emptying import everything, one_database

RUN = "CLEANROOM_RUN_ID"
WORKER = "PYTEST_XDIST_WORKER"
SCHEMES = {"postgres": ("postgresql", "postgres"), "redis": ("redis",)}
FIRST_DATABASES = 16  # of a key-value server, unless it is told otherwise
ANSWER_BYTES = 65536  # INFO's section of the server is about 1 KiB
ANSWER_SECONDS = 10.0


class Address(NamedTuple):
    """A service of the phase, as its variables say."""

    host: str
    port: int
    user: str
    password: str
    database: str


def find(spec: ServiceSpec, caller: Mapping[str, str]) -> Address:
    """The phase's service of this kind: the one that is called as its kind, or the only one.

    Raises:
        UsageError: the phase names none, or several.
    """
    found = {}
    for name, value in caller.items():
        if re.fullmatch(r"CLEANROOM_\w+_URL", name) and _scheme(value) in SCHEMES[spec.kind]:
            found[name] = value
    usual = found.get(f"CLEANROOM_{spec.kind.upper()}_URL")
    if usual is None and len(found) != 1:
        raise UsageError(
            "CR-SERVICE-031",
            (
                f"this is inside a run ({caller[RUN]}), whose phase names "
                f"{'several services' if found else 'no service'} of the kind {spec.kind}"
            ),
            hint=f'name one in the phase: cleanroom.containers = ["{spec.kind}"]',
        )
    parts = urlsplit(usual or next(iter(found.values())))
    return Address(
        parts.hostname or "127.0.0.1",
        parts.port or 0,
        parts.username or "",
        parts.password or "",
        parts.path.lstrip("/"),
    )


def refuse(found: str, hint: str) -> NoReturn:
    """Say that a phase's service is not as it was asked for.

    Raises:
        UsageError: always.
    """
    raise UsageError("CR-SERVICE-040", found, hint=hint)


def _scheme(url: str) -> str:
    return url.partition("://")[0]


class _PhaseServer:
    """A server of the phase's, whose commands and log are the run's."""

    async def exec(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout_seconds: float
    ) -> ExecResult:
        _not_ours("exec")

    async def logs(self) -> str:
        _not_ours("logs")


# --- PostgreSQL


class PhasePostgres(_PhaseServer):
    """The phase's PostgreSQL: its role makes the databases, over the network."""

    def __init__(self, address: Address) -> None:
        self.version = ""
        self.user, self.password = address.user, address.password
        self.first = database(*address)
        self.source = address.database
        self.maintenance = "postgres"
        # Several processes of the phase, and several phases, ask the same server.
        self.prefix = f"test_{token_hex(4)}_"
        self.creates = self.superuser = False

    async def dial(self) -> ByteStream:
        return await anyio.connect_tcp(self.first.host, self.first.port)

    def check_create(self) -> None:
        """Raises:
        UsageError: the role may not make databases.
        """
        if not self.creates:
            refuse(
                f"the phase's role {self.user!r} may not make a database for each test",
                hint="remove createdb = false under [cleanroom.services.postgres], or add "
                "superuser = true",
            )


@asynccontextmanager
async def phase_databases(spec: ServiceSpec, caller: Mapping[str, str]) -> AsyncIterator[Databases]:
    """The databases of the phase's PostgreSQL; those that are made are dropped at the end.

    Raises:
        UsageError: the phase has no such service, or it is not as `spec` says.
        ServiceFailed: it does not answer.
    """
    host = PhasePostgres(find(spec, caller))
    databases = Databases(host)
    await _look(databases, host)
    await _compare(spec, databases, host)
    try:
        if spec.init:
            host.source = await _prepare(spec, databases)
        yield databases
    finally:
        with anyio.CancelScope(shield=True):
            await databases.drop_all()


async def _look(databases: Databases, host: PhasePostgres) -> None:
    """What the server is, and what its role may; in its own database where it may enter no other,
    as in a pool.
    """
    question = (
        "SELECT current_setting('server_version'), rolcreatedb OR rolsuper, rolsuper "
        "FROM pg_roles WHERE rolname = current_user"
    )
    try:
        rows = await databases.ask(question)
    except ServiceFailed:
        host.maintenance = host.first.database
        rows = await databases.ask(question)
    version, creates, superuser = rows[0]
    host.version = version.partition(" ")[0]
    host.creates, host.superuser = creates == "t", superuser == "t"


async def _compare(spec: ServiceSpec, databases: Databases, host: PhasePostgres) -> None:
    """Whether the service is as it was asked for: here it can only be looked at."""
    check_version(spec, host.version)
    if spec.superuser and not host.superuser:
        refuse(
            f"a superuser was asked for, and the phase's role {host.user!r} is none",
            hint="[cleanroom.services.postgres] superuser = true",
        )
    for name, value in spec.options.items():
        ((found,),) = await databases.ask(f"SELECT current_setting('{_identifier(name)}', true)")
        if found != value:
            refuse(
                f"the setting {name} = {value!r} was asked for, and the phase's server has "
                f"{found!r}",
                hint=f'[cleanroom.services.postgres] options = {{ {name} = "{value}" }}',
            )


def check_version(spec: ServiceSpec, version: str) -> None:
    """Whether the version is the one that was asked for, as far as that was said.

    Raises:
        UsageError: it is another one.
    """
    wanted = spec.version.split(".") if spec.version else []
    if version.split(".")[: len(wanted)] != wanted:
        refuse(
            f"version {spec.version} was asked for, and the phase's {spec.kind} is {version}",
            hint=f'[cleanroom.services.{spec.kind}] version = "{spec.version}"',
        )


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        refuse(f"expected the name of a server setting, found {name!r}", hint="correct it")
    return name


async def _prepare(spec: ServiceSpec, databases: Databases) -> str:
    """A frozen database that the init files filled, as outside of a run: from an empty one."""
    made = await databases.create("template0")
    for path in spec.init:
        text = await anyio.Path(path).read_text()
        if lines := re.findall(r"^\\\w+", text, flags=re.MULTILINE):
            refuse(
                f"{Path(path).name} has commands of psql ({lines[0]}), which a phase cannot run",
                hint='let make.toml name it: [cleanroom.services.postgres] init = ["..."]',
            )
        await databases.ask(text, database=made.database, shown=f"init file {path}")
    await databases.freeze(made.database)
    return made.database


def _not_ours(what: str) -> NoReturn:
    refuse(
        f"{what}: the server is the phase's, in an environment of its own",
        hint="its log is in the run's folder: logs/service-NAME.log",
    )


# --- key-value servers


class PhaseRedis(_PhaseServer):
    """The phase's Valkey or Redis. Workers of pytest-xdist have one of its databases each."""

    def __init__(self, address: Address, worker: int | None) -> None:
        self.version = ""
        number = int(address.database or 0) if worker is None else worker
        self.keyvalue = keyvalue(address.host, address.port, address.password, number)
        self.emptying = one_database(number)

    async def dial(self) -> ByteStream:
        return await anyio.connect_tcp(self.keyvalue.host, self.keyvalue.port)


@asynccontextmanager
async def phase_redis(spec: ServiceSpec, caller: Mapping[str, str]) -> AsyncIterator[PhaseRedis]:
    """The phase's key-value server.

    Raises:
        UsageError: the phase has no such service, or it is not as `spec` says;
            or there are more workers than it has databases.
        ServiceFailed: it does not answer.
    """
    named = re.fullmatch(r"gw(\d+)", caller.get(WORKER, ""))
    worker = int(named[1]) if named else None
    if worker is not None and worker >= FIRST_DATABASES:
        refuse(
            f"worker {caller[WORKER]} of pytest-xdist has no database of the phase's server",
            hint=f"run at most {FIRST_DATABASES} workers: pytest -n {FIRST_DATABASES}",
        )
    server = PhaseRedis(find(spec, caller), worker)
    server.version = await _version(server)
    check_version(spec, server.version)
    if worker is None:
        server.emptying = everything(server.version)
    yield server


async def _version(server: PhaseRedis) -> str:
    received = b""
    with failing("asking the phase's key-value server"), anyio.fail_after(ANSWER_SECONDS):
        async with await server.dial() as stream:
            await stream.send(f"AUTH {server.keyvalue.password}\r\nINFO server\r\n".encode())
            # which comes after the versions
            while b"\nrun_id:" not in received and len(received) < ANSWER_BYTES:
                received += await stream.receive()
    found = dict(re.findall(rb"(valkey|redis)_version:(\S+)", received))
    version: bytes = found.get(b"valkey") or found.get(b"redis") or b""
    if not version:
        raise ServiceFailed("CR-SERVICE-030", "the phase's key-value server says no version")
    return version.decode()
