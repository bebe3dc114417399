"""CR-ENGINE: the engine itself."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-ENGINE-000",
        title="the engine failed in a way that it did not foresee",
        text="""
            This is a fault of the engine, not of your project.
            Run the command again with --debug for the traceback and report both.
            What was running has been unwound; `cleanroom-engine sweep` removes leftovers, should
            there be any.
        """,
        example="$ cleanroom-engine pipeline test --debug",
    ),
    Code(
        "CR-ENGINE-001",
        title="the engine was started inside a run",
        text="""
            A phase's command started the engine in that phase's own environment, which would nest
            without end.
            Say what the phase does with `cleanroom.command`, next to its command.
        """,
        example="""
            [lifecycle.test]
            command = "cleanroom-engine run test"
            cleanroom.command = "pytest -q"
        """,
    ),
    Code(
        "CR-ENGINE-002",
        title="evidence was not written in time",
        text="""
            After the run its subscribers had a bounded time to write the audit log, events and
            trace, and did not finish.
            A run whose evidence is incomplete does not pass; a slow or full disk is the usual
            cause.
        """,
        example="$ df -h . && ls -ld .ggen/cleanroom",
    ),
    Code(
        "CR-ENGINE-003",
        title="something was left behind",
        text="""
            The ledger at the end counts what was made and what was removed, by looking, and
            something is still there; the report lists it.
            `cleanroom-engine sweep` removes it.
            Report it: this should not happen.
        """,
        example="$ cleanroom-engine sweep",
    ),
    Code(
        "CR-ENGINE-004",
        title="whoever started the run has ended",
        text="""
            The process that started this engine, or the ggen above it, has ended while the run was
            under way, so that nobody waits for its result any more: ggen kills a phase's shell
            after 300 seconds, and leaves it behind when it is killed itself.
            The run was unwound as after SIGTERM and everything of it removed.
        """,
        example=r"""
            $ cleanroom-engine pipeline test  # by itself, \
                or in parts that take less than ggen's 300 seconds
        """,
    ),
    Code(
        "CR-ENGINE-005",
        title="no phase was named",
        text="""
            A pipeline runs the phases that are named, in their order, and none was.
            `cleanroom-engine plan` lists the phases of the project.
        """,
        example="$ cleanroom-engine plan && cleanroom-engine pipeline init test",
    ),
    Code(
        "CR-ENGINE-006",
        title="the project is around the engine's own Python",
        text="""
            What phases may write must not hold what the engine itself runs on: the Python
            installation with its standard library, or the system's folders of programs.
            A virtual environment in the project is fine, since its Python lies outside; a whole
            installation there, as conda makes one, is not.
            Install the engine with a Python outside of the project.
        """,
        example="$ python3 -m venv ~/cleanroom && ~/cleanroom/bin/pip install .  # in its folder",
    ),
    Code(
        "CR-ENGINE-007",
        title="an engine was asked for a second run while it runs",
        text="""
            An engine carries out one run at a time, since its events and its interruption mean that
            one.
            Wait for the result of the first call, or open another engine; two engines may run in
            one project at once.
        """,
        example="$ cleanroom-engine pipeline init test",
    ),
    Code(
        "CR-ENGINE-008",
        title="an engine was asked for a run after its block was left",
        text="""
            What `cleanroom.open` gives out lives until its `async with` block ends: nobody could
            read the events of a run after that.
            Move the call into the block.
        """,
        example="$ cleanroom-engine pipeline init test",
    ),
)
