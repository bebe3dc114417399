"""CR-AUDIT: the audit log."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-AUDIT-001",
        title="the audit log is not what its head says",
        text="""
            The log's bytes differ from what audit.head recorded: something was changed, cut off or
            removed.
            Nothing is repaired and nothing is added to such a log.
            `cleanroom-engine audit verify` says which records are concerned; to start a new log,
            move .ggen/cleanroom/audit away and keep it.
        """,
        example="""
            $ cleanroom-engine audit verify
            $ mv .ggen/cleanroom/audit .ggen/cleanroom/audit-2026-11-25
        """,
    ),
    Code(
        "CR-AUDIT-002",
        title="the audit log was locked for too long",
        text="""
            Another engine of the same project holds the lock of the audit log and does not let go,
            which takes milliseconds normally: it was stopped in the middle of a write, or its disk
            hangs.
            Continue or end that process.
        """,
        example="$ fuser .ggen/cleanroom/audit/audit.lock",
    ),
    Code(
        "CR-AUDIT-003",
        title="the audit log could not be written",
        text="""
            A run whose evidence cannot be kept is not carried on.
            The message has the folder and the system's words: a full disk, a read-only folder and
            files of another owner are the usual causes.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
)
