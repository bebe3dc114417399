"""PostgreSQL: an ordinary database owner on a server of its own, reached by socket and relay,
from a template that is prepared once.

The superuser has a password that only the service's own environment can read (PRIVATE is not
mounted elsewhere), since the phases see the socket.
It belongs to the template; the role's password is new in every run.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceSpec
from cleanroom.services.base import DATA, PRIVATE, Probe, Recipe, clients_folder, run_folder
from cleanroom.services.certificates import Certificate, local_certificate
from cleanroom.services.clients import COPY_CLIENTS, link_clients
from cleanroom.services.common import (
    base_variables,
    fact_names,
    further_variables,
    location_variables,
    named_variables,
    refuse_reserved,
    server_fields,
)
from cleanroom.services.postgres_init import InitFile, prepare_lines
from cleanroom.services.programs import POSTGRES_CLIENTS, Programs
from cleanroom.services.templates import TemplateCache

PORT = 5432
ROLE = DATABASE = "app"
SUPERUSER = "postgres"
# A folder below DATA: initdb wants to own it and to set its mode,
# which it may not be able to do with a mount point.
CLUSTER = f"{DATA}/cluster"
# The clients of an image, for phases that run in another one.
COPIED_CLIENTS = f"{DATA}/clients"
TEMPLATE_FORMAT = "2"  # to be raised when what `prepare` makes changes

RESERVED = frozenset(
    [
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "logging_collector",
        "port",
        "ssl_cert_file",
        "ssl_key_file",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
    ]
)

# The data is thrown away after the run, so nothing is made to survive a power cut.
# A killed server must find what it committed, though:
# synchronous_commit stays on, which without fsync is one write.
# Nothing runs in the background that a test would wait for.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_init_zero": "off",
    "wal_recycle": "off",  # keeps templates small: only the segment in use is there to copy
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # the environment need not have a /dev/shm
    "timezone": "UTC",
    "log_timezone": "UTC",
}

TLS_SETTINGS = {
    "ssl": "on",
    "ssl_cert_file": f"{PRIVATE}/server.crt",
    "ssl_key_file": f"{PRIVATE}/server.key",
}
ROOT_CERTIFICATE = "root.crt"
# Options of initdb that say where the cluster lies and who may enter.
RESERVED_INITDB = re.compile(
    r"-[?ADLSUVWX].*|--(pgdata|username|pwfile|pwprompt|auth|waldir|sync-only|show|help|version).*"
)
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
# Names of the server's own, and of the databases of a pool's runs.
RESERVED_NAME = re.compile(r"app|postgres|public|template[01]|pg_.*|run_\d+(_[0-9a-f]{16})?")
# What the role of `users` may have beside LOGIN: no more than the phase's own role.
RIGHTS = ("CREATEDB", "NOINHERIT", "")
# Before, no event trigger can keep apart the databases that the runs of a pool make.
LOGIN_TRIGGER_MAJOR = 17

PREPARE = """\
set -eu
initdb=$1 server=$2 psql=$3
"$initdb" --pgdata=$CLUSTER --username=$SUPERUSER --pwfile=$PRIVATE/password \\
  --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 \\
  --wal-segsize=4 --no-sync --no-instructions $INITDB_OPTIONS >/dev/null
"$server" -D $CLUSTER -c config_file=$PRIVATE/postgresql.conf -c unix_socket_directories=$PRIVATE &
pid=$!
ask() { "$psql" -X -q -h $PRIVATE -v ON_ERROR_STOP=1 "$@"; }
until ask -U $SUPERUSER -d postgres -c 'SELECT 1' >/dev/null 2>&1; do
  kill -0 $pid 2>/dev/null
  sleep 0.02
done
status=0
run() { [ $status -ne 0 ] || "$@" || status=$?; }
run ask -U $SUPERUSER -d postgres -f $PRIVATE/role.sql
$INIT
kill -INT $pid
wait $pid || status=$?
exit $status
"""
# In place of the last line. Without clients a phase has what its own image has.
PREPARE_CLIENTS = (
    COPY_CLIENTS
    + """\
