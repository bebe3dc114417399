"""CR-PHASE: phases."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-PHASE-001",
        title="a command of the phase failed",
        text="""
            A command ended with an exit status other than 0, so the phase failed and later phases
            did not run.
            Where attempts against the policy were blocked meanwhile, the reason names them first.
            The end of its output is in the failure excerpt and the whole in the log that the
            summary names.
        """,
        example="$ cleanroom-engine run test -v",
    ),
    Code(
        "CR-PHASE-002",
        title="the phase ran out of time",
        text="""
            It was still running after `cleanroom.timeout` (or its level's wall time) and was ended
            with its whole process tree; the command's exit status is 124.
            Raise the timeout, or find out what it waits for: hosts that are not declared never
            answer.
        """,
        example="""
            [lifecycle.test]
            cleanroom.timeout = "5m"
        """,
    ),
    Code(
        "CR-PHASE-003",
        title="the phase was ended early",
        text="""
            Recovery ended the phase's environment, because of a violation where the policy's
            reaction is `end`, or because of a limit.
            The reason beside the code and the violations in the report say which.
        """,
        example="""
            [lifecycle.test]
            cleanroom.on_violation = "fail"  # at its end; more than the level allows takes a reason
            cleanroom.reason = "to see all of it"
        """,
    ),
    Code(
        "CR-PHASE-004",
        title="the phase was killed for a limit",
        text="""
            The kernel ended a process of the phase because its environment reached a limit, such as
            `cleanroom.limits.memory`.
            The readings that led to it are in the report; raise the limit with a `reason`, or use
            less.
        """,
        example="""
            [lifecycle.test]
            cleanroom.limits = { memory = "6GiB" }
            cleanroom.reason = "the linker needs 5 GiB"
        """,
    ),
    Code(
        "CR-PHASE-005",
        title="the phase broke the policy",
        text="""
            Attempts against the policy were blocked while its commands ran, and at this level such
            a phase does not pass, even where its commands succeeded.
            Where a command failed too, the reason has its exit status last: a blocked attempt
            usually explains it.
            The violations name process and target.
            Declare what is needed (`cleanroom.egress`), tolerate what is known
            (`cleanroom.expected`), or remove the cause.
        """,
        example="""
            [lifecycle.test]
            cleanroom.egress = ["index.example.org:443"]
        """,
    ),
    Code(
        "CR-PHASE-006",
        title="the phase took longer than its budget",
        text="""
            `cleanroom.budget` is the phase's share of the SLO.
            Going over it is said and fails nothing; `--strict-slo` makes a missed SLO fail.
            Make the phase quicker, or give it a larger share.
        """,
        example="""
            [lifecycle.test]
            cleanroom.budget = "8s"
        """,
    ),
    Code(
        "CR-PHASE-007",
        title="the phase left processes running",
        text="""
            Its commands had ended and processes that they had started were still there a quarter of
            a second later.
            They were ended with the environment.
            Wait for background processes at the end of the command, or make them services.
        """,
        example="""
            [lifecycle.test]
            command = "server & pytest -q; kill $!; wait"
        """,
    ),
    Code(
        "CR-PHASE-008",
        title="a phase on the host cannot reach its services",
        text="""
            Services live in environments of their own, which a phase with `cleanroom.enabled =
            false` does not share.
            Let the phase run inside, or remove its services.
        """,
        example="""
            [lifecycle.migrate]
            cleanroom.enabled = true
            cleanroom.containers = ["postgres"]
        """,
    ),
    Code(
        "CR-PHASE-009",
        title="a program is on this machine and hidden at the phase's level",
        text="""
            At High and above a phase sees the system's programs, the project's own virtual
            environment and the folders in `cleanroom.tools`, and none of the caller's PATH.
            The command ended with 127 or 126 and the program it needed lies elsewhere.
            The message names it and the line that shows its folder: add that to the phase or to
            `[cleanroom]`, or run the phase at Medium.
        """,
        example="""
            [lifecycle.test]
            cleanroom.tools = ["/usr/local"]
        """,
    ),
    Code(
        "CR-PHASE-010",
        title="a phase failed, and its packages are not in the project",
        text="""
            A phase from Medium on has no network, so cargo, go, npm, pnpm, yarn, pip, uv, poetry,
            tox, nox, maven and gradle find only what lies in the project: a vendor/ folder,
            node_modules, .venv, or a source that .cargo/config.toml names. An empty folder counts
            as missing. The message names the phase and has the line that puts the packages there;
            run it once on the host. Where nothing pins them it has the line that writes the lock
            too. `cleanroom-engine plan` says the same before a run, of the first phase that needs
            them.
            They are told that there is no network (CARGO_NET_OFFLINE, GOPROXY=off,
            npm_config_offline, PIP_NO_INDEX, UV_OFFLINE), so that what is missing fails at once;
            cleanroom.variables overrides each.
        """,
        example="$ cargo vendor && git add vendor",
    ),
    Code(
        "CR-PHASE-011",
        title="a program that the phase built may not be started at its level",
        text="""
            At High and above only the system's programs and declared tools start, and nothing that
            was written.
            Test runners and build tools start what they have just built: `go test` in the folder
            for temporary files, cargo its build scripts in target/.
            `cleanroom.builds = true` lets programs start that lie in the folders among the phase's
            `outputs`, and in /tmp.
            The message names the program and the lines that are missing.
        """,
        example="""
            [lifecycle.test]
            cleanroom.builds = true
            cleanroom.outputs = ["target/"]
        """,
    ),
    Code(
        "CR-PHASE-012",
        title="a phase failed, and something leads out of the project",
        text="""
            From Medium on a phase sees the project, the system's programs and the caller's tools.
            A link of the project, or a path that goes up in a manifest (`path = "../lib"` of cargo,
            `file:../lib` of npm, `replace => ../lib` of Go, `-e ../lib` of pip) leads to a folder
            beside it, which is not there inside: the program says that a module or file is missing.
            The message names each with its end, and has the line that shows it, read-only.
            A `.git` that leads to a folder which does not lead back is named too.
            `cleanroom-engine plan` lists the same before a run.
        """,
        example="""
            [lifecycle.test]
            cleanroom.tools = ["/usr/local"]
        """,
    ),
    Code(
        "CR-PHASE-020",
        title="a phase's command is an interpreter with nothing to do",
        text="""
            `sh`, `bash`, `python`, `node` and the like without a script, `-c` or an argument wait
            for a person, and a phase has nobody at its input: they would end at once with status 0,
            whatever the state of the project.
            So the phase was not run, later phases neither, and the run ends with 4.
            Write the command that the phase is for.
        """,
        example="""
            [lifecycle.test]
            command = "bash tests/run.sh"
        """,
    ),
)
