"""CR-FILE: files that the engine writes."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-FILE-001",
        title="a file could not be written",
        text="""
            A report, state or head file is written under a temporary name and renamed; one of these
            steps failed, and the old file is untouched.
            The message has the path and the system's words: a full disk, a read-only folder and
            missing rights are the usual causes.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
    Code(
        "CR-FILE-002",
        title="a log could not be appended to",
        text="""
            The event log or the audit log under .ggen/cleanroom could not be written.
            A run whose evidence is not kept is not carried on.
            The message has the path and the system's words: a full disk is the usual cause.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
    Code(
        "CR-FILE-003",
        title="a phase's log could not be written",
        text="""
            The full output of a phase or service goes to logs/ of the run's folder, and that could
            not be opened or written.
            The message has the path and the system's words: a full disk and missing rights are the
            usual causes.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
)
