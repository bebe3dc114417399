"""CR-USAGE: arguments of the library."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-USAGE-001",
        title="there is no such rule",
        text="""
            `--allow-degraded` takes the name of a rule of the policy, such as network.names, or
            `policy`.
            The hint has the nearest name or all of them.
        """,
        example="$ cleanroom-engine pipeline test --allow-degraded resource.memory",
    ),
    Code(
        "CR-USAGE-002",
        title="there is no such phase",
        text="""
            The command line names a phase that this make.toml does not have.
            The message lists those that exist, the hint has the nearest; `cleanroom-engine plan`
            shows them with their commands.
        """,
        example="$ cleanroom-engine plan",
    ),
    Code(
        "CR-USAGE-003",
        title="an argument of a call is not what it has to be",
        text="""
            `cleanroom.open`, the engine, `cleanroom.servers` or a fixture was given an argument of
            another kind, a word that is none of those to choose from, or one that does not exist.
            The message names the argument, what was expected and what was found; the hint has the
            nearest word.
            A list of one is still a list: `init=["schema.sql"]`.
        """,
        example="""
            [cleanroom]
            policy = "Medium"  # in Python: cleanroom.open(".", policy="Medium")
        """,
    ),
    Code(
        "CR-USAGE-004",
        title="the phase takes no arguments",
        text="""
            Words after `--` of `run PHASE -- ARGUMENT...` follow the phase's last command, which
            ends in a comment, a here-document or a compound command, or does not exist.
            Write `"$@"` where they belong: such a command gets them as its positional parameters.
        """,
        example="""
            [lifecycle.test]
            command = 'for one in "$@"; do ./check "$one"; done'
        """,
    ),
)
