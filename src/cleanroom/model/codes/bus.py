"""CR-BUS: the event bus."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-BUS-001",
        title="a subscriber did not keep up",
        text="""
            Events came faster than one of the engine's own subscribers could take them, and a gap
            in the audit log is worse than a stop, so the run was ended.
            A disk that hardly answers is the usual cause.
            Run again, with the project or its reports on a faster disk.
        """,
        example='$ cleanroom-engine pipeline test --report-dir "$HOME/reports"',
    ),
)
