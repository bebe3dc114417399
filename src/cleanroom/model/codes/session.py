"""CR-SESSION: services that outlive a run."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-SESSION-001",
        title="services cannot be held for a session",
        text="""
            Engines that the same ggen starts share their services, which a process in the user's
            cache folder holds.
            That folder cannot be used, or another process keeps its lock.
            The message has the path and the reason; `--fresh` gives a run its own services.
        """,
        example="$ cleanroom-engine pipeline test --fresh",
    ),
    Code(
        "CR-SESSION-002",
        title="the process that holds the services ended",
        text="""
            It ended before it answered, more often than chance explains.
            What it said is in the log that the message names, and in the project's
            `.ggen/cleanroom/sessions`.
            `--fresh` gives a run its own services.
        """,
        example="$ cleanroom-engine pipeline test",
    ),
    Code(
        "CR-SESSION-003",
        title="the process that holds the services does not answer",
        text="""
            It lives and does not take part: it is stopped, or the machine is out of memory or
            processor time.
            End it by the number in its folder's file `owner`; the next run starts another one.
        """,
        example="$ cleanroom-engine sweep",
    ),
    Code(
        "CR-SESSION-004",
        title="a session ended while a run used its services",
        text="""
            The process that held the services was killed, or the ggen that the session belongs to
            has ended, and everything of the session was removed.
            Run it again.
        """,
        example="$ cleanroom-engine pipeline test",
    ),
    Code(
        "CR-SESSION-005",
        title="a service of that name runs with another configuration",
        text="""
            Runs of one session share a service only where everything that makes it is the same:
            version, settings, init files, variables, policy and seed.
            This run asked for something else and has a server of its own, with data of its own, for
            as long as it runs.
            Phases that are to share data need the same configuration.
        """,
        example="$ cleanroom-engine config show --origin  # in both phases: what differs?",
    ),
    Code(
        "CR-SESSION-006",
        title="the pool did not end",
        text="""
            It was told to end and its folder is still there: a server or its environment does not
            end.
            The message has the process; after it was killed, `cleanroom-engine sweep` removes what
            is left.
        """,
        example="$ kill -KILL 12345 && cleanroom-engine sweep  # the process in the message",
    ),
    Code(
        "CR-SESSION-007",
        title="there is nothing to pool",
        text="""
            A pool holds PostgreSQL and key-value servers that phases of this project name; of the
            former only those whose role is an ordinary one (`superuser = true` forbids it).
            Other services start with each run, since only their project knows what state they have.
        """,
        example="""
            [lifecycle.test]
            cleanroom.containers = ["postgres"]
        """,
    ),
    Code(
        "CR-SESSION-008",
        title="there is no such service to start",
        text="""
            `up` starts services that make.toml declares, that a phase names, or that are built in.
            Without a name it starts all of the project's, and there is none.
        """,
        example="$ cleanroom-engine up postgres",
    ),
    Code(
        "CR-SESSION-009",
        title="services of this project are up already",
        text="""
            `up --foreground` ends its services when it ends, and those that are up have data that
            is kept until `down`.
        """,
        example="$ cleanroom-engine down && cleanroom-engine up --foreground",
    ),
    Code(
        "CR-SESSION-010",
        title="a service is up with another configuration",
        text="""
            The project's file has changed since `up` started the service, or an init file, a
            program or the policy has.
            It goes on as it was started: replacing it would remove its data.
        """,
        example="$ cleanroom-engine down postgres && cleanroom-engine up",
    ),
    Code(
        "CR-SESSION-011",
        title="a service has too many ports",
        text="""
            Each port of a service that `up` starts is a listening socket of the host, and they are
            handed over at once.
        """,
        example="$ cleanroom-engine up postgres  # the others alone",
    ),
    Code(
        "CR-SESSION-012",
        title="this machine gives no port",
        text="""
            `up` listens on 127.0.0.1, on the port that phases find the service on, or on any other
            where that one is taken.
            The message has the kernel's reason.
        """,
        example="$ ss -ltn  # which ports are taken",
    ),
)
