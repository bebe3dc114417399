"""CR-HISTORY: recorded runs."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-HISTORY-001",
        title="there is no such run",
        text="""
            The run that was named is not recorded in this project.
            The message lists the last ones; they are the folders under .ggen/cleanroom/runs.
        """,
        example="$ ls .ggen/cleanroom/runs && cleanroom-engine events show",
    ),
    Code(
        "CR-HISTORY-002",
        title="recorded events cannot be read",
        text="""
            The events file of a run is not there or not readable; the message has the path and the
            system's words.
            Check its owner and rights.
        """,
        example="""
            $ cleanroom-engine report --from .ggen/cleanroom/runs/20261125-215133-dhuei/events.jsonl
        """,
    ),
    Code(
        "CR-HISTORY-003",
        title="a recorded line is not an event",
        text="""
            A line of the events file, and not the last, is not an event: the file was changed or is
            another one.
            `cleanroom-engine audit verify` tells whether the audit log of the same run is whole.
        """,
        example="$ cleanroom-engine audit verify",
    ),
    Code(
        "CR-HISTORY-004",
        title="records of old runs are kept beyond the limits",
        text="""
            A warning: `[cleanroom.retention]` says how much is kept, and at the end of this run the
            records beyond it could not be removed; the message says why.
            The run itself is whole.
            Where the audit log does not match its own chain nothing is removed, since that would
            destroy what shows it.
        """,
        example="$ cleanroom-engine audit verify && cleanroom-engine sweep --older 30d",
    ),
)
