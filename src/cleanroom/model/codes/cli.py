"""CR-CLI: the command."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-CLI-001",
        title="the command line does not say anything that exists",
        text="""
            A command, option, value or argument is not known or is missing.
            The hint names the nearest that exists; `cleanroom-engine COMMAND --help` lists all with
            examples.
            Commands of later versions are not known either: `cleanroom-engine --version` says which
            one this is.
        """,
        example="$ cleanroom-engine pipeline --help",
    ),
    Code(
        "CR-CLI-002",
        title="the result could not be written to standard output",
        text="""
            Standard output was closed, full, or its reader went away, so what the command had to
            say is lost; the exit status is 5 because a 0 would claim that somebody was told.
            A run's reports are still in .ggen/cleanroom/reports.
        """,
        example="$ cleanroom-engine pipeline test --output json > result.json",
    ),
    Code(
        "CR-CLI-003",
        title="an input is nested too deeply or too large",
        text="""
            Reading the project's files ran out of stack or memory.
            No sensible make.toml does that; look for generated or hostile content in the files of
            the project.
            Nothing was run and nothing was written.
        """,
        example="$ wc -c make.toml && head -c 300 make.toml",
    ),
    Code(
        "CR-CLI-004",
        title="there is no such code",
        text="""
            `cleanroom-engine explain CODE` knows the codes that this version can report.
            Without a code it lists all of them with their titles, one per line.
        """,
        example="$ cleanroom-engine explain",
    ),
    Code(
        "CR-CLI-005",
        title="there is nothing recorded yet",
        text="""
            The command reads what earlier runs left under .ggen/cleanroom, and there is none in
            this project (or not the run that was named).
            Nothing was verified, so the exit status is 4.
            Run a pipeline first, or name the project with --root.
        """,
        example="$ cleanroom-engine pipeline test",
    ),
)
