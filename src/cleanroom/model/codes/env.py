"""CR-ENV: environments."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-ENV-001",
        title="an environment ended while it was needed",
        text="""
            A command was to run in an environment that has already been ended, by a limit, a
            violation or a fault.
            The lines before this one in the event log say why it ended (`cleanroom-engine events
            show`).
        """,
        example="$ cleanroom-engine run test --keep always -v",
    ),
    Code(
        "CR-ENV-002",
        title="an operation of the backend failed",
        text="""
            The backend could not carry out what was asked of it; with the memory backend its script
            says so on purpose.
            The run's events show which operation it was and what had been done before.
        """,
        example="$ cleanroom-engine events show",
    ),
)
