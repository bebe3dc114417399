"""CR-PAUSE: runs that are paused at a phase that failed."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-PAUSE-001",
        title="the phase cannot be run again from its pause",
        text="""
            Without namespaces (tier E3) phases share one copy of the project.
            A phase that is run again needs another copy, in which changes of earlier phases that
            did not come back would be missing.
        """,
        example="$ cleanroom-engine pipeline build test --pause",
    ),
    Code(
        "CR-PAUSE-002",
        title="an earlier phase hides a change of the project",
        text="""
            The named files were changed in the project during the pause, and before that by an
            earlier phase of the run, whose version is what later phases see.
            Run the pipeline again to have yours.
        """,
        example="$ cleanroom-engine pipeline build test",
    ),
    Code(
        "CR-PAUSE-003",
        title="there is no such paused run",
        text="""
            `retry`, and `shell` without a phase, are for a run of this project that is paused.
            A pause ends with a decision, after `--pause-for` (30 minutes), and with its process.
        """,
        example="$ cleanroom-engine run test --pause",
    ),
    Code(
        "CR-PAUSE-004",
        title="the paused run ended meanwhile",
        text="""
            Its process ended, or the time of its pause was over, before it answered.
            Everything that it held is removed.
        """,
        example="$ cleanroom-engine run test --pause",
    ),
)
