"""CR-RES: rules about memory, processes, time and disk."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-RES-001",
        title="the memory limit was reached",
        text="""
            The processes of one environment used more memory than `cleanroom.limits.memory` allows;
            the report shows the readings that led to it and the processes were ended.
            Raise the limit with a `reason`, or run fewer workers at once: inside, tools may count
            the machine's cores.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { memory = "6GiB" }
            cleanroom.reason = "the linker needs 5 GiB"
        """,
    ),
    Code(
        "CR-RES-002",
        title="the limit of processes was reached",
        text="""
            One environment had as many processes and threads as `cleanroom.limits.pids` allows, so
            that further ones could not start.
            Look for a fork loop first; raise the limit with a `reason` if the number is honest.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { pids = 2048 }
            cleanroom.reason = "one process for each of 1,000 clients"
        """,
    ),
    Code(
        "CR-RES-003",
        title="the time limit was reached",
        text="""
            The phase ran longer than `cleanroom.timeout` (or its level's wall time) and was ended
            with its whole process tree; the command's exit status is 124.
            The end of its output is in the failure excerpt.
            Raise the timeout, or find out what it waits for: services and hosts that are not
            declared never answer.
        """,
        example="""
            [lifecycle.test]
            cleanroom.timeout = "5m"
        """,
    ),
    Code(
        "CR-RES-004",
        title="the limit of written bytes was reached",
        text="""
            The workspace layer or a temporary folder of one environment is full
            (`cleanroom.limits.disk`).
            Clean up what the phase leaves behind, or raise the limit with a `reason`.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { disk = "20GiB" }
            cleanroom.reason = "the build keeps debug symbols"
        """,
    ),
    Code(
        "CR-RES-005",
        title="connections to a service wait for descriptors",
        text="""
            A notice, and no violation.
            A connection to a service or a declared host takes two descriptors of the relay in
            between, and the engine was started with a hard limit of descriptors that is reached:
            further clients wait until a connection ends, which may look as if the service did not
            answer.
            Close connections that are not used, or raise the hard limit where the engine is
            started.
        """,
        example="$ ulimit -Hn  # where the engine is started: 4096 is for 1,984 clients",
    ),
)
