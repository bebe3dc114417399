"""CR-SHELL: interactive shells in the environments of phases."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-SHELL-001",
        title="there is no terminal for a shell",
        text="""
            `shell` is for a person at a terminal: standard input, output and error have to be one.
            A script belongs into a phase, whose exit status then counts.
        """,
        example="$ cleanroom-engine run test -- -k checkout",
    ),
    Code(
        "CR-SHELL-002",
        title="the phase has no environment for a shell",
        text="""
            The phase says `enabled = false`, so its commands run on the host, as your own shell
            does.
        """,
        example="""
            [lifecycle.test.cleanroom]
            enabled = true
        """,
    ),
    Code(
        "CR-SHELL-003",
        title="a shell ran in the place of a phase",
        text="""
            What a person types proves nothing about the phase's commands: the result says
            "unverified", the state file and the cache of phases know nothing of it, and nothing
            comes back to the project.
            The exit status of `shell` is that of the shell itself.
        """,
        example="$ cleanroom-engine run test",
    ),
)
