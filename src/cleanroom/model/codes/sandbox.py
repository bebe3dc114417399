"""CR-SANDBOX: the embedded backend."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-SANDBOX-002",
        title="the keeper process ended",
        text="""
            The process that owns the run's environments ended before the run did, so that
            everything in them was ended with it.
            It was killed (by hand, or for lack of memory: see the kernel's log), or it failed.
            Run again; nothing is left behind.
        """,
        example="$ cleanroom-engine sweep",
    ),
    Code(
        "CR-SANDBOX-003",
        title="the cache folder lies inside the project",
        text="""
            Layers of the workspace cannot lie in the folder that they are layers of.
            Set CLEANROOM_CACHE to a folder outside of the project.
        """,
        example='$ CLEANROOM_CACHE="$HOME/cleanroom-cache" cleanroom-engine pipeline test',
    ),
    Code(
        "CR-SANDBOX-005",
        title="an environment could not be made",
        text="""
            Its processes did not start in time, or a step of setting it up was refused by the
            system; the message has the step and the system's answer.
            Run `cleanroom-engine doctor`, which tries each primitive by itself; a machine that is
            out of memory or processes gives the same message.
        """,
        example="$ cleanroom-engine doctor",
    ),
    Code(
        "CR-SANDBOX-006",
        title="an environment has ended",
        text="""
            The environment's first process ended while a command was running or about to run in it:
            it was killed for a limit, by a violation, or from outside.
            The event log has what happened before.
        """,
        example="$ cleanroom-engine events show",
    ),
    Code(
        "CR-SANDBOX-007",
        title="this machine could not be probed",
        text="""
            The throw-away processes that try each primitive failed in a way that tells nothing
            about the primitives.
            The message has the system's own words; check free memory and the limit of processes,
            and run `cleanroom-engine doctor` again.
        """,
        example="$ cleanroom-engine doctor",
    ),
    Code(
        "CR-SANDBOX-008",
        title="the canaries did not come to their end",
        text="""
            The process that tries what the policy forbids was killed or broke off, so nothing is
            proven and nothing was run.
            Something on this machine ends processes (the kernel for want of memory, or a person);
            free some memory and run again.
        """,
        example="$ free -m && cleanroom-engine pipeline test",
    ),
    Code(
        "CR-SANDBOX-009",
        title="the cache folder cannot be used",
        text="""
            Layers, services' data and homes lie in the cache while a run uses them, and the disk
            does not take them: it is full, read-only, not yours, or something else stands in a
            folder's place.
            The message names the path.
            Make room, correct it, or let CLEANROOM_CACHE name another folder.
        """,
        example='$ CLEANROOM_CACHE="$HOME/cleanroom-cache" cleanroom-engine pipeline test',
    ),
    Code(
        "CR-SANDBOX-010",
        title="an environment reaches too many services and hosts",
        text="""
            Each port of a service is two sockets of the environment, each declared host is one, and
            there is a number of them beyond which processes run out of descriptors.
            Give the phase the services that it needs (`services` in its table), and declare hosts
            of one domain by a pattern (`*.example.org`).
        """,
        example='[lifecycle.test.cleanroom]\negress = ["*.example.org:443"]',
    ),
)
