"""CR-INIT: making a make.toml."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-INIT-001",
        title="there is a make.toml already",
        text="""
            `init` never writes over a file, and no make.toml that would go before the table
            [tool.cleanroom] of a pyproject.toml.
            Move the existing make.toml away first, or convert it with `init --from FILE` in another
            folder.
        """,
        example="$ mv make.toml make.toml.old && cleanroom-engine init --from make.toml.old",
    ),
    Code(
        "CR-INIT-002",
        title="make.toml could not be written",
        text="""
            The project's folder did not take the file; the message has the system's words.
            Make the folder writable, or name another with --root.
        """,
        example="$ chmod u+w .",
    ),
)