(copy_clients $COPIED $SHOWN "$server" $NAMES) 2>/dev/null || mkdir -p $COPIED
exit $status
"""
)

# A server that was killed leaves lock files with its process id.
# In a new environment that number may be some other process's.
# The server only checks whether that process is alive, and would take it for another server.
# A live server is recognised by its process name.
START = """\
for lock in $LOCKS; do
  if [ -e $lock ] && read -r pid <$lock && [ -e /proc/$pid/comm ] &&
    read -r name </proc/$pid/comm && [ "$name" != postgres ]; then
    rm -f $lock
  fi
done
exec "$@"
"""


def recipe(
    spec: ServiceSpec,
    programs: Programs,
    *,
    init: tuple[InitFile, ...],
    cache: TemplateCache,
    secrets: Callable[[], str],
    port: int,
) -> Recipe:
    """How to run this PostgreSQL once. Phases find it at 127.0.0.1:`port`.

    Raises:
        ProjectError: the project sets an option that it may not set.
        ServiceFailed: the cache cannot keep the template's secret.
    """
    refuse_reserved(spec, RESERVED, r"[A-Za-z_][A-Za-z0-9_.]*")
    _check_initdb(spec)
    _check_names(spec)
    settings = _settings(spec, programs)
    certificate = local_certificate(cache.folder / "certificates") if spec.tls else None
    key = _template_key(spec, programs, settings, init, cache.identity())
    secret, password = cache.secret(key), secrets()
    users = {user: secrets() for user in spec.users}
    to = f"unix:{run_folder(spec.name)}/.s.PGSQL.{PORT}"
    return Recipe(
        **server_fields(spec, programs),
        extensions=programs.extensions,
        superuser=spec.superuser,
        variables=_server_variables(spec),
        template_key=key,
        template_secret=secret,
        prepare=(_prepare_command(programs),),
        files={
            **_files(spec, programs, settings, init, secret=secret),
            **(_tls_files(certificate) if certificate else {}),
        },
        main=_main_command(programs),
        probe=_probe(to, secret, "SELECT 1"),
        first_probe=_first_probe(to, secret, {ROLE: password, **users}),
        administer=(*_psql(spec, programs), "-c"),
        # Each probe is a connection and a password exchange: about 10 ms of processor time on
        # both sides.
        health_seconds=2.0,
        stop_signal=2,  # "fast": ends sessions and stops, 2 ms; TERM would wait for every client
        port=port,
        # TLS is for TCP only
        to=f"tcp:{PORT}" if spec.tls else to,
        phase_variables=_phase_variables(spec, port, password, users),
        secrets=(password, secret, *users.values()),
        createdb=spec.createdb,
        undivided=_is_undivided(spec, programs),
        prepare_inputs=tuple(file.dump for file in init if file.dump),
        clients=_clients(programs, certificate, cache, key),
    )


def _clients(
    programs: Programs, certificate: Certificate | None, cache: TemplateCache, key: str
) -> str:
    """The host's folder of the server's clients; those of an image are part of the template."""
    if programs.source == "image" and certificate is None:
        return str(cache.data_folder(key) / COPIED_CLIENTS.removeprefix(f"{DATA}/"))
    return link_clients(
        cache.folder / "clients",
        programs.clients,
        {ROOT_CERTIFICATE: certificate.certificate} if certificate else {},
    )


def _server_variables(spec: ServiceSpec) -> dict[str, str]:
    # libpq takes the superuser's password from there, so that it stands in no command line
    own = {"PGPASSFILE": f"{PRIVATE}/pgpass", "PGCONNECT_TIMEOUT": "5"}
    return {**base_variables(), **spec.variables, **own}


def _prepare_command(programs: Programs) -> tuple[str, ...]:
    helpers = programs.helpers
    return ("sh", f"{PRIVATE}/prepare.sh", helpers["initdb"], programs.server, helpers["psql"])


def _main_command(programs: Programs) -> tuple[str, ...]:
    settings = f"config_file={PRIVATE}/postgresql.conf"
    return ("sh", f"{PRIVATE}/start.sh", programs.server, "-D", CLUSTER, "-c", settings)


def _is_undivided(spec: ServiceSpec, programs: Programs) -> bool:
    """Whether a pool lends the server whole, since nothing would keep its runs apart."""
    if spec.users or spec.databases or spec.tls:
        return True
    return spec.createdb and programs.major < LOGIN_TRIGGER_MAJOR


def _settings(spec: ServiceSpec, programs: Programs) -> dict[str, str]:
    # PostgreSQL 18 starts worker processes for input and output by default.
    version = {"io_method": "sync"} if programs.major >= 18 else {}
    return {**SETTINGS, **version, **(TLS_SETTINGS if spec.tls else {}), **spec.options}


def _template_key(
    spec: ServiceSpec,
    programs: Programs,
    settings: Mapping[str, str],
    init: tuple[InitFile, ...],
    cache_identity: str,
) -> str:
    """A digest of everything that a template is made of."""
    ingredients = (
        TEMPLATE_FORMAT,
        programs.version,
        programs.sha256,
        sorted(settings.items()),
        spec.superuser,
        spec.createdb,
        spec.initdb,
        sorted(spec.users.items()),
        spec.databases,
        [(file.name, file.text, file.digest) for file in init],
        cache_identity,
        *((PREPARE_CLIENTS,) if programs.source == "image" else ()),
    )
    return hashlib.sha256(msgspec.json.encode(ingredients)).hexdigest()


def _files(
    spec: ServiceSpec,
    programs: Programs,
    settings: Mapping[str, str],
    init: tuple[InitFile, ...],
    *,
    secret: str,
) -> dict[str, str]:
    server = {
        **settings,
        "listen_addresses": "127.0.0.1" if spec.tls else "",
        "port": str(PORT),
        "unix_socket_directories": run_folder(spec.name),
        "hba_file": f"{PRIVATE}/hba.conf",
        "ident_file": f"{PRIVATE}/ident.conf",
    }
    privilege = "SUPERUSER" if spec.superuser else "NOSUPERUSER"
    if spec.createdb:
        privilege += " CREATEDB"
    # Until a run gives it a password of its own the role has the template's,
    # so that init SQL can run as the role.
    role = (
        f"CREATE ROLE {ROLE} LOGIN {privilege} PASSWORD {quoted(secret)};\n"
        f"CREATE DATABASE {DATABASE} OWNER {ROLE};\n"
    )
    role += "".join(
        f'CREATE ROLE "{user}" LOGIN {rights} PASSWORD {quoted(secret)};\n'
        f'GRANT "{user}" TO {ROLE};\n'
        for user, rights in spec.users.items()
    )
    role += "".join(f'CREATE DATABASE "{name}" OWNER {ROLE};\n' for name in spec.databases)
    return {
        "password": secret,
        "pgpass": f"*:*:*:*:{secret}\n",
        "hba.conf": "local all all scram-sha-256\n"
        + ("host all all 127.0.0.1/32 scram-sha-256\n" if spec.tls else ""),
        "ident.conf": "",
        "postgresql.conf": "".join(f"{name} = {quoted(value)}\n" for name, value in server.items()),
        "prepare.sh": _prepare(spec, programs, init),
        "start.sh": START.replace(
            "$LOCKS", f"{CLUSTER}/postmaster.pid {run_folder(spec.name)}/.s.PGSQL.{PORT}.lock"
        ),
        "role.sql": role,
        **{file.name: file.text for file in init if not file.dump},
    }


def _prepare(spec: ServiceSpec, programs: Programs, init: Sequence[InitFile]) -> str:
    # on by default since 18
    options = ["--no-data-checksums"] if programs.major >= 18 else []
    restore = programs.clients.get("pg_restore", "pg_restore")
    lines = prepare_lines(init, PRIVATE, f"-U {ROLE} -d {DATABASE}", restore)
    script = PREPARE
    if programs.source == "image":
        script = PREPARE.removesuffix("exit $status\n") + PREPARE_CLIENTS
    values = {
        "$COPIED": COPIED_CLIENTS,
        "$SHOWN": clients_folder(spec.name),
        "$NAMES": " ".join(POSTGRES_CLIENTS),
        "$CLUSTER": CLUSTER,
        "$PRIVATE": PRIVATE,
        "$SUPERUSER": SUPERUSER,
        "$INITDB_OPTIONS": shlex.join([*options, *spec.initdb]),
        "$INIT": "\n".join(lines),
    }
    return re.sub(r"\$[A-Z_]+", lambda match: values[match.group()], script)


def _check_initdb(spec: ServiceSpec) -> None:
    for option in spec.initdb:
        if RESERVED_INITDB.fullmatch(option) or not option.isprintable():
            raise _refused(
                spec, "initdb", f"{option!r} is the engine's to say", "take this option away"
            )


def _check_names(spec: ServiceSpec) -> None:
    named = [("databases", name) for name in spec.databases]
    named += [("users", name) for name in spec.users]
    for key, name in named:
        if not NAME.fullmatch(name) or RESERVED_NAME.fullmatch(name):
            raise _refused(
                spec,
                key,
                f"expected a name of lower-case letters, digits, '_' and '-' that the server does "
                f"not use itself, found {name[:80]!r}",
                "choose another name",
            )
    for user, rights in spec.users.items():
        if rights not in RIGHTS:
            raise _refused(
                spec,
                f"users.{user}",
                f"expected {', '.join(filter(None, RIGHTS))} or nothing, found {rights[:80]!r}",
                "grant what it needs in an init file: GRANT SELECT ON ALL TABLES ...",
            )


def _refused(spec: ServiceSpec, key: str, message: str, hint: str) -> ProjectError:
    return ProjectError(
        "CR-SERVICE-005",
        f"cleanroom.services.{spec.name}.{key}: {message}",
        hint=hint,
        where=str(spec.origin or ""),
    )


def _probe(to: str, secret: str, *statements: str) -> Probe:
    return Probe(
        kind="sql", to=to, user=SUPERUSER, database=DATABASE, password=secret, statements=statements
    )


def _first_probe(to: str, secret: str, passwords: Mapping[str, str]) -> Probe:
    """The roles have the template's password until this one succeeds.

    A restarted server keeps the run's passwords, and setting them again does no harm.
    """
    roles = passwords.items()
    changes = (f'ALTER ROLE "{role}" PASSWORD {quoted(word)}' for role, word in roles)
    return _probe(to, secret, "SELECT 1", *changes)


def _psql(spec: ServiceSpec, programs: Programs) -> tuple[str, ...]:
    return (
        programs.helpers["psql"],
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        run_folder(spec.name),
        "-U",
        SUPERUSER,
        "-d",
        "postgres",
    )


def tls_variables(name: str) -> dict[str, str]:
    """What libpq and the drivers that read its variables need to verify the server."""
    return {
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": f"{clients_folder(name)}/{ROOT_CERTIFICATE}",
    }


def _tls_files(certificate: Certificate) -> dict[str, str]:
    return {"server.crt": certificate.certificate, "server.key": certificate.key}


def _phase_variables(
    spec: ServiceSpec, port: int, password: str, users: Mapping[str, str]
) -> dict[str, str]:
    """The variables of phases: those of their role, of further databases and of further users."""
    at = f"127.0.0.1:{port}"
    urls = {
        f"db_{name}_url": f"postgresql://{ROLE}:{password}@{at}/{name}" for name in spec.databases
    }
    for user, word in users.items():
        urls[f"user_{user}_url"] = f"postgresql://{user}:{word}@{at}/{DATABASE}"
        urls[f"user_{user}_password"] = word
    return {
        **(tls_variables(spec.name) if spec.tls else {}),
        **further_variables(spec.name, urls),
        **role_variables(spec.name, spec.env, port, password, further=urls),
    }


def role_variables(
    name: str,
    env: Mapping[str, str],
    port: int,
    password: str,
    *,
    role: str = ROLE,
    database: str = DATABASE,
    further: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment variables of phases that use this role and database."""
    url = f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"
    facts = {
        "host": "127.0.0.1",
        "port": str(port),
        "user": role,
        "password": password,
        "database": database,
        "url": url,
    }
    return {
        "DATABASE_URL": url,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGUSER": role,
        "PGPASSWORD": password,
        "PGDATABASE": database,
        **location_variables(name, port, url),
        **named_variables(env, {**fact_names(further or {}), **facts}),
    }


def quoted(value: str) -> str:
    """A string literal, for SQL and for postgresql.conf.

    A backslash is doubled for postgresql.conf; no secret contains one.
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
